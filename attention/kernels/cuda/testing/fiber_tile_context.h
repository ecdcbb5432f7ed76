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
// It sees no instruction: what PTX and SASS make of the template, how many registers it takes, and the time that anything
// takes are the compiler's and the GPU's. Bank conflicts are counted in tile_test.cc, from addresses.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_FIBER_TILE_CONTEXT_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_FIBER_TILE_CONTEXT_H_

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "attention/kernels/cuda/fragment.h"
#include "attention/kernels/cuda/tile.h"
#include "collectives/backend/cuda/fiber/fiber_context.h"
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"
#include "reference/status.h"

namespace shardproof::cuda::testing {

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
      const Place place = place_of(lane, element);
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

// Beyond the stack of a fiber, which is abandoned after an error.
struct LaneState {
  std::vector<PendingCopy> pending;
  uint64_t random = 0;
  int group = 0;
  int meetings = 0;
};

class FiberTileContext : public FiberContext<> {
 public:
  FiberTileContext(FiberThread& thread, WarpTable& table, LaneState& state)
      : FiberContext<>(thread), thread_(thread), table_(table), state_(state) {}

  template <bool kTransposed>
  void LoadMatrices(uint32_t (&words)[4], uint32_t offset,
                    int site = __builtin_LINE()) {
    Bring(0, offset);
    Meet(site);
    thread_.Preempt();
    for (int m = 0; m < 4; ++m) {
      uint16_t two[2];
      for (int element = 0; element < 2; ++element) {
        const Place place = LoadedPlace(lane(), element, kTransposed);
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
    if ((state_.random >> 20 & 1) != 0) {
      thread_.Preempt();
      Land(copy);
    } else {
      state_.pending.push_back(copy);
    }
  }
  void CommitCopies() { ++state_.group; }
  template <int kPending>
  void WaitForCopies() {
    std::vector<PendingCopy> later;
    for (const PendingCopy& copy : state_.pending) {
      if (copy.group < state_.group - kPending) {
        Land(copy);
      } else {
        later.push_back(copy);
      }
    }
    state_.pending = later;
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
    if (offset % alignment != 0 ||
        offset + bytes > static_cast<uint32_t>(thread_.grid().shared_bytes)) {
      std::abort();
    }
  }

  FiberThread& thread_;
  WarpTable& table_;
  LaneState& state_;
};

// Launches of kernels, grid by grid. Fibers are kept from one to the next.
class TileLauncher {
 public:
  struct Shape {
    int64_t blocks = 0;
    int threads = 0;
    uint32_t shared_bytes = 0;
  };

  // What the scheduler says, or that a copy was never waited for. `body` is called with a context.
  template <class Body>
  Status operator()(const Shape& shape, uint64_t seed, const Body& body) {
    if (shape.blocks == 0) return OkStatus();
    const int warps = shape.threads / kWarpLanes;
    const auto blocks = static_cast<int>(shape.blocks);
    tables_.assign(static_cast<size_t>(blocks * warps), {});
    lanes_.assign(static_cast<size_t>(blocks * shape.threads), {});
    for (size_t i = 0; i < lanes_.size(); ++i) {
      lanes_[i].random = (seed * lanes_.size() + i + 1) * 0x9e3779b97f4a7c15U;
    }
    // In two of three schedules a warp is far behind the others.
    const Status status = scheduler_.Run(
        {.blocks = blocks,
         .threads = shape.threads,
         .shared_bytes = static_cast<int>(shape.shared_bytes)},
        {.seed = seed,
         .preempt_one_in = 64,
         .slow_warp = seed % 3 == 0 ? -1 : static_cast<int>(seed / 3) % warps,
         .most_turns = int64_t{1} << 30},
        [&](FiberThread& thread) {
          const int at = thread.block() * shape.threads + thread.thread();
          FiberTileContext context(
              thread, tables_[static_cast<size_t>(at / kWarpLanes)],
              lanes_[static_cast<size_t>(at)]);
          body(context);
        });
    if (!status.ok()) return status;
    for (const LaneState& lane : lanes_) {
      if (!lane.pending.empty()) {
        return Internal("{} copies of a thread are never waited for",
                        lane.pending.size());
      }
    }
    return OkStatus();
  }

 private:
  FiberScheduler scheduler_;
  std::vector<WarpTable> tables_;
  std::vector<LaneState> lanes_;
};

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_FIBER_TILE_CONTEXT_H_
