// Whether the table that SHARDPROOF_TUNING names can be followed, and by all
// ranks alike.
#ifndef SHARDPROOF_TOOLS_CLI_TUNING_CHECK_H_
#define SHARDPROOF_TOOLS_CLI_TUNING_CHECK_H_

#include "collectives/tuning.h"
#include "reference/status.h"
#include "tools/harness/world.h"

namespace shardproof {

// kInvalidArgument, in one sentence: a primitive whose `auto` reads no table, a
// variant that it does not have, or one that is no algorithm of ours.
Status CheckTuning(const TuningTable& table);

// Collective under a launcher: the error of any rank, with its number, or
// kInvalidArgument where ranks read different tables. On threads there is one
// table.
Status AgreeOnTuning(World& world, const StatusOr<TuningTable>& mine);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_TUNING_CHECK_H_
