// The worlds of the backends, and what they share. Internal to world.h.
#ifndef SHARDPROOF_TOOLS_HARNESS_WORLD_BACKENDS_H_
#define SHARDPROOF_TOOLS_HARNESS_WORLD_BACKENDS_H_

#include <memory>
#include <string>
#include <vector>

#include "tools/harness/rank_state.h"
#include "tools/harness/world.h"

namespace shardproof {

StatusOr<std::unique_ptr<World>> CreateThreadWorld();
StatusOr<std::unique_ptr<World>> CreateMpiWorld();

// Where the ranks of the operations of the moment are, as sentences.
std::vector<std::string> DescribeActive(const ActiveCommunicator& active);
// Makes `active` known to what runs on `comm`.
Status PublishActive(const Communicator& comm,
                     const std::shared_ptr<ActiveCommunicator>& active);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_WORLD_BACKENDS_H_
