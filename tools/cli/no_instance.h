// Why nothing is left of the chosen cases.
#ifndef SHARDPROOF_TOOLS_CLI_NO_INSTANCE_H_
#define SHARDPROOF_TOOLS_CLI_NO_INSTANCE_H_

#include <string>
#include <vector>

#include "tools/harness/registry.h"

namespace shardproof {

// Overrides of axes that this case has; others may belong to another case.
AxisOverrides OverridesFor(const CaseInfo& info, const AxisOverrides& all);

// For each value that leaves no instance beside the others, what it would take,
// found by trying: another value of its axis ("the rest goes with schedule=gpipe"),
// another one of an axis that was not asked for ("or add --axis matrix=all"), or
// other numbers of ranks. Cases do not say it: what they skip depends on all
// axes at once.
std::string WhyNone(const std::vector<const CaseInfo*>& cases,
                    const AxisOverrides& overrides, Purpose purpose,
                    const std::vector<int>& ranks);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_NO_INSTANCE_H_
