// Errors that only some ranks have, told to all.
#ifndef SHARDPROOF_LAYERS_TENSOR_PARALLEL_AGREE_H_
#define SHARDPROOF_LAYERS_TENSOR_PARALLEL_AGREE_H_

#include "collectives/communicator.h"
#include "reference/status.h"

namespace shardproof {

// Collective, for set-up. Ok where every rank's `mine` is; else the first rank's
// error, "rank 2: ...", the same on every rank.
Status AgreeOnStatus(const Communicator& comm, const Status& mine);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TENSOR_PARALLEL_AGREE_H_
