// Tiles of 16-bit elements in shared memory: how they come there, and how operands of mma.sync are made of them.
//
//     [rows, columns] with columns = 64 or 128, row-major, chunks of 8 elements (16 bytes) swizzled within a row:
//
//     chunk c of row r lies at r * columns * 2 + 16 (c xor r % 8)
//
// so that the 8 rows of a matrix of ldmatrix, which all begin at the same column, lie in 8 different groups of 4 banks,
// and the 8 chunks that neighbouring threads copy do too: no access needs two turns (tile_test.cc counts them).
//
//     CopyTile<kRows, kColumns, T>(context, base, from, stride, rows_there);       // Rows that are not there: zeros.
//     context.CommitCopies(); context.WaitForCopies<0>(); context.Sync();
//     uint32_t a[4], b[2][2];
//     LoadA<kColumns>(context, a, base, row, column);                              // Multiples of 16.
//     LoadB<kColumns>(context, b, other, row, column);
//
// What a context has beside what rounds.h lists; all 32 lanes of a warp call the first three together:
//
//     LoadMatrices<kTransposed>(words, offset)     ldmatrix.x4 from the byte `offset` of shared memory
//     Multiply<T>(c, first, a, b)                  mma.sync of every row of operands a with every one of b
//     ShuffleXor
//     CopyAsync<kBytes>(offset, from, there)       cp.async of 16 or 4 bytes; zeros where not `there`
//     CommitCopies, WaitForCopies<kPending>
//     SharedAt(offset)                             an address
//     Exp2, Log2, Pack<T>(low, high)
//
// Swizzle is there for the tests, which take it from one side and must then fail.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_TILE_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_TILE_H_

#include <cstdint>

#include "attention/kernels/cuda/fragment.h"
#include "collectives/backend/cuda/kernels/world.h"

#ifdef __CUDACC__
#define SHARDPROOF_UNROLLED _Pragma("unroll")
#else
#define SHARDPROOF_UNROLLED
#endif

namespace shardproof::cuda {

inline constexpr int kWarpLanes = 32;
inline constexpr int kChunkElements = 8;
inline constexpr uint32_t kChunkBytes = 16;

template <int kColumns>
constexpr uint32_t TileBytes(int rows) {
  return static_cast<uint32_t>(rows) * kColumns * 2;
}

// The byte at which a chunk begins.
template <int kColumns, bool kSwizzles = true>
constexpr uint32_t ChunkOffset(int row, int chunk) {
  static_assert(kColumns % (8 * kChunkElements) == 0);
  const int at = kSwizzles ? chunk ^ (row & 7) : chunk;
  return static_cast<uint32_t>(row) * kColumns * 2 +
         static_cast<uint32_t>(at) * kChunkBytes;
}

// Chunk n of a tile is copied by thread n % threads: `place` is its row and the number of its chunk.
template <int kColumns>
constexpr FragmentPlace CopiedPlace(int n) {
  constexpr int kChunks = kColumns / kChunkElements;
  return {n / kChunks, n % kChunks};
}

// Element (row, column) of the tile is from[row * stride + column]; zeros from row `there` on. By kThreads threads.
template <int kRows, int kColumns, int kThreads, class Context, class T>
SHARDPROOF_DEVICE void CopyTile(Context& context, uint32_t base, const T* from,
                                int64_t stride, int there) {
  constexpr int kRowsAtOnce = kThreads / (kColumns / kChunkElements);
  static_assert(kRows % kRowsAtOnce == 0 && kRowsAtOnce % 8 == 0);
  // Every kRowsAtOnce rows a thread has the same chunk, swizzled alike.
  const FragmentPlace first = CopiedPlace<kColumns>(context.thread());
  const uint32_t to = base + ChunkOffset<kColumns>(first.row, first.column);
  const T* const chunk = from + first.column * kChunkElements;
  const T* source = chunk + first.row * stride;
  SHARDPROOF_UNROLLED
  for (int row = 0; row < kRows; row += kRowsAtOnce) {
    const bool is_there = first.row + row < there;
    // An address within the tensor even where nothing is read.
    context.template CopyAsync<16>(to + TileBytes<kColumns>(row),
                                   is_there ? source : chunk, is_there);
    source += kRowsAtOnce * stride;
  }
}

// The byte that a lane gives the address of, for rows from `row` on, a multiple of 8, and columns from `column` on, a
// multiple of 16. It is ChunkOffset of the sum of the places: the lane's own part, in which one bit pattern is turned
// over, and a constant.
template <int kColumns, bool kSwizzles = true>
SHARDPROOF_DEVICE uint32_t LaneOffset(const FragmentPlace& of_lane, int row,
                                      int column) {
  const uint32_t own = ChunkOffset<kColumns, kSwizzles>(
      of_lane.row, of_lane.column / kChunkElements);
  const auto turned =
      static_cast<uint32_t>(column / kChunkElements) * kChunkBytes;
  return TileBytes<kColumns>(row) + (own ^ turned);
}

// A of rows [row, row + 16), columns [column, column + 16) of a tile.
template <int kColumns, bool kSwizzles = true, class Context>
SHARDPROOF_DEVICE void LoadA(Context& context, uint32_t (&a)[4], uint32_t base,
                             int row, int column) {
  context.template LoadMatrices<false>(
      a, base + LaneOffset<kColumns, kSwizzles>(
                    RowAddressOfA(context.thread() % kWarpLanes), row, column));
}

// B [16 deep, 8] twice: of the tile's rows [row, row + 8) and [row + 8, row + 16), whose columns are the depth.
template <int kColumns, bool kSwizzles = true, class Context>
SHARDPROOF_DEVICE void LoadB(Context& context, uint32_t (&b)[4], uint32_t base,
                             int row, int column) {
  context.template LoadMatrices<false>(
      b, base + LaneOffset<kColumns, kSwizzles>(
                    RowAddressOfB(context.thread() % kWarpLanes), row, column));
}

// B [16 deep, 8] twice: of the tile's columns [column, column + 8) and [column + 8, column + 16), whose rows are the
// depth.
template <int kColumns, bool kSwizzles = true, class Context>
SHARDPROOF_DEVICE void LoadTransposedB(Context& context, uint32_t (&b)[4],
                                       uint32_t base, int row, int column) {
  context.template LoadMatrices<true>(
      b, base + LaneOffset<kColumns, kSwizzles>(
                    RowAddressOfTransposedB(context.thread() % kWarpLanes), row,
                    column));
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_TILE_H_
