// For the tests: the execution context of ../forward.h over a fiber. It decodes what the instructions are given, descriptors
// bit by bit and maps by their boxes, and finds what a GPU leaves undefined.
//
//     wgmma         the lanes of a warp meet, bring the same descriptors and exchange operands in registers. A product lands
//                   when it is issued, committed or waited for, by a throw; pending_products.h has the rest
//     wgmma.fence   every product comes after one, with no wait between that made registers usable again
//     TMA           lands when it is issued, or at some later turn of the thread that issued it, chunk by chunk at swizzled
//                   addresses; its bytes complete a barrier then. An error where a product reads what is being written, or what
//                   its thread has not seen come
//     mbarrier      block_machine.h. A wait that nothing ends is a deadlock, which the scheduler reports
//     setmaxnreg    noted
//
// Sums are in f32, one by one in order of depth, each rounded to nearest: within the bounds of a tensor core, not its bits.
//
// It sees no instruction: whether PTX says what the template means, proxies and their fences, and all speed are not here.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TESTING_FIBER_WARPGROUP_CONTEXT_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TESTING_FIBER_WARPGROUP_CONTEXT_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "attention/kernels/cuda/device/fiber_tile_context.h"
#include "attention/kernels/cuda/warpgroup/testing/block_machine.h"
#include "attention/kernels/cuda/warpgroup/testing/pending_products.h"
#include "attention/kernels/cuda/warpgroup/tile_map.h"
#include "attention/kernels/cuda/warpgroup/wgmma.h"
#include "collectives/backend/cuda/fiber/fiber_context.h"
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"

namespace shardproof::cuda::testing {

// What cuTensorMapEncodeTiled is for a GPU.
inline const char* EncodeForFibers(const TileMapSpec& spec, TileMap& map) {
  static_assert(sizeof(TileMapSpec) <= sizeof(TileMap));
  if (const char* reason = WhyNotTileMap(spec)) return reason;
  std::memcpy(&map, &spec, sizeof(spec));
  return nullptr;
}

// Lanes meet, and are ordered where an instruction orders them.
struct WarpMeeting {
  WarpTable table;
  uint32_t order = 0;
};

// A copy that has not landed.
struct PendingBox {
  TileMapSpec spec;
  uint32_t to = 0, barrier = 0;
  int64_t at[kMapDimensions] = {};

  int64_t bytes() const { return int64_t{spec.box[2]} * kPanelLineBytes; }
};

// What a thread keeps.
struct WarpgroupLane {
  PendingProducts products;
  std::array<PendingBox, 32> boxes;
  int box_count = 0;
  int meetings = 0;
  bool fenced = false;
  // Phases of barriers that its waits have seen complete.
  std::array<uint32_t, BlockMachine::kMostBarriers> seen{};
  uint64_t random = 1;

  void Seed(uint64_t number) {
    random = (number + 1) * 0x9e3779b97f4a7c15U;
    if (random == 0) random = 1;
  }
  // Xorshift (Marsaglia, 2003).
  uint64_t Draw(uint64_t below) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    return (random >> 20) % below;
  }
};

class FiberWarpgroupContext : public FiberContext<> {
 public:
  FiberWarpgroupContext(FiberThread& thread, BlockMachine& machine,
                        WarpMeeting& meeting, WarpgroupLane& state,
                        const FiberBlock& block)
      : FiberContext<>(thread),
        thread_(thread),
        machine_(machine),
        meeting_(meeting),
        state_(state),
        block_(block) {}

  int block() const { return block_.number; }

  // Shared memory begins at 0.
  uint32_t SharedAddress(uint32_t offset) const { return offset; }

  void InitializeBarrier(uint32_t offset, int arrivals) {
    machine_.Initialize(offset, arrivals);
  }
  void PublishBarriers() {}
  void ExpectBytes(uint32_t offset, uint32_t bytes) {
    Turn();
    machine_.AddBytes(thread_, offset, bytes);
    machine_.Arrive(thread_, offset);
  }
  void Arrive(uint32_t offset) {
    Turn();
    machine_.Arrive(thread_, offset);
  }
  void Await(uint32_t offset, uint32_t parity) {
    Turn();
    while (state_.box_count > 0 && !machine_.IsComplete(offset, parity)) {
      LandABox();
      thread_.Yield();
    }
    machine_.Await(thread_, offset, parity);
    state_.seen[BlockMachine::NumberOf(offset)] = machine_.Phases(offset);
  }

  void CopyBox(const TileMap& map, uint32_t to, uint32_t barrier, int column,
               int head, int token, int sequence) {
    Turn();
    PendingBox box;
    box.to = to, box.barrier = barrier;
    std::memcpy(static_cast<void*>(&box.spec), &map, sizeof(box.spec));
    box.at[0] = column, box.at[1] = head;
    box.at[2] = token, box.at[3] = sequence;
    if (to % kPanelLineBytes != 0 || to + box.bytes() > block_.shared_bytes ||
        box.spec.box[0] != kPanelColumns) {
      machine_.Note("a copy to where none may land");
      return;
    }
    if (state_.box_count == static_cast<int>(state_.boxes.size())) {
      machine_.Note("too many copies under way for this machine");
      return;
    }
    ForAtomsOf(box, [&](uint32_t atom) {
      if (machine_.Is(BlockMachine::Use::kReading, atom)) {
        machine_.Note("a copy overwrites what a product reads");
      }
      if (machine_.Is(BlockMachine::Use::kWriting, atom)) {
        machine_.Note("two copies to one place");
      }
    });
    ForAtomsOf(box, [&](uint32_t atom) {
      machine_.Begin(BlockMachine::Use::kWriting, atom);
      machine_.SetCopied(atom, barrier);
    });
    state_.boxes[static_cast<size_t>(state_.box_count++)] = box;
    if (state_.Draw(2) == 0) LandABox();
  }

  void FenceProducts(int site = __builtin_LINE()) {
    Turn();
    Meet(site);
    state_.fenced = true;
  }
  void CommitProducts() {
    state_.products.Commit();
    if (state_.Draw(4) == 0) Land(state_.products.group());
  }
  // A warp has waited when all of its lanes have.
  template <int kPending>
  void AwaitProducts(int site = __builtin_LINE()) {
    Turn();
    const int group = state_.products.group() - kPending;
    Land(group);
    NoteIf(state_.products.Finish(group, [&](const PendingProduct& product) {
      MarkReading(product, [&](uint32_t atom) {
        machine_.End(BlockMachine::Use::kReading, atom);
      });
    }));
    __atomic_fetch_add(&meeting_.order, 1, __ATOMIC_ACQ_REL);
    Meet(site);
    __atomic_load_n(&meeting_.order, __ATOMIC_ACQUIRE);
    state_.fenced = false;
  }
  template <class T, bool kAccumulates, int kOperands>
  void MultiplyShared(float (&c)[kOperands][4], uint64_t a, uint64_t b,
                      int site = __builtin_LINE()) {
    PendingProduct product = ProductOf<T>(&c[0][0], kOperands, b);
    product.a_is_shared = true;
    product.a = Decode(a);
    Bring(0, static_cast<uint32_t>(a)), Bring(1, a >> 32);
    Bring(2, static_cast<uint32_t>(b)), Bring(3, b >> 32);
    Meet(site);
    RequireSame(4);
    Issue(product, kAccumulates);
  }
  template <class T, int kOperands>
  void MultiplyWords(float (&c)[kOperands][4], const uint32_t (&a)[4],
                     uint64_t b, int site = __builtin_LINE()) {
    PendingProduct product = ProductOf<T>(&c[0][0], kOperands, b);
    product.b_major = Major::kRows;
    product.a_words = a;
    std::memcpy(product.a_before, a, sizeof(a));
    Bring(0, static_cast<uint32_t>(b)), Bring(1, b >> 32);
    for (int word = 0; word < 4; ++word) Bring(2 + word, a[word]);
    Meet(site);
    RequireSame(2);
    for (int i = 0; i < 2; ++i) {
      const int row = PlaceInC(lane(), 2 * i).row;
      for (int k = 0; k < kWgmmaDepth; ++k) {
        const Holder holder = kHoldersOfA[row][k];
        const uint32_t word = Brought(holder.lane, 2 + holder.element / 2);
        product.a_rows[i][k] = product.widen(
            static_cast<uint16_t>(word >> (holder.element % 2 * 16)));
      }
    }
    Issue(product, true);
  }
  template <int kOperands>
  void Settle(float (&/*c*/)[kOperands][4]) {}

  template <int kRegisters>
  void GiveRegisters() {
    if (kRegisters > RegistersAtFirst()) machine_.Note("gives what it lacks");
    machine_.SetRegisters(thread() / kWarpgroupThreads, kRegisters);
  }
  template <int kRegisters>
  void TakeRegisters() {
    if (kRegisters < RegistersAtFirst()) machine_.Note("takes what it has");
    machine_.SetRegisters(thread() / kWarpgroupThreads, kRegisters);
  }

  static float Exp2(float x) { return FiberTileContext::Exp2(x); }
  static float Log2(float x) { return FiberTileContext::Log2(x); }
  template <class T>
  static uint32_t Pack(float low, float high) {
    return FiberTileContext::Pack<T>(low, high);
  }

  // After the kernel: copies land without their thread.
  void Finish() {
    while (state_.box_count > 0) {
      LandABox();
      thread_.Yield();
    }
    if (state_.products.size() > 0) {
      machine_.Note("products that nobody waits for");
    }
  }

 private:
  int lane() const { return thread() % kWarpLanes; }
  int RegistersAtFirst() const { return 65536 / threads() / 8 * 8; }
  void NoteIf(const char* error) {
    if (error != nullptr) machine_.Note(error);
  }
  // Something else may happen first.
  void Turn() {
    if (state_.box_count > 0 && state_.Draw(4) == 0) LandABox();
    thread_.Preempt();
  }

  // Relaxed atomics: registers are not memory, and no race of ThreadSanitizer's.
  void Bring(int word, uint64_t value) {
    __atomic_store_n(&meeting_.table.words[state_.meetings & 1][lane()][word],
                     static_cast<uint32_t>(value), __ATOMIC_RELAXED);
  }
  void Meet(int site) {
    thread_.Shuffle(0, lane(), site);
    ++state_.meetings;
  }
  uint32_t Brought(int lane, int word) const {
    return __atomic_load_n(
        &meeting_.table.words[(state_.meetings - 1) & 1][lane][word],
        __ATOMIC_RELAXED);
  }
  void RequireSame(int words) {
    for (int word = 0; word < words; ++word) {
      if (Brought(lane(), word) != Brought(0, word)) {
        machine_.Note("lanes of a warp with different descriptors");
      }
    }
  }

  template <class T>
  PendingProduct ProductOf(float* d, int operands, uint64_t b) {
    PendingProduct product;
    product.d = d;
    product.columns = operands * kMmaColumns;
    product.thread = thread() % kWarpgroupThreads;
    product.b = Decode(b);
    product.widen = [](uint16_t bits) {
      return static_cast<float>(T::FromBits(bits));
    };
    return product;
  }
  void Issue(const PendingProduct& product, bool accumulates) {
    if (!state_.fenced) machine_.Note("a product without a fence before it");
    MarkReading(product, [&](uint32_t atom) {
      if (machine_.Is(BlockMachine::Use::kWriting, atom)) {
        machine_.Note("a product reads what a copy still writes");
      }
      const BlockMachine::Copied copied = machine_.CopiedTo(atom);
      if (copied.phases == 0 ||
          state_.seen[BlockMachine::NumberOf(copied.barrier)] < copied.phases) {
        machine_.Note("a product reads what its thread has not waited for");
      }
      machine_.Begin(BlockMachine::Use::kReading, atom);
    });
    NoteIf(state_.products.Issue(product, accumulates));
    if (state_.Draw(8) == 0) Land(state_.products.group() + 1);
    thread_.Preempt();
  }
  void Land(int group) {
    state_.products.Land(group, [&](uint32_t address) {
      uint16_t bits = 0;
      if (address + sizeof(bits) > block_.shared_bytes) {
        machine_.Note("an operand beyond shared memory");
      } else {
        std::memcpy(&bits, thread_.Shared() + address, sizeof(bits));
      }
      return bits;
    });
  }
  // For a warp once: f(the atom) for every 8 x 8 elements that it reads.
  template <class F>
  void MarkReading(const PendingProduct& product, const F& f) {
    if (lane() != 0) return;
    const auto mark = [&](const OperandLayout& layout, Major major, int row,
                          int rows) {
      for (int r = row; r < row + rows; r += 8) {
        for (int k = 0; k < kWgmmaDepth; k += 8) {
          const uint32_t address = ElementAddress(layout, major, r, k);
          if (address < block_.shared_bytes) f(address);
        }
      }
    };
    mark(product.b, product.b_major, 0, product.columns);
    if (product.a_is_shared) {
      mark(product.a, Major::kDepth, product.thread / kWarpLanes * kMmaRows,
           kMmaRows);
    }
  }

  template <class F>
  static void ForAtomsOf(const PendingBox& box, const F& f) {
    for (int64_t at = 0; at < box.bytes(); at += kAtomBytes) {
      f(box.to + static_cast<uint32_t>(at));
    }
  }
  // Any one of those under way: they keep no order.
  void LandABox() {
    const auto which = state_.Draw(static_cast<uint64_t>(state_.box_count));
    const PendingBox box = state_.boxes[which];
    state_.boxes[which] = state_.boxes[static_cast<size_t>(--state_.box_count)];
    const TileMapSpec& spec = box.spec;
    for (int32_t row = 0; row < spec.box[2]; ++row) {
      const int64_t token = box.at[2] + row;
      const bool there = box.at[1] < spec.sizes[1] && token < spec.sizes[2] &&
                         box.at[3] < spec.sizes[3];
      const auto* const line = static_cast<const std::byte*>(spec.data) +
                               box.at[1] * spec.strides[0] +
                               token * spec.strides[1] +
                               box.at[3] * spec.strides[2];
      for (uint32_t byte = 0; byte < kPanelLineBytes; byte += kChunkBytes) {
        const int64_t column = box.at[0] + byte / 2;
        std::byte* const to =
            thread_.Shared() +
            Swizzled(
                box.to + static_cast<uint32_t>(row) * kPanelLineBytes + byte,
                Swizzle::k128);
        if (there && column < spec.sizes[0]) {
          std::memcpy(to, line + column * 2, kChunkBytes);
        } else {
          std::memset(to, 0, kChunkBytes);
        }
      }
    }
    ForAtomsOf(box, [&](uint32_t atom) {
      machine_.End(BlockMachine::Use::kWriting, atom);
    });
    machine_.AddBytes(thread_, box.barrier, -box.bytes());
  }

  FiberThread& thread_;
  BlockMachine& machine_;
  WarpMeeting& meeting_;
  WarpgroupLane& state_;
  const FiberBlock block_;
};

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TESTING_FIBER_WARPGROUP_CONTEXT_H_
