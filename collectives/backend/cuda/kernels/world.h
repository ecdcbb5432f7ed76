// What the kernels of a group of ranks share: flags, staging memory, and the pointers of one call.
//
// Plain structs that g++ and nvcc lay out alike, passed to a kernel by value. All ranks get the same: a kernel picks
// its own row by its rank. Every pointer is addressable from every rank (peer memory, or one GPU, or one process).
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_WORLD_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_WORLD_H_

#include <cstddef>
#include <cstdint>

// Functions of kernels. g++ compiles them for fibers.
#ifdef __CUDACC__
#define SHARDPROOF_DEVICE __device__ __forceinline__
#else
#define SHARDPROOF_DEVICE inline
#endif

namespace shardproof::cuda {

inline constexpr int kMaxRanks = 16;
inline constexpr int kMaxBlocks = 128;
inline constexpr int kVectorBytes = 16;

// The flags of one rank, in its own memory. rounds.h says how they are used.
struct alignas(128) SignalPage {
  // arrived[n & 1][b][s] = n: block b of rank s has come to its round n. Written by rank s, read by the owner.
  uint32_t arrived[2][kMaxBlocks][kMaxRanks];
  // The rounds that block b of the owner has completed, kept from kernel to kernel, so that a kernel that is replayed
  // from a graph counts on. The owner's alone.
  uint32_t round[kMaxBlocks];
  // 0, or the first failure of the owner: see Failure.
  uint64_t failure;
};

// A page whose owner and peers have all completed round `start`. Not all zeros, even for start = 0: the round before
// the first is 2^32 - 1.
inline void InitializeSignals(SignalPage& page, uint32_t start = 0) {
  page = {};
  for (int block = 0; block < kMaxBlocks; ++block) {
    page.round[block] = start;
    for (int rank = 0; rank < kMaxRanks; ++rank) {
      page.arrived[start & 1][block][rank] = start;
      page.arrived[(start - 1) & 1][block][rank] = start - 1;
    }
  }
}

enum class FailureCode : uint8_t {
  kNone = 0,
  kDeadline = 1,  // The peer did not come in time.
  kBadSignal =
      2,  // The peer's flag holds a round that it cannot be in: ranks called different things, or grids differ.
};

// Packs into the failure word of a page.
struct Failure {
  FailureCode code = FailureCode::kNone;
  int block = 0;
  int peer = 0;
  uint32_t round = 0;

  constexpr uint64_t Pack() const {
    return static_cast<uint64_t>(code) << 56 |
           static_cast<uint64_t>(block) << 40 |
           static_cast<uint64_t>(peer) << 32 | round;
  }
  static constexpr Failure Unpack(uint64_t word) {
    return {static_cast<FailureCode>(word >> 56),
            static_cast<int>(word >> 40 & 0xffff),
            static_cast<int>(word >> 32 & 0xff), static_cast<uint32_t>(word)};
  }
};

struct World {
  int ranks = 1;
  SignalPage* pages[kMaxRanks] = {};
  // 2 * ranks slots of slot_bytes on each rank, 16-byte aligned: see Rounds::Slot.
  std::byte* staging[kMaxRanks] = {};
  int64_t slot_bytes = 0;  // A positive multiple of 16.
  // How long a block waits for a peer, in nanoseconds (under fibers, in turns); 0: for ever.
  uint64_t patience = 0;
  // A word for each rank, in memory that the host reads while kernels run: the first failure of the rank once more. Or
  // null.
  uint64_t* reports = nullptr;
};

// The ranks of one launch, which are those of one GPU: block (x, y) works for rank ranks[y].
struct Residents {
  int ranks[kMaxRanks] = {};
};

// One call. Counts are in elements; all ranks agree on everything here.
struct CollectiveArgs {
  const void* send[kMaxRanks] = {};
  void* recv[kMaxRanks] = {};
  int64_t count = 0;
  int element_bytes = 0;  // Of what only moves.
  int root = 0;
  int destination[kMaxRanks] = {};  // send_recv; -1: nobody.
  double scales[kMaxRanks] = {};    // kPremulSum.
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_WORLD_H_
