// Grids for the kernels of this folder, as plain functions of shapes.
//
//     RowLaunch         a block for each row: as few threads as hold the row in registers (team.h), 32 to kMaxTeam
//     RowSumLaunch      NormalizeBackward and ColumnSums: as many blocks as run at a time, since each leaves partial sums
//     PartialSumLaunch  SumPartials: a block for each 32 columns, and a warp for about 8 parts
//     TensorLaunch      what works element by element: enough blocks to fill the GPU, each with several packets a thread
//
//     const LaunchShape shape = RowLaunch(tokens, hidden, SizeOf(dtype));
//     cudaLaunchKernel(FindLayerKernel(LayerKernel::kNormalize, dtype), shape.blocks, shape.threads, parameters, 0, stream);
//
// Every kernel is right with any grid; these are a first choice, and not yet measured.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_LAUNCH_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_LAUNCH_H_

#include <algorithm>
#include <cstdint>

#include "layers/kernels/cuda/team.h"

namespace shardproof::cuda {

struct LaunchShape {
  int blocks = 1;
  int threads = kLanes;
};

inline constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;

constexpr int64_t CeilOf(int64_t n, int64_t by) { return (n + by - 1) / by; }
constexpr int BlocksOf(int64_t wanted, int64_t most = kMostBlocks) {
  return static_cast<int>(std::clamp<int64_t>(wanted, 1, most));
}

// `packets`: how many of 16 bytes a thread holds, 4 but where a kernel's header says otherwise.
constexpr int RowThreads(int64_t columns, int element_bytes, int packets = 4) {
  const int64_t threads =
      CeilOf(columns, int64_t{kVectorBytes} / element_bytes * packets);
  return static_cast<int>(
      std::clamp<int64_t>(CeilOf(threads, kLanes) * kLanes, kLanes, kMaxTeam));
}

constexpr LaunchShape RowLaunch(int64_t rows, int64_t columns,
                                int element_bytes) {
  return {BlocksOf(rows), RowThreads(columns, element_bytes)};
}

// A multiprocessor has registers for kMaxTeam threads of 128 each. The partial sums are blocks x columns.
constexpr LaunchShape RowSumLaunch(int64_t rows, int64_t columns,
                                   int element_bytes, int multiprocessors) {
  const int threads = RowThreads(columns, element_bytes, 2);
  return {BlocksOf(rows, int64_t{multiprocessors} * (kMaxTeam / threads)),
          threads};
}

// `columns`: those of all outputs together.
constexpr LaunchShape PartialSumLaunch(int64_t parts, int64_t columns) {
  constexpr int64_t kPartsOfAWarp = 8;
  const int64_t warps =
      std::clamp<int64_t>(CeilOf(parts, kPartsOfAWarp), 1, kMaxTeam / kLanes);
  return {BlocksOf(CeilOf(columns, kLanes)), static_cast<int>(warps) * kLanes};
}

constexpr LaunchShape TensorLaunch(int64_t n, int element_bytes,
                                   int multiprocessors) {
  constexpr int kThreads = 256, kBlocksOfAMultiprocessor = 8;
  const int64_t of_block = int64_t{kThreads} * (kVectorBytes / element_bytes);
  return {BlocksOf(CeilOf(n, of_block),
                   int64_t{multiprocessors} * kBlocksOfAMultiprocessor),
          kThreads};
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_LAUNCH_H_
