// The schedules that there are. Each folder registers its own:
//
//     const RegisterSchedule kGpipe({.name = "gpipe", .build = GpipeSchedule, ..});
#ifndef SHARDPROOF_PIPELINE_REGISTRY_H_
#define SHARDPROOF_PIPELINE_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "pipeline/schedule.h"
#include "pipeline/simulator.h"
#include "reference/status.h"

namespace shardproof {

struct ScheduleInfo {
  std::string name;    // "zb_h1"
  std::string what;    // One line.
  std::string source;  // "Qi et al., arXiv:2401.10241"
  bool takes_chunks = false;
  // A reason for what it cannot be made for, as kInvalidArgument.
  std::function<StatusOr<Schedule>(const ScheduleShape&)> build;
  // What the literature says, in the units of the costs and without latency:
  // idle time of a rank (the most of any where pairs overlap), what it holds at
  // most, and messages of all ranks.
  std::function<double(const ScheduleShape&, const StageCosts&)> bubble;
  // The bubble is that of a rank's own time (IdleWithin): ranks end one after
  // the other.
  bool bubble_within = false;
  std::function<double(const ScheduleShape&, const StageCosts&, int rank)> peak;
  // Bubble and peak are not what they are, but the most that they can be.
  bool at_most = false;
  std::function<int64_t(const ScheduleShape&)> messages;
};

// In the order of their names.
const std::vector<ScheduleInfo>& Schedules();
// Null where there is none.
const ScheduleInfo* FindSchedule(std::string_view name);
// kInvalidArgument for a name that there is not, with those that there are, for
// sizes below 1, a limit below 0, and for what the builder refuses.
StatusOr<Schedule> BuildSchedule(std::string_view name,
                                 const ScheduleShape& shape);

class RegisterSchedule {
 public:
  explicit RegisterSchedule(ScheduleInfo info);
};

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_REGISTRY_H_
