// What has been split from a communicator, for a watchdog on another thread:
// a hang inside a part leaves no trace in the progress of the whole.
//
//     for (const auto& part : LivingParts(comm)) {
//       part->Progress(r)  // of rank r of the part
//     }
#ifndef SHARDPROOF_COLLECTIVES_PARTS_H_
#define SHARDPROOF_COLLECTIVES_PARTS_H_

#include <memory>
#include <vector>

#include "collectives/backend.h"
#include "collectives/communicator.h"

namespace shardproof {

// The backends of all communicators that this rank has split from `comm`, and
// from those, and that somebody still holds; in the order of splitting, each
// followed by its own parts. From any thread.
std::vector<std::shared_ptr<Backend>> LivingParts(const Communicator& comm);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_PARTS_H_
