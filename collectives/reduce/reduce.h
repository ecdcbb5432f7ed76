// reduce: the root gets the reduction over all ranks.
//
//     recv_root[i] = op over s in 0..p-1 of send_s[i]    for i in 0..count-1
//
//     Reduce(comm, {.send = x, .recv = y, .count = n, .dtype = DType::kF32,
//                   .root = 0});
//
// Partial sums travel in `dtype` in the message variants; each addition is done
// in Accumulator(dtype). kAvg divides once, at the root; kPremulSum scales each
// input, rounded to `dtype`, first.
#ifndef SHARDPROOF_COLLECTIVES_REDUCE_REDUCE_H_
#define SHARDPROOF_COLLECTIVES_REDUCE_REDUCE_H_

#include <cstdint>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"

namespace shardproof {

// `recv` is written at the root only, and may be null elsewhere. In place: send
// == recv at the root. `scale` as in AllReduceArgs. count, dtype, op and root
// are equal on all ranks.
struct ReduceArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  int64_t count = 0;
  DType dtype = DType::kF32;
  ReduceOp op = ReduceOp::kSum;
  double scale = 1.0;
  int root = 0;
};

// The variant that is fastest here for this size, on `stream`.
Status Reduce(const Communicator& comm, const ReduceArgs& args,
              const Stream& stream = Stream::Inline());

// --- Variants over messages, synchronous -------------------------------------

// A binomial tree: ceil(lg p) steps of all bytes.
Status ReduceBinomial(const Communicator& comm, const ReduceArgs& args);

// Recursive halving, then a binomial gather to the root (Rabenseifner, ICCS
// 2004); ranks beyond the largest power of two fold into a neighbour first.
Status ReduceScatterGather(const Communicator& comm, const ReduceArgs& args);

// MPI_Reduce, ncclReduce: the library under test.
Status ReduceNative(const Communicator& comm, const ReduceArgs& args);

// --- Variants over shared memory, synchronous; comm.SharesMemory() -----------

// Every rank folds its slice of all inputs, in rank order, and stores it at the
// root.
Status ReduceDirect(const Communicator& comm, const ReduceArgs& args);

// --- Costs -------------------------------------------------------------------
// For `count` elements of `dtype` on each of `ranks` ranks; the root does not
// matter.

Cost ReduceBinomialCost(int ranks, int64_t count, DType dtype);
Cost ReduceScatterGatherCost(int ranks, int64_t count, DType dtype);
Cost ReduceDirectCost(int ranks, int64_t count, DType dtype,
                      Memory memory = Memory::kShared);

// --- Arithmetic --------------------------------------------------------------
// The additions and roundings on the path of one contribution, for bounds. The
// direct variants and the native ones have none of their own: Arithmetic::For.

Arithmetic ReduceBinomialArithmetic(int ranks, DType dtype, ReduceOp op);
Arithmetic ReduceScatterGatherArithmetic(int ranks, DType dtype, ReduceOp op);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_REDUCE_REDUCE_H_
