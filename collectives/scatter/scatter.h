// scatter: every rank gets its block of what the root has.
//
//     recv_r[i] = send_root[r * count + i]    for every rank r, i in 0..count-1
//
// and with a count for each rank (scatter_v):
//
//     recv_r[i] = send_root[offsets[r] + i]             for i in 0..counts[r]-1
//
//     Scatter(comm, {.send = x, .recv = y, .count = n, .dtype = DType::kF32,
//                    .root = 0});
#ifndef SHARDPROOF_COLLECTIVES_SCATTER_SCATTER_H_
#define SHARDPROOF_COLLECTIVES_SCATTER_SCATTER_H_

#include <cstdint>
#include <span>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "reference/dtype.h"

namespace shardproof {

// `send` holds count * p elements at the root and may be null elsewhere; `recv`
// holds `count`. In place: recv == send + root * count elements at the root.
struct ScatterArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  int64_t count = 0;
  DType dtype = DType::kF32;
  int root = 0;
};

// `counts` has one entry per rank, equal on all ranks; `offsets` too, in
// elements of `send`, or is empty: blocks follow one another. In place: recv ==
// send + offsets[root] elements at the root. The spans must live until the
// operation is done.
struct ScatterVArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  std::span<const int64_t> counts;
  std::span<const int64_t> offsets = {};
  DType dtype = DType::kF32;
  int root = 0;
};

// The variant that is fastest here for this size, on `stream`.
Status Scatter(const Communicator& comm, const ScatterArgs& args,
               const Stream& stream = Stream::Inline());
Status ScatterV(const Communicator& comm, const ScatterVArgs& args,
                const Stream& stream = Stream::Inline());

// --- Variants over messages, synchronous -------------------------------------

// A binomial tree: ceil(lg p) steps; inner ranks hold their subtree's blocks in
// scratch memory.
Status ScatterBinomial(const Communicator& comm, const ScatterArgs& args);
Status ScatterVBinomial(const Communicator& comm, const ScatterVArgs& args);

// The root sends to every rank.
Status ScatterLinear(const Communicator& comm, const ScatterArgs& args);
Status ScatterVLinear(const Communicator& comm, const ScatterVArgs& args);

// MPI_Scatter(v): the library under test.
Status ScatterNative(const Communicator& comm, const ScatterArgs& args);
Status ScatterVNative(const Communicator& comm, const ScatterVArgs& args);

// --- Variants over shared memory, synchronous; comm.SharesMemory() -----------

Status ScatterDirect(const Communicator& comm, const ScatterArgs& args);
Status ScatterVDirect(const Communicator& comm, const ScatterVArgs& args);

// --- Costs -------------------------------------------------------------------
// For `count` elements of `dtype` to each of `ranks` ranks, or counts[r] to
// rank r.

Cost ScatterBinomialCost(int ranks, int64_t count, DType dtype);
Cost ScatterLinearCost(int ranks, int64_t count, DType dtype);
Cost ScatterDirectCost(int ranks, int64_t count, DType dtype,
                       Memory memory = Memory::kShared);
Cost ScatterVBinomialCost(std::span<const int64_t> counts, DType dtype,
                          int root);
Cost ScatterVLinearCost(std::span<const int64_t> counts, DType dtype, int root);
Cost ScatterVDirectCost(std::span<const int64_t> counts, DType dtype, int root,
                        Memory memory = Memory::kShared);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_SCATTER_SCATTER_H_
