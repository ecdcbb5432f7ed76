// A model, laid over ranks, as the sizes that cases measure.
#ifndef SHARDPROOF_TOOLS_CLI_WORKLOAD_H_
#define SHARDPROOF_TOOLS_CLI_WORKLOAD_H_

#include <string>

#include "layers/models/parallelism.h"
#include "reference/status.h"
#include "tools/harness/registry.h"

namespace shardproof {

// Layer shapes for `tokens` tokens (0: the layout's), and the messages of one
// training step as the arguments of each primitive count them. `layout.tp` 0
// stands for `ranks`; then the messages are those of groups of `ranks`.
// kInvalidArgument for a model that cannot be read or cut so.
StatusOr<Workload> WorkloadOf(const std::string& model,
                              models::Parallelism layout, int ranks,
                              int64_t tokens);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_WORKLOAD_H_
