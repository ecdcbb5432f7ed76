// The worlds of the backends, and what they share. Internal to world.h.
#ifndef SHARDPROOF_TOOLS_HARNESS_WORLD_BACKENDS_H_
#define SHARDPROOF_TOOLS_HARNESS_WORLD_BACKENDS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "collectives/backend/mpi/mpi_world.h"
#include "collectives/backend/thread/thread_world.h"
#include "tools/harness/rank_state.h"
#include "tools/harness/world.h"

namespace shardproof {

StatusOr<std::unique_ptr<World>> CreateThreadWorld();
// Of another backend whose ranks are threads: `make` gives a world of so many.
StatusOr<std::unique_ptr<World>> CreateThreadsWorld(
    std::string backend, int max_ranks,
    std::function<StatusOr<std::unique_ptr<ThreadWorld>>(int ranks)> make);
// Of a backend whose ranks are processes: "mpi", or another around it.
StatusOr<std::unique_ptr<World>> CreateProcessesWorld(
    std::string backend, const MpiWorldOptions& options = {});

// Where the ranks of the operations of the moment are, as sentences. The last
// says it where none is in an operation.
std::vector<std::string> DescribeActive(const ActiveCommunicator& active);
// Makes `active` known to what runs on `comm`.
Status PublishActive(const Communicator& comm,
                     const std::shared_ptr<ActiveCommunicator>& active);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_WORLD_BACKENDS_H_
