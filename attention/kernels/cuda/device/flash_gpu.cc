#include "attention/kernels/cuda/device/flash_gpu.h"

#include <algorithm>

#include "attention/kernels/cuda/device/emulated_flash.h"

namespace shardproof::cuda {
namespace {

// Those that a call launches.
constexpr FlashKernel kLaunched[] = {FlashKernel::kForward,
                                     FlashKernel::kKeyGradients,
                                     FlashKernel::kQueryGradients};

const char* NameOf(FlashKernel kernel) {
  switch (kernel) {
    case FlashKernel::kForward:
      return "flash_forward";
    case FlashKernel::kDelta:
      return "flash_delta";
    case FlashKernel::kKeyGradients:
      return "flash_key_gradients";
    case FlashKernel::kQueryGradients:
      return "flash_query_gradients";
    case FlashKernel::kWarpgroupForward:
      return "flash_warpgroup_forward";
  }
  return "";
}

}  // namespace

FlashGpu::FlashGpu(const FlashGpuOptions& options) : options_(options) {}

bool FlashGpu::Has(DType dtype, int64_t head_dim) const {
  if (head_dim != 64 && head_dim != 128) return false;
  return std::all_of(std::begin(kLaunched), std::end(kLaunched),
                     [&](FlashKernel kernel) {
                       return Has(kernel, dtype, static_cast<int>(head_dim));
                     });
}

bool FlashGpu::Has(FlashKernel kernel, DType dtype, int head_dim) const {
  if (gpus().emulated()) {
    return FindEmulatedFlashKernel(kernel, dtype, head_dim).body != nullptr;
  }
  return options_.find(kernel, dtype, head_dim).kernel != nullptr;
}

Status FlashGpu::Open() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (stream_ != nullptr) return OkStatus();
  SP_ASSIGN_OR_RETURN(stream_, gpu().NewStream());
  return OkStatus();
}

// sm_90a is of compute capability 9 alone; emulated GPUs know no warpgroups.
bool FlashGpu::HasWarpgroups() const {
  constexpr int kMajor = 9;
  return !gpus().emulated() && gpu().info().major == kMajor;
}

const char* FlashGpu::WarpgroupArgsOf(const FlashForwardArgs& args, DType dtype,
                                      int head_dim,
                                      WarpgroupForwardArgs& to) const {
  if (!HasWarpgroups()) return "a GPU that is not of compute capability 9";
  const FlashKernelEntry entry =
      options_.find(FlashKernel::kWarpgroupForward, dtype, head_dim);
  if (entry.kernel == nullptr) return "no kernel of warpgroups";
  const int keys =
      head_dim == 64 ? WarpgroupTiling<64>::kKeys : WarpgroupTiling<128>::kKeys;
  TileMapSpec specs[3];
  const char* reason =
      WhyNotWarpgroups(args, dtype, head_dim, entry.rows, keys, specs);
  to.flash = args;
  TileMap* const maps[] = {&to.q, &to.k, &to.v};
  for (int i = 0; i < 3 && reason == nullptr; ++i) {
    reason = entry.encode(specs[i], *maps[i]);
  }
  return reason;
}

GridLaunch FlashGpu::LaunchOf(FlashKernel kernel, DType dtype, int head_dim,
                              int64_t blocks) const {
  const FlashKernelEntry entry = options_.find(kernel, dtype, head_dim);
  const EmulatedFlashKernel emulated =
      FindEmulatedFlashKernel(kernel, dtype, head_dim);
  GridLaunch launch;
  launch.name = NameOf(kernel);
  launch.kernel = entry.kernel;
  launch.emulated = emulated.body;
  launch.blocks = static_cast<int>(
      gpus().emulated() ? std::min<int64_t>(blocks, kMostEmulatedBlocks)
                        : blocks);
  launch.threads = entry.threads;
  launch.shared_bytes = static_cast<int>(entry.shared_bytes);
  launch.fiber_bytes = emulated.fiber_bytes;
  return launch;
}

Status FlashGpu::Run(const std::vector<GridLaunch>& launches,
                     const WorldHealth& health,
                     const std::shared_ptr<void>& memory) {
  if (launches.empty()) return OkStatus();
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!lost_.ok()) return lost_;
  if (stream_ == nullptr)
    return Internal("attention on {} is not open", Name());
  Status launched;
  {
    // The first launch of a kernel loads it, and waits for what runs: for a
    // collective of several GPUs too, all of which has to be on its way then.
    const std::lock_guard<std::mutex> launching(*gpus().launching());
    for (const GridLaunch& launch : launches) {
      launched = stream_->Launch(launch).WithContext(launch.name);
      if (!launched.ok()) break;
      ++launches_;
    }
  }
  // What was launched before a refusal works in the caller's memory too.
  const Waited done =
      AwaitLaunches(*stream_, {options_.timeout, options_.grace}, health);
  const std::string here = "attention on " + Name();
  if (!done.unended.ok()) {
    lost_ = done.unended.WithContext(here);
    kept_ = memory;
  }
  return (launched.ok() ? done.status : launched).WithContext(here);
}

}  // namespace shardproof::cuda
