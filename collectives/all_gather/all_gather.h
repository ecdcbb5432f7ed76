// all_gather: every rank gets the blocks of all ranks, in rank order.
//
//     recv_r[s * count + i] = send_s[i]
//                                  for all ranks r, s, i in 0..count-1
//
// and with a count for each rank (all_gather_v):
//
//     recv_r[offsets[s] + i] = send_s[i]        for i in 0..counts[s]-1
//
//     AllGather(comm, {.send = x, .recv = y, .count = n, .dtype =
//     DType::kF32});
#ifndef SHARDPROOF_COLLECTIVES_ALL_GATHER_ALL_GATHER_H_
#define SHARDPROOF_COLLECTIVES_ALL_GATHER_ALL_GATHER_H_

#include <cstdint>
#include <span>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "reference/dtype.h"

namespace shardproof {

// `send` holds `count` elements, `recv` count * p. In place: send == recv +
// rank * count elements; any other overlap is an error of the caller.
struct AllGatherArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  int64_t count = 0;
  DType dtype = DType::kF32;
};

// `counts` has one entry per rank, equal on all ranks; `offsets` too, in
// elements of `recv`, or is empty: blocks follow one another. Blocks must not
// overlap. In place: send == recv + offsets[rank] elements. The spans must live
// until the operation is done.
struct AllGatherVArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  std::span<const int64_t> counts;
  std::span<const int64_t> offsets = {};
  DType dtype = DType::kF32;
};

// The variant that is fastest here for this size, on `stream`.
Status AllGather(const Communicator& comm, const AllGatherArgs& args,
                 const Stream& stream = Stream::Inline());
Status AllGatherV(const Communicator& comm, const AllGatherVArgs& args,
                  const Stream& stream = Stream::Inline());

// --- Variants over messages, synchronous -------------------------------------

// Each block travels once around the ring, p - 1 steps.
Status AllGatherRing(const Communicator& comm, const AllGatherArgs& args);
Status AllGatherVRing(const Communicator& comm, const AllGatherVArgs& args);

// Partners at distance 1, 2, 4, ... exchange all they have; ranks beyond the
// largest power of two hand their block to a neighbour first and get everything
// back (Thakur, Rabenseifner and Gropp, IJHPCA 19(1), 2005, section 4.1).
Status AllGatherRecursiveDoubling(const Communicator& comm,
                                  const AllGatherArgs& args);

// ceil(lg p) steps for every p, through scratch memory in rotated order
// (Bruck et al., IEEE TPDS 8(11), 1997).
Status AllGatherBruck(const Communicator& comm, const AllGatherArgs& args);
Status AllGatherVBruck(const Communicator& comm, const AllGatherVArgs& args);

// MPI_Allgather(v), ncclAllGather: the library under test.
Status AllGatherNative(const Communicator& comm, const AllGatherArgs& args);
Status AllGatherVNative(const Communicator& comm, const AllGatherVArgs& args);

// --- Variants over shared memory, synchronous; comm.SharesMemory() -----------

Status AllGatherDirect(const Communicator& comm, const AllGatherArgs& args);
Status AllGatherVDirect(const Communicator& comm, const AllGatherVArgs& args);

// --- Costs -------------------------------------------------------------------
// For `count` elements of `dtype` from each of `ranks` ranks, or counts[r] from
// rank r.

Cost AllGatherRingCost(int ranks, int64_t count, DType dtype);
Cost AllGatherRecursiveDoublingCost(int ranks, int64_t count, DType dtype);
Cost AllGatherBruckCost(int ranks, int64_t count, DType dtype);
Cost AllGatherDirectCost(int ranks, int64_t count, DType dtype,
                         Memory memory = Memory::kShared);
Cost AllGatherVRingCost(std::span<const int64_t> counts, DType dtype);
Cost AllGatherVBruckCost(std::span<const int64_t> counts, DType dtype);
Cost AllGatherVDirectCost(std::span<const int64_t> counts, DType dtype,
                          Memory memory = Memory::kShared);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_ALL_GATHER_ALL_GATHER_H_
