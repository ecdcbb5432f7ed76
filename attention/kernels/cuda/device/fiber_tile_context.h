// The execution context of the kernels of attention (../tile.h) over a fiber: a tensor core, ldmatrix and asynchronous
// copies, emulated for one warp at a time.
//
//     ldmatrix, mma    The 32 fibers of a warp meet (a shuffle). Each brings its words, and takes what PlaceInA, PlaceInB,
//                      PlaceInC and LoadedPlace say from those of the others.
//     mma              16 products added to C one by one in f32, each sum rounded to nearest. A tensor core adds them in
//                      an order and with a rounding of its own: within the bounds, not bit for bit.
//     cp.async         lands when it is issued or when it is waited for, by a throw of the seed for every copy; until then
//                      the place keeps what was there, NaN at first. So a wait that is missing leaves old data, and a copy
//                      that is issued too early destroys what is still read. A fiber's own copies only: others see them
//                      after a barrier, without which ThreadSanitizer reports a race.
//
// Emulated GPUs run it (emulated_flash.h), and tests (../testing/tile_launcher.h), which plant faults in the kernels.
//
// It sees no instruction: what PTX and SASS make of the template, how many registers it takes, and the time that anything
// takes are the compiler's and the GPU's. Bank conflicts are counted in tile_test.cc, from addresses.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FIBER_TILE_CONTEXT_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FIBER_TILE_CONTEXT_H_

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "attention/kernels/cuda/fragment.h"
#include "attention/kernels/cuda/tile.h"
#include "collectives/backend/cuda/fiber/fiber_context.h"
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"

namespace shardproof::cuda {

// Which element of which lane is (row, column) of an operand: the inverse of PlaceInA and PlaceInB.
struct Holder {
  int lane = -1;
  int element = 0;
};
template <int kRows, int kColumns>
using Holders = std::array<std::array<Holder, kColumns>, kRows>;

template <int kRows, int kColumns, class PlaceOf>
constexpr Holders<kRows, kColumns> HoldersOf(const PlaceOf& place_of) {
  Holders<kRows, kColumns> holders = {};
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    for (int element = 0; element < kRows * kColumns / kWarpLanes; ++element) {
      const FragmentPlace place = place_of(lane, element);
      holders[place.row][place.column] = {lane, element};
    }
  }
  return holders;
}
inline constexpr auto kHoldersOfA = HoldersOf<kMmaRows, kMmaDepth>(PlaceInA);
inline constexpr auto kHoldersOfB = HoldersOf<kMmaDepth, kMmaColumns>(PlaceInB);

// What the lanes of a warp bring to a meeting, in two places that are used in turn: at the next meeting but one all have
// read what was brought to this one.
struct WarpTable {
  static constexpr int kMostWords = 16;
  uint32_t words[2][kWarpLanes][kMostWords];
};

// An asynchronous copy that has not landed.
struct PendingCopy {
  uint32_t offset = 0;
  const void* from = nullptr;
  int bytes = 0;  // 16 or 4; `from` is null for zeros.
  int group = 0;
};

// What a lane keeps: nothing that needs a destructor, since a fiber is abandoned after an error.
struct LaneState {
  // A kernel has 40 copies under way at most; more land at once.
  static constexpr int kMostPending = 64;
  std::array<PendingCopy, kMostPending> pending;
  int pending_count = 0;
  uint64_t random = 0;  // Not 0: Seed.
  int group = 0;
  int meetings = 0;

  // `number` tells lanes and launches apart.
  void Seed(uint64_t number) {
    random = (number + 1) * 0x9e3779b97f4a7c15U;
    if (random == 0) random = 1;
  }
};

// Which block of the grid a fiber works for, and the bytes of shared memory that this block has.
struct FiberBlock {
  int number = 0;
  uint32_t shared_bytes = 0;
};

class FiberTileContext : public FiberContext<> {
 public:
  FiberTileContext(FiberThread& thread, const FiberBlock& block,
                   WarpTable& table, LaneState& state)
      : FiberContext<>(thread),
        thread_(thread),
        block_(block),
        table_(table),
        state_(state) {}

  int block() const { return block_.number; }

  template <bool kTransposed>
  void LoadMatrices(uint32_t (&words)[4], uint32_t offset,
                    int site = __builtin_LINE()) {
    Bring(0, offset);
    Meet(site);
    thread_.Preempt();
    for (int m = 0; m < 4; ++m) {
      uint16_t two[2];
      for (int element = 0; element < 2; ++element) {
        const FragmentPlace place = LoadedPlace(lane(), element, kTransposed);
        const uint32_t row = Brought(8 * m + place.row, 0);
        RequireInside(row, kChunkBytes, kChunkBytes);
        std::memcpy(two + element,
                    thread_.Shared() + row +
                        static_cast<size_t>(place.column) * sizeof(uint16_t),
                    sizeof(uint16_t));
      }
      words[m] = std::bit_cast<uint32_t>(two);
    }
  }

  template <class T, int kRowTiles, int kOperands, int kBatch>
  void Multiply(float (&c)[kRowTiles][kOperands][4], int first,
                const uint32_t (&a)[kRowTiles][4],
                const uint32_t (&b)[kBatch][2], int site = __builtin_LINE()) {
    static_assert(4 * kRowTiles + 2 * kBatch <= WarpTable::kMostWords);
    for (int r = 0; r < kRowTiles; ++r) {
      for (int word = 0; word < 4; ++word) Bring(4 * r + word, a[r][word]);
    }
    constexpr int kB = 4 * kRowTiles;
    for (int n = 0; n < kBatch; ++n) {
      for (int word = 0; word < 2; ++word) {
        Bring(kB + 2 * n + word, b[n][word]);
      }
    }
    Meet(site);
    float columns[2][kMmaDepth], rows[2][kMmaDepth];
    for (int n = 0; n < kBatch; ++n) {
      for (int k = 0; k < kMmaDepth; ++k) {
        for (int i = 0; i < 2; ++i) {
          const int column = PlaceInC(lane(), i).column;
          columns[i][k] = Element<T>(kHoldersOfB[k][column], kB + 2 * n);
        }
      }
      for (int r = 0; r < kRowTiles; ++r) {
        for (int i = 0; i < 2; ++i) {
          const int row = PlaceInC(lane(), 2 * i).row;
          for (int k = 0; k < kMmaDepth; ++k) {
            rows[i][k] = Element<T>(kHoldersOfA[row][k], 4 * r);
          }
        }
        for (int i = 0; i < 4; ++i) {
          float& sum = c[r][first + n][i];
          for (int k = 0; k < kMmaDepth; ++k) {
            sum += rows[i / 2][k] * columns[i % 2][k];
          }
        }
      }
    }
  }

  template <int kBytes>
  void CopyAsync(uint32_t offset, const void* from, bool there) {
    static_assert(kBytes == 16 || kBytes == 4);
    RequireInside(offset, kBytes, kBytes);
    if (reinterpret_cast<uintptr_t>(from) % kBytes != 0) std::abort();
    const PendingCopy copy = {offset, there ? from : nullptr, kBytes,
                              state_.group};
    // Xorshift (Marsaglia, 2003).
    state_.random ^= state_.random << 13;
    state_.random ^= state_.random >> 7;
    state_.random ^= state_.random << 17;
    if ((state_.random >> 20 & 1) != 0 ||
        state_.pending_count == LaneState::kMostPending) {
      thread_.Preempt();
      Land(copy);
    } else {
      state_.pending[static_cast<size_t>(state_.pending_count++)] = copy;
    }
  }
  void CommitCopies() { ++state_.group; }
  template <int kPending>
  void WaitForCopies() {
    int later = 0;
    for (int i = 0; i < state_.pending_count; ++i) {
      const PendingCopy copy = state_.pending[static_cast<size_t>(i)];
      if (copy.group < state_.group - kPending) {
        Land(copy);
      } else {
        state_.pending[static_cast<size_t>(later++)] = copy;
      }
    }
    state_.pending_count = later;
  }
  const std::byte* SharedAt(uint32_t offset) {
    return thread_.Shared() + offset;
  }

  static float Exp2(float x) { return std::exp2(x); }
  static float Log2(float x) { return std::log2(x); }
  template <class T>
  static uint32_t Pack(float low, float high) {
    return static_cast<T>(low).bits |
           static_cast<uint32_t>(static_cast<T>(high).bits) << 16;
  }

 private:
  int lane() const { return thread() % kWarpLanes; }

  // Relaxed atomics: registers are not memory, and no race of ThreadSanitizer's.
  void Bring(int word, uint32_t value) {
    __atomic_store_n(&table_.words[state_.meetings & 1][lane()][word], value,
                     __ATOMIC_RELAXED);
  }
  void Meet(int site) {
    thread_.Shuffle(0, lane(), site);
    ++state_.meetings;
  }
  uint32_t Brought(int lane, int word) const {
    return __atomic_load_n(&table_.words[(state_.meetings - 1) & 1][lane][word],
                           __ATOMIC_RELAXED);
  }
  template <class T>
  float Element(const Holder& holder, int first_word) const {
    const uint32_t word = Brought(holder.lane, first_word + holder.element / 2);
    return static_cast<float>(
        T::FromBits(static_cast<uint16_t>(word >> (holder.element % 2 * 16))));
  }

  void Land(const PendingCopy& copy) {
    std::byte* const to = thread_.Shared() + copy.offset;
    if (copy.from == nullptr) {
      std::memset(to, 0, static_cast<size_t>(copy.bytes));
    } else {
      std::memcpy(to, copy.from, static_cast<size_t>(copy.bytes));
    }
  }
  // What a GPU faults at.
  void RequireInside(uint32_t offset, uint32_t bytes, uint32_t alignment) {
    if (offset % alignment != 0 || offset + bytes > block_.shared_bytes) {
      std::abort();
    }
  }

  FiberThread& thread_;
  const FiberBlock block_;
  WarpTable& table_;
  LaneState& state_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FIBER_TILE_CONTEXT_H_
