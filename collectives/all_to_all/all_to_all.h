// all_to_all: every rank gets one block from every rank.
//
//     recv_r[s * count + i] = send_s[r * count + i]
//                                  for all ranks r, s, i in 0..count-1
//
// and with a count for each pair of ranks (all_to_all_v):
//
//     recv_r[recv_offsets_r[s] + i] = send_s[send_offsets_s[r] + i]
//                                  for i in 0..send_counts_s[r]-1
//
//     AllToAll(comm, {.send = x, .recv = y, .count = n, .dtype = DType::kF32});
#ifndef SHARDPROOF_COLLECTIVES_ALL_TO_ALL_ALL_TO_ALL_H_
#define SHARDPROOF_COLLECTIVES_ALL_TO_ALL_ALL_TO_ALL_H_

#include <cstdint>
#include <span>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "reference/dtype.h"

namespace shardproof {

// `send` and `recv` hold count * p elements. In place: send == recv; any other
// overlap is an error of the caller.
struct AllToAllArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  int64_t count = 0;
  DType dtype = DType::kF32;
};

// One entry per rank in each span; recv_counts on rank r at s equals
// send_counts on rank s at r. Offsets are in elements, or empty: blocks follow
// one another. In place: send == recv, with any offsets; what was sent is
// overwritten. The spans must live until the operation is done.
struct AllToAllVArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  std::span<const int64_t> send_counts;
  std::span<const int64_t> recv_counts;
  std::span<const int64_t> send_offsets = {};
  std::span<const int64_t> recv_offsets = {};
  DType dtype = DType::kF32;
};

// The variant that is fastest here for this size, on `stream`.
Status AllToAll(const Communicator& comm, const AllToAllArgs& args,
                const Stream& stream = Stream::Inline());
Status AllToAllV(const Communicator& comm, const AllToAllVArgs& args,
                 const Stream& stream = Stream::Inline());

// --- Variants over messages, synchronous -------------------------------------

// In step k rank r sends to rank r + k and receives from rank r - k: p - 1
// steps, every block once.
Status AllToAllPairwise(const Communicator& comm, const AllToAllArgs& args);
Status AllToAllVPairwise(const Communicator& comm, const AllToAllVArgs& args);

// ceil(lg p) steps in which about half of all blocks travel, through scratch
// memory (Bruck et al., IEEE TPDS 8(11), 1997): for small blocks.
Status AllToAllBruck(const Communicator& comm, const AllToAllArgs& args);

// MPI_Alltoall(v): the library under test.
Status AllToAllNative(const Communicator& comm, const AllToAllArgs& args);
Status AllToAllVNative(const Communicator& comm, const AllToAllVArgs& args);

// --- Variants over shared memory, synchronous; comm.SharesMemory() -----------

Status AllToAllDirect(const Communicator& comm, const AllToAllArgs& args);
Status AllToAllVDirect(const Communicator& comm, const AllToAllVArgs& args);

// --- Costs -------------------------------------------------------------------
// For `count` elements of `dtype` between each pair of `ranks` ranks, or
// counts[s * ranks + r] from rank s to rank r.

Cost AllToAllPairwiseCost(int ranks, int64_t count, DType dtype);
Cost AllToAllBruckCost(int ranks, int64_t count, DType dtype);
Cost AllToAllDirectCost(int ranks, int64_t count, DType dtype,
                        Memory memory = Memory::kShared);
Cost AllToAllVPairwiseCost(int ranks, std::span<const int64_t> counts,
                           DType dtype);
Cost AllToAllVDirectCost(int ranks, std::span<const int64_t> counts,
                         DType dtype, Memory memory = Memory::kShared);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_ALL_TO_ALL_ALL_TO_ALL_H_
