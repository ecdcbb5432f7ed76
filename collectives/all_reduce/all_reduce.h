// all_reduce: every rank gets the reduction over all ranks.
//
//     recv_r[i] = op over s in 0..p-1 of send_s[i]
//                                  for every rank r, i in 0..count-1
//
//     AllReduce(comm, {.send = x, .recv = y, .count = n, .dtype =
//     DType::kF32});
//
// Every variant leaves the same bits on every rank. Partial sums travel in
// `dtype` in the message variants; each addition is done in Accumulator(dtype).
// kAvg divides once, at the end; kPremulSum scales each input, rounded to
// `dtype`, first.
#ifndef SHARDPROOF_COLLECTIVES_ALL_REDUCE_ALL_REDUCE_H_
#define SHARDPROOF_COLLECTIVES_ALL_REDUCE_ALL_REDUCE_H_

#include <cstdint>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"

namespace shardproof {

// `send` and `recv` hold `count` elements of `dtype`; send == recv reduces in
// place, any other overlap is an error of the caller. `scale` multiplies this
// rank's input where op is kPremulSum and is ignored otherwise. count, dtype
// and op are equal on all ranks.
struct AllReduceArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  int64_t count = 0;
  DType dtype = DType::kF32;
  ReduceOp op = ReduceOp::kSum;
  double scale = 1.0;
};

// The variant that is fastest here for this size, on `stream`.
Status AllReduce(const Communicator& comm, const AllReduceArgs& args,
                 const Stream& stream = Stream::Inline());

// --- Variants over messages, synchronous -------------------------------------

// Reduce_scatter then all_gather around a ring (Patarasuk and Yuan, JPDC 69(2),
// 2009): the least bytes, p - 1 steps twice.
Status AllReduceRing(const Communicator& comm, const AllReduceArgs& args);

// Whole vectors between partners at distance 1, 2, 4, ...; ranks beyond the
// largest power of two fold into a neighbour first (Thakur, Rabenseifner and
// Gropp, IJHPCA 19(1), 2005, section 4.4): the fewest steps.
Status AllReduceRecursiveDoubling(const Communicator& comm,
                                  const AllReduceArgs& args);

// Reduce_scatter by recursive halving, all_gather by recursive doubling
// (Rabenseifner, ICCS 2004); excess ranks fold as above.
Status AllReduceRabenseifner(const Communicator& comm,
                             const AllReduceArgs& args);

// Reduce_scatter inside each node, all_reduce across nodes, all_gather inside.
// Nodes as in comm.topology(), which may differ in size: m, the smallest, is
// the number of chunks. On a single node the ranks form virtual nodes of g,
// the largest divisor of p not above sqrt(p). Collective at its first use.
Status AllReduceHierarchical(const Communicator& comm,
                             const AllReduceArgs& args);

// MPI_Allreduce, ncclAllReduce: the library under test.
Status AllReduceNative(const Communicator& comm, const AllReduceArgs& args);

// --- Variants over shared memory, synchronous; comm.SharesMemory() -----------

// Every rank folds all inputs itself, in rank order: one flag round.
Status AllReduceOneShot(const Communicator& comm, const AllReduceArgs& args);

// Every rank folds its slice of all inputs, in rank order, and stores it to all
// outputs.
Status AllReduceTwoShot(const Communicator& comm, const AllReduceArgs& args);

// One of the two, by size.
Status AllReduceDirect(const Communicator& comm, const AllReduceArgs& args);

// --- Costs -------------------------------------------------------------------
// For `count` elements of `dtype` on each of `ranks` ranks.

Cost AllReduceRingCost(int ranks, int64_t count, DType dtype);
Cost AllReduceRecursiveDoublingCost(int ranks, int64_t count, DType dtype);
Cost AllReduceRabenseifnerCost(int ranks, int64_t count, DType dtype);
Cost AllReduceHierarchicalCost(const Topology& topology, int64_t count,
                               DType dtype);
Cost AllReduceOneShotCost(int ranks, int64_t count, DType dtype,
                          Memory memory = Memory::kShared);
Cost AllReduceTwoShotCost(int ranks, int64_t count, DType dtype,
                          Memory memory = Memory::kShared);
Cost AllReduceDirectCost(int ranks, int64_t count, DType dtype,
                         Memory memory = Memory::kShared);

// --- Arithmetic --------------------------------------------------------------
// The additions and roundings on the path of one contribution, for bounds. The
// direct variants and the native ones have none of their own: Arithmetic::For.

Arithmetic AllReduceRingArithmetic(int ranks, DType dtype, ReduceOp op);
Arithmetic AllReduceRecursiveDoublingArithmetic(int ranks, DType dtype,
                                                ReduceOp op);
Arithmetic AllReduceRabenseifnerArithmetic(int ranks, DType dtype, ReduceOp op);
Arithmetic AllReduceHierarchicalArithmetic(const Topology& topology,
                                           DType dtype, ReduceOp op);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_ALL_REDUCE_ALL_REDUCE_H_
