// What else the machine did while something was measured.
//
//     ConditionsWatch watch;                       // Before the first case.
//     ... measure ...
//     const Conditions after = watch.Stop();       // As often as wanted.
//     if (std::string why = Throttled(watch.before(), after); !why.empty())
//       ...                                        // Do not judge this launch.
//
// From /proc and /sys of Linux; what is not there is 0.
#ifndef SHARDPROOF_TOOLS_CLI_CONDITIONS_H_
#define SHARDPROOF_TOOLS_CLI_CONDITIONS_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "reports/fingerprint.h"

namespace shardproof {

// The line "cpu" of /proc/stat (proc(5)), in clock ticks of all processors
// since the machine started.
struct CpuTicks {
  int64_t busy = 0;   // user, nice, system, irq, softirq
  int64_t steal = 0;  // Taken by the hypervisor for others.
  int64_t total = 0;  // With idle and iowait.
  friend bool operator==(const CpuTicks&, const CpuTicks&) = default;
};
CpuTicks ParseCpuTicks(std::string_view stat);

// steal_share and busy_share between two readings; `own` ticks were ours.
Conditions SharesBetween(const CpuTicks& before, const CpuTicks& after,
                         int64_t own);

// Of this process, its children that have ended, and the other ranks that the
// same mpirun started on this node.
int64_t OwnTicks();

class ConditionsWatch {
 public:
  ConditionsWatch();
  const Conditions& before() const { return before_; }
  // Of the time since the construction.
  Conditions Stop() const;

 private:
  Conditions before_;
  CpuTicks ticks_;
  int64_t own_ = 0;
};

// The hypervisor took more than this share of the processors: by itself as much
// as the slow-downs that the gate is to find, if the slowest rank was hit.
inline constexpr double kMostSteal = 0.05;

// Why what was measured between the two must not be judged, or empty. Other
// processes (busy_share) are no reason: paired launches share them.
std::string Throttled(const Conditions& before, const Conditions& after);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_CONDITIONS_H_
