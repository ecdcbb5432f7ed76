// The library under test: our primitives by MPI's own collectives.
//
// A table from the primitive's name to a function; the caller's arguments are
// translated, and nothing is copied but where MPI has no form without a copy:
// out of place, MPI_Bcast leaves the root's own output to us.
//
// These calls block inside MPI, where the abort flag of a world is not seen.
// The non-blocking collectives would see it, but Open MPI runs them by other,
// slower algorithms: they are not what a program calls. A hang is ended by
// MpiWorld::AbortJob.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_NATIVE_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_NATIVE_H_

#include <mpi.h>

#include <climits>
#include <cstdint>

#include "collectives/backend.h"
#include "reference/status.h"

namespace shardproof {

// Runs `request` on `comm`. The primitives, and what they read of the request:
//
//   all_reduce, reduce, broadcast    count = elements of the whole
//   all_gather, gather               count = elements that each rank gives
//   scatter, reduce_scatter          count = elements that each rank gets
//   all_to_all                       count = elements for each pair of ranks
//   all_gather_v, gather_v           recv_counts, recv_offsets
//   reduce_scatter_v                 recv_counts
//   scatter_v                        send_counts, send_offsets
//   all_to_all_v                     all four
//   send_recv                        count, destination, source
//   barrier                          nothing
//
// Empty offsets: blocks follow one another. Counts are split, or described by a
// larger type, beyond `limit` (INT_MAX but in tests).
//
// kUnsupported, with the reason, for what MPI does not offer: all ranks get the
// same answer, but for all_to_all_v with more elements than an int counts.
Status RunMpiNative(MPI_Comm comm, const NativeRequest& request,
                    int64_t limit = INT_MAX);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_NATIVE_H_
