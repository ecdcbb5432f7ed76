// A rank's GPU as attention uses it: its kernels by name, a stream of its own, a deadline, and what it has done so far.
//
//     FlashGpu gpu({.gpus = gpus, .gpu = 0, .find = FindFlashKernel});
//     SP_RETURN_IF_ERROR(gpu.Open());
//     FlashLaunches launches(gpu, DType::kBF16, 128);
//     launches.AddForward(args);
//     SP_RETURN_IF_ERROR(gpu.Run(launches.all()));                   // Returns once the kernels are done.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FLASH_GPU_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FLASH_GPU_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/cuda/device/flash_on_gpu.h"
#include "attention/kernels/cuda/kernel_table.h"
#include "attention/kernels/cuda/warpgroup/tiling.h"
#include "collectives/backend/cuda/device/gpu.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof::cuda {

class FlashGpu {
 public:
  explicit FlashGpu(const FlashGpuOptions& options);
  FlashGpu(const FlashGpu&) = delete;
  FlashGpu& operator=(const FlashGpu&) = delete;

  // Whether there are the kernels of an attention of this type and head dimension.
  bool Has(DType dtype, int64_t head_dim) const;
  // Makes the stream, unless there is one. An error of the GPU.
  Status Open();

  GpuSystem& gpus() const { return *options_.gpus; }
  Gpu& gpu() const { return gpus().gpu(options_.gpu); }

  // Whether kernels of warpgroups run here at all.
  bool HasWarpgroups() const;
  // The arguments of kWarpgroupForward. Null, or why kForward is to be taken.
  const char* WarpgroupArgsOf(const FlashForwardArgs& args, DType dtype,
                              int head_dim, WarpgroupForwardArgs& to) const;

  // A launch of `blocks` blocks, without its parameters.
  GridLaunch LaunchOf(FlashKernel kernel, DType dtype, int head_dim,
                      int64_t blocks) const;
  int RowsOf(FlashKernel kernel, DType dtype, int head_dim) const {
    return options_.find(kernel, dtype, head_dim).rows;
  }
  // Runs them in order and returns once they are done; several threads may call it, and take turns. An error of the GPU,
  // that of a world that `health` says is aborted, or kTimeout. A kernel that was given up may still be writing: `memory`,
  // in which it works, is kept as long as its stream, and every later call gets kTimeout.
  Status Run(const std::vector<GridLaunch>& launches,
             const WorldHealth& health = nullptr,
             const std::shared_ptr<void>& memory = nullptr);

  void CountGpuCall() { ++gpu_calls_; }
  void CountHostCall() { ++host_calls_; }
  void CountHostShape() { ++host_shapes_; }
  void CountStaged(int64_t bytes) { staged_bytes_ += bytes; }
  FlashGpuCounts counts() const {
    return {launches_, gpu_calls_, host_calls_, host_shapes_, staged_bytes_};
  }

 private:
  bool Has(FlashKernel kernel, DType dtype, int head_dim) const;
  std::string Name() const { return NameOf(gpus(), options_.gpu); }

  const FlashGpuOptions options_;
  std::atomic<int64_t> launches_{0}, gpu_calls_{0}, host_calls_{0},
      host_shapes_{0}, staged_bytes_{0};
  std::mutex mutex_;
  // Guarded by mutex_.
  std::shared_ptr<void> kept_;  // Outlives the stream.
  std::unique_ptr<GpuStream> stream_;
  Status lost_;  // That of the first timeout.
};

// The kernels of a call.
class FlashLaunches {
 public:
  FlashLaunches(const FlashGpu& gpu, DType dtype, int64_t head_dim)
      : gpu_(gpu), dtype_(dtype), head_dim_(static_cast<int>(head_dim)) {}

  // One with `args` as its parameter; nothing where there are no blocks.
  template <class Args>
  void Add(FlashKernel kernel, const Args& args) {
    if (GridLaunch* const launch = AddLaunch(kernel, args.work)) {
      SetParameters(*launch, args);
    }
  }
  // By the kernel of warpgroups where that serves the call.
  void AddForward(const FlashForwardArgs& args) {
    const auto with_maps = std::make_shared<WarpgroupForwardArgs>();
    if (gpu_.WarpgroupArgsOf(args, dtype_, head_dim_, *with_maps) != nullptr) {
      Add(FlashKernel::kForward, args);
      return;
    }
    // SetParameters passes by value, where gcc warns of what is aligned so.
    if (GridLaunch* const launch =
            AddLaunch(FlashKernel::kWarpgroupForward, args.work)) {
      launch->parameters = {with_maps.get()};
      launch->held = with_maps;
    }
  }
  const std::vector<GridLaunch>& all() const { return launches_; }

 private:
  // Null where there are no blocks.
  GridLaunch* AddLaunch(FlashKernel kernel, const FlashWork& work) {
    const bool over_keys = kernel == FlashKernel::kKeyGradients;
    const int rows =
        over_keys ? work.sight.keys.count : work.sight.queries.count;
    const int64_t blocks =
        FlashBlocks(TilesOf(rows, gpu_.RowsOf(kernel, dtype_, head_dim_)),
                    over_keys ? work.kv_heads : work.heads, work.sequences);
    if (blocks == 0) return nullptr;
    launches_.push_back(gpu_.LaunchOf(kernel, dtype_, head_dim_, blocks));
    return &launches_.back();
  }

  const FlashGpu& gpu_;
  const DType dtype_;
  const int head_dim_;
  std::vector<GridLaunch> launches_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FLASH_GPU_H_
