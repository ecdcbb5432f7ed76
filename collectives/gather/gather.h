// gather: the root gets the blocks of all ranks, in rank order.
//
//     recv_root[s * count + i] = send_s[i]    for every rank s, i in 0..count-1
//
// and with a count for each rank (gather_v):
//
//     recv_root[offsets[s] + i] = send_s[i]             for i in 0..counts[s]-1
//
//     Gather(comm, {.send = x, .recv = y, .count = n, .dtype = DType::kF32,
//                   .root = 0});
#ifndef SHARDPROOF_COLLECTIVES_GATHER_GATHER_H_
#define SHARDPROOF_COLLECTIVES_GATHER_GATHER_H_

#include <cstdint>
#include <span>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "reference/dtype.h"

namespace shardproof {

// `send` holds `count` elements; `recv` holds count * p at the root and may be
// null elsewhere. In place: send == recv + root * count elements at the root.
struct GatherArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  int64_t count = 0;
  DType dtype = DType::kF32;
  int root = 0;
};

// `counts` has one entry per rank, equal on all ranks (MPI asks for them at the
// root only; here every rank of a tree needs them); `offsets` too, in elements
// of `recv`, or is empty: blocks follow one another. Blocks must not overlap.
// In place: send == recv + offsets[root] elements at the root. The spans must
// live until the operation is done.
struct GatherVArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  std::span<const int64_t> counts;
  std::span<const int64_t> offsets = {};
  DType dtype = DType::kF32;
  int root = 0;
};

// The variant that is fastest here for this size, on `stream`.
Status Gather(const Communicator& comm, const GatherArgs& args,
              const Stream& stream = Stream::Inline());
Status GatherV(const Communicator& comm, const GatherVArgs& args,
               const Stream& stream = Stream::Inline());

// --- Variants over messages, synchronous -------------------------------------

// A binomial tree: ceil(lg p) steps; inner ranks collect in scratch memory.
Status GatherBinomial(const Communicator& comm, const GatherArgs& args);
Status GatherVBinomial(const Communicator& comm, const GatherVArgs& args);

// Every rank sends to the root.
Status GatherLinear(const Communicator& comm, const GatherArgs& args);
Status GatherVLinear(const Communicator& comm, const GatherVArgs& args);

// MPI_Gather(v): the library under test.
Status GatherNative(const Communicator& comm, const GatherArgs& args);
Status GatherVNative(const Communicator& comm, const GatherVArgs& args);

// --- Variants over shared memory, synchronous; comm.SharesMemory() -----------

Status GatherDirect(const Communicator& comm, const GatherArgs& args);
Status GatherVDirect(const Communicator& comm, const GatherVArgs& args);

// --- Costs -------------------------------------------------------------------
// For `count` elements of `dtype` from each of `ranks` ranks, or counts[r] from
// rank r.

Cost GatherBinomialCost(int ranks, int64_t count, DType dtype);
Cost GatherLinearCost(int ranks, int64_t count, DType dtype);
Cost GatherDirectCost(int ranks, int64_t count, DType dtype,
                      Memory memory = Memory::kShared);
Cost GatherVBinomialCost(std::span<const int64_t> counts, DType dtype,
                         int root);
Cost GatherVLinearCost(std::span<const int64_t> counts, DType dtype, int root);
Cost GatherVDirectCost(std::span<const int64_t> counts, DType dtype, int root,
                       Memory memory = Memory::kShared);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_GATHER_GATHER_H_
