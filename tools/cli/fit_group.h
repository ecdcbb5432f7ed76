// What `shardproof fit` keeps of its records, and what it makes of them: the
// variants of one case beside one another.
#ifndef SHARDPROOF_TOOLS_CLI_FIT_GROUP_H_
#define SHARDPROOF_TOOLS_CLI_FIT_GROUP_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "collectives/tuning.h"
#include "reference/status.h"
#include "reports/interconnect.h"
#include "reports/record.h"
#include "tools/cli/jobs.h"
#include "tools/cli/machine_model.h"

namespace shardproof {

// The same case at the same values of all axes but count.
struct FitKey {
  std::string case_name = {}, params = {};
  int ranks = 0;
  friend auto operator<=>(const FitKey&, const FitKey&) = default;
};

struct FitGroup {
  struct Measured {
    Curve curve = {};
    // By size: what auto.cc is given, args.count * SizeOf(args.dtype).
    std::vector<int64_t> argument_bytes = {};
    bool costed = false;     // Its cost is declared; else 1 message of all.
    bool in_memory = false;  // Works through memory that the ranks share.
    bool native = false;
  };
  std::map<std::string, Measured> variants = {};
  bool shared = false;  // The ranks share memory.
};

// Adds a record that has a time; others are left out. A record of the same
// variant and size is another round, one more median of the same point.
void AddToGroup(const Job& job, const Record& record,
                std::map<FitKey, FitGroup>& groups);

// Makes the points' times and intervals those of all rounds: the median of
// their medians, and the range of these.
void Finish(FitGroup& group);

// Between every two variants that are algorithms of their own: `auto` takes one
// of the others, and so does `direct` where there are one_shot and two_shot.
std::vector<Crossover> CrossoversOf(const FitKey& key, const FitGroup& group,
                                    const std::string& backend, uint64_t seed);

// From so many bytes on, this variant: an algorithm of its own, and ours.
// One replaces another only where it is faster beyond noise (the 95 percent
// intervals of the medians are apart), so that ties make no rows.
struct Winner {
  int64_t argument_bytes = 0, bytes = 0;
  std::string variant = {};
};
std::vector<Winner> WinnersOf(const FitGroup& group);
// "collectives/all_reduce on 4 ranks: one_shot up to 4 KiB, then two_shot";
// empty where nothing was measured.
std::string WinnersSentence(const FitKey& key, const FitGroup& group);

// Rows for every primitive whose `auto` asks; where several values of other
// axes were measured, the first counts.
TuningTable TuningOf(const std::map<FitKey, FitGroup>& groups);

// kInvalidArgument: "cannot write FILE: why".
Status WriteText(const std::string& path, const std::string& text);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_FIT_GROUP_H_
