// reduce_scatter: the reduction over all ranks, one block of it to each rank.
//
//     recv_r[i] = op over s in 0..p-1 of send_s[r * count + i]
//                                  for every rank r, i in 0..count-1
//
// and with a count for each rank (reduce_scatter_v), o_r the sum of the counts
// of the ranks before r:
//
//     recv_r[i] = op over s of send_s[o_r + i]  for i in 0..counts[r]-1
//
//     ReduceScatter(comm, {.send = x, .recv = y, .count = n,
//                          .dtype = DType::kF32});
//
// Partial sums travel in `dtype` in the message variants; each addition is done
// in Accumulator(dtype). kAvg divides once, at the end; kPremulSum scales each
// input, rounded to `dtype`, first.
#ifndef SHARDPROOF_COLLECTIVES_REDUCE_SCATTER_REDUCE_SCATTER_H_
#define SHARDPROOF_COLLECTIVES_REDUCE_SCATTER_REDUCE_SCATTER_H_

#include <cstdint>
#include <span>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"

namespace shardproof {

// `send` holds count * p elements, `recv` count. In place: recv == send + rank
// * count elements, and only that block of `send` changes; any other overlap is
// an error of the caller. `scale` as in AllReduceArgs.
struct ReduceScatterArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  int64_t count = 0;
  DType dtype = DType::kF32;
  ReduceOp op = ReduceOp::kSum;
  double scale = 1.0;
};

// `counts` has one entry per rank, equal on all ranks; the blocks of `send`
// follow one another. The span must live until the operation is done.
struct ReduceScatterVArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  std::span<const int64_t> counts;
  DType dtype = DType::kF32;
  ReduceOp op = ReduceOp::kSum;
  double scale = 1.0;
};

// The variant that is fastest here for this size, on `stream`.
Status ReduceScatter(const Communicator& comm, const ReduceScatterArgs& args,
                     const Stream& stream = Stream::Inline());
Status ReduceScatterV(const Communicator& comm, const ReduceScatterVArgs& args,
                      const Stream& stream = Stream::Inline());

// --- Variants over messages, synchronous -------------------------------------

// Each block travels once around the ring and is added to on its way, p - 1
// steps.
Status ReduceScatterRing(const Communicator& comm,
                         const ReduceScatterArgs& args);
Status ReduceScatterVRing(const Communicator& comm,
                          const ReduceScatterVArgs& args);

// In step k rank r sends rank r + k that rank's block of its own input (Thakur,
// Rabenseifner and Gropp, IJHPCA 19(1), 2005, section 4.2).
Status ReduceScatterPairwise(const Communicator& comm,
                             const ReduceScatterArgs& args);
Status ReduceScatterVPairwise(const Communicator& comm,
                              const ReduceScatterVArgs& args);

// Recursive halving; ranks beyond the largest power of two fold into a
// neighbour first and get their block from it (same source).
Status ReduceScatterHalving(const Communicator& comm,
                            const ReduceScatterArgs& args);
Status ReduceScatterVHalving(const Communicator& comm,
                             const ReduceScatterVArgs& args);

// MPI_Reduce_scatter(_block), ncclReduceScatter: the library under test.
Status ReduceScatterNative(const Communicator& comm,
                           const ReduceScatterArgs& args);
Status ReduceScatterVNative(const Communicator& comm,
                            const ReduceScatterVArgs& args);

// --- Variants over shared memory, synchronous; comm.SharesMemory() -----------

// Every rank folds its block of all inputs, in rank order.
Status ReduceScatterDirect(const Communicator& comm,
                           const ReduceScatterArgs& args);
Status ReduceScatterVDirect(const Communicator& comm,
                            const ReduceScatterVArgs& args);

// --- Costs -------------------------------------------------------------------
// For `count` elements of `dtype` to each of `ranks` ranks, or counts[r] to
// rank r.

Cost ReduceScatterRingCost(int ranks, int64_t count, DType dtype);
Cost ReduceScatterPairwiseCost(int ranks, int64_t count, DType dtype);
Cost ReduceScatterHalvingCost(int ranks, int64_t count, DType dtype);
Cost ReduceScatterDirectCost(int ranks, int64_t count, DType dtype,
                             Memory memory = Memory::kShared);
Cost ReduceScatterVRingCost(std::span<const int64_t> counts, DType dtype);
Cost ReduceScatterVPairwiseCost(std::span<const int64_t> counts, DType dtype);
Cost ReduceScatterVHalvingCost(std::span<const int64_t> counts, DType dtype);
Cost ReduceScatterVDirectCost(std::span<const int64_t> counts, DType dtype,
                              Memory memory = Memory::kShared);

// --- Arithmetic --------------------------------------------------------------
// The additions and roundings on the path of one contribution, for bounds. The
// direct variants and the native ones have none of their own: Arithmetic::For.

Arithmetic ReduceScatterRingArithmetic(int ranks, DType dtype, ReduceOp op);
Arithmetic ReduceScatterPairwiseArithmetic(int ranks, DType dtype, ReduceOp op);
Arithmetic ReduceScatterHalvingArithmetic(int ranks, DType dtype, ReduceOp op);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_REDUCE_SCATTER_REDUCE_SCATTER_H_
