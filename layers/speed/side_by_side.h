// Times of several ways to do the same, taken in turns, so that whatever else
// the machine does falls on all of them alike.
//
//     SP_ASSIGN_OR_RETURN(const std::vector<Times> t, SideBySide(
//         {[&] { return plain.Step(); }, [&] { return overlapped.Step(); }}, 9));
//     const double gain = t[0].median / t[1].median;
#ifndef SHARDPROOF_LAYERS_SPEED_SIDE_BY_SIDE_H_
#define SHARDPROOF_LAYERS_SPEED_SIDE_BY_SIDE_H_

#include <functional>
#include <vector>

#include "reference/status.h"

namespace shardproof {

// Seconds.
struct Times {
  double median = 0;
  double first_quartile = 0;
  double third_quartile = 0;
};

// Each way once to warm up, then `rounds` times, every round in the reverse
// order of the one before. At least one round. The first error ends it.
StatusOr<std::vector<Times>> SideBySide(
    const std::vector<std::function<Status()>>& ways, int rounds);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_SPEED_SIDE_BY_SIDE_H_
