// Copies from one rank's buffer to others' in a meeting.
#ifndef SHARDPROOF_COLLECTIVES_DIRECT_MOVE_H_
#define SHARDPROOF_COLLECTIVES_DIRECT_MOVE_H_

#include <cstddef>
#include <cstdint>

#include "collectives/communicator.h"
#include "collectives/kernels/streaming.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof::direct {

// `count` elements of `dtype` at element `from_begin` of what `from` sends, to
// element `to_begin` of where `to` receives.
void MoveOne(const Peers& peers, DType dtype, int64_t count, int from,
             int64_t from_begin, int to, int64_t to_begin,
             const kernels::Walk& walk);

// The same to every rank but `except` (-1: none).
void MoveToAll(const Peers& peers, DType dtype, int64_t count, int from,
               int64_t from_begin, int64_t to_begin, const kernels::Walk& walk,
               int except = -1);

// kInternal unless `rank` offers at least these bytes: ranks may disagree about
// the root, and addresses that nobody offered must not be followed.
Status CheckOffered(const Peers& peers, int rank, size_t send_bytes,
                    size_t recv_bytes);

// Whether `rank` receives where it sends, as far as the first bytes tell.
bool InPlace(const Peers& peers, int rank);
// Whether any rank does.
bool AnyInPlace(const Peers& peers);

}  // namespace shardproof::direct

#endif  // SHARDPROOF_COLLECTIVES_DIRECT_MOVE_H_
