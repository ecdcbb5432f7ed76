// The library under test: our primitives by NCCL's own collectives.
//
// A table from the primitive's name to a function; the caller's arguments are
// translated and nothing is copied. Where NCCL has no such collective, the
// primitive is a group of others:
//
//   all_reduce, reduce, broadcast, all_gather, reduce_scatter    NCCL's own
//   all_to_all, gather, scatter   NCCL's own from 2.28 on; before, and in the v
//                                 forms, a group of ncclSend and ncclRecv
//   all_gather_v                  a group of ncclBroadcast, one from each rank
//   reduce_scatter_v              a group of ncclReduce, one to each rank
//   send_recv                     a group of ncclSend and ncclRecv
//   barrier                       an ncclAllReduce of one i32
//
// Everything between ranks that has no element is left out of a group: both
// sides know. A collective of no elements is given to the library.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_COLLECTIVES_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_COLLECTIVES_H_

#include "collectives/backend.h"
#include "collectives/backend/nccl/nccl_communicator.h"
#include "reference/status.h"

namespace shardproof {

// Queues `request` on `stream`; the counts mean what they mean for RunMpiNative.
// Buffers are memory of the device and must stay until the stream is done.
//
// kUnsupported, with the reason and before anything is queued, for what NCCL
// does not offer; all ranks get the same answer. kInvalidArgument for counts,
// offsets and ranks that cannot be: nothing of the primitive is queued and the
// communicator goes on, but ranks that got no such error wait until their
// deadline. Any other error has ended the communicator
// (NcclCommunicator::health).
Status EnqueueNcclNative(NcclCommunicator& comm, const NativeRequest& request,
                         nccl::Stream stream);

// The same, and waits until it is done: what Backend::Native promises.
Status RunNcclNative(NcclCommunicator& comm, const NativeRequest& request,
                     nccl::Stream stream);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_COLLECTIVES_H_
