// wgmma: which element each register of a warpgroup holds, and where operands lie in shared memory, as plain functions.
//
//     wgmma m64nNk16    D [64, N] = A [64, 16] B [16, N] + D, A and B of 16 bits, D of f32
//
//     D    thread t of the 128, element i < N / 2:  row 16 (t / 32) + t % 32 / 4 + 8 (i / 2 % 2)
//                                                    column 8 (i / 4) + 2 (t % 4) + i % 2
//     A    in registers: each of the four warps holds 16 rows as for mma.sync (../fragment.h)
//
// So D is, for each warp, results of mma.sync side by side, and all of ../ that works on those works on it.
//
// An operand in shared memory is made of atoms of 8 lines of w = 128, 64 or 32 bytes, within which chunks of 16 bytes are
// swizzled, or of 16 bytes, which are not. A line goes along the depth (K-major: A and B that are stored as [rows, depth])
// or along the rows of A and columns of B (MN-major: V, stored as [depth, columns]). A descriptor has the address of the
// first element and two distances:
//
//     K-major     element (r, k):  start + r / 8 stride + r % 8 w + 2 k                              k within the line
//     MN-major    element (r, k):  start + r / (w / 2) leading + k / 8 stride + k % 8 w + 2 (r % (w / 2))
//     unswizzled  K-major: start + r / 8 stride + k / 8 leading + r % 8 16 + 2 (k % 8)
//                 MN-major: start + r / 8 stride + k / 8 leading + k % 8 16 + 2 (r % 8)
//
// and then bits 4 to 6 of the address are turned over by bits 7 to 9 (of 128 bytes; fewer of fewer). It is the address that
// is swizzled: a start 32 bytes into an atom is 16 elements further in depth, as long as atoms begin at multiples of 1024.
//
//     kernel: OperandLayout layout = {.start = base, .stride = 1024}; multiply(Encode(layout))
//
// Source: PTX ISA, "Matrix Fragments for wgmma.mma_async.m64nNk16", "Shared Memory Matrix Layout", "Strides", "Matrix
// Descriptor Format".
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_WGMMA_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_WGMMA_H_

#include <cstdint>

#include "attention/kernels/cuda/fragment.h"
#include "attention/kernels/cuda/tile.h"

namespace shardproof::cuda {

inline constexpr int kWarpgroupWarps = 4;
inline constexpr int kWarpgroupThreads = kWarpgroupWarps * kWarpLanes;
inline constexpr int kWgmmaRows = 64, kWgmmaDepth = 16;

constexpr FragmentPlace PlaceInWgmmaA(int thread, int element) {
  const FragmentPlace place = PlaceInA(thread % kWarpLanes, element);
  return {thread / kWarpLanes * kMmaRows + place.row, place.column};
}
constexpr FragmentPlace PlaceInWgmmaD(int thread, int element) {
  const FragmentPlace place = PlaceInC(thread % kWarpLanes, element % 4);
  return {thread / kWarpLanes * kMmaRows + place.row,
          element / 4 * kMmaColumns + place.column};
}

// As a descriptor has it in bits 62 and 63.
enum class Swizzle : uint8_t { kNone = 0, k128 = 1, k64 = 2, k32 = 3 };
enum class Major : uint8_t { kDepth, kRows };

// Bytes of a line of an atom.
constexpr uint32_t LineBytes(Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::k128:
      return 128;
    case Swizzle::k64:
      return 64;
    case Swizzle::k32:
      return 32;
    case Swizzle::kNone:
      break;
  }
  return kChunkBytes;
}
// Where the byte at `address` of an unswizzled atom lies.
constexpr uint32_t Swizzled(uint32_t address, Swizzle swizzle) {
  const uint32_t turned = LineBytes(swizzle) / kChunkBytes - 1;
  return address ^ (address >> 7 & turned) << 4;
}

inline constexpr uint32_t kPanelLineBytes = 128;
inline constexpr uint32_t kAtomBytes = 8 * kPanelLineBytes;

// In bytes, multiples of 16 below 2^18.
struct OperandLayout {
  uint32_t start = 0;
  uint32_t leading = 0;
  uint32_t stride = kAtomBytes;
  Swizzle swizzle = Swizzle::k128;

  bool operator==(const OperandLayout&) const = default;
};
// A base offset of 0: atoms begin at multiples of their size.
constexpr uint64_t Encode(const OperandLayout& layout) {
  const auto field = [](uint32_t bytes) {
    return static_cast<uint64_t>((bytes & 0x3ffff) >> 4);
  };
  return field(layout.start) | field(layout.leading) << 16 |
         field(layout.stride) << 32 |
         static_cast<uint64_t>(layout.swizzle) << 62;
}
constexpr OperandLayout Decode(uint64_t descriptor) {
  const auto field = [&](int bit) {
    return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4;
  };
  return {field(0), field(16), field(32),
          static_cast<Swizzle>(descriptor >> 62)};
}

// The address of element (row, depth) of A, or (depth, row) of B.
constexpr uint32_t ElementAddress(const OperandLayout& layout, Major major,
                                  int row, int depth) {
  const uint32_t line = LineBytes(layout.swizzle);
  const auto along =
      static_cast<uint32_t>(major == Major::kDepth ? depth : row);
  const auto across =
      static_cast<uint32_t>(major == Major::kDepth ? row : depth);
  if (layout.swizzle == Swizzle::kNone) {
    const auto r = static_cast<uint32_t>(row), k = static_cast<uint32_t>(depth);
    return layout.start + r / 8 * layout.stride + k / 8 * layout.leading +
           across % 8 * line + 2 * (along % 8);
  }
  const uint32_t elements = line / 2;
  const uint32_t next =
      major == Major::kRows ? along / elements * layout.leading : 0;
  const uint32_t within = major == Major::kRows ? along % elements : along;
  return Swizzled(layout.start + next + across / 8 * layout.stride +
                      across % 8 * line + 2 * within,
                  layout.swizzle);
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_WGMMA_H_
