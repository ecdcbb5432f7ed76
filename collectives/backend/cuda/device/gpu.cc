#include "collectives/backend/cuda/device/gpu.h"

#include <fmt/format.h>

#include <ctime>
#include <thread>
#include <utility>

namespace shardproof::cuda {

std::string NameOf(GpuSystem& gpus, int gpu) {
  return fmt::format("GPU {} ({})", gpu, gpus.gpu(gpu).info().name);
}

std::string CudaVersionText(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

Status CheckDriver(int driver, int runtime, int count) {
  if (driver == 0) {
    return Unavailable(
        "no CUDA driver: libcuda.so.1 is not there or cannot be loaded; "
        "install NVIDIA's driver, or give a container the GPUs (--gpus all)");
  }
  // Within one major version every driver runs what any toolkit makes.
  if (driver / 1000 < runtime / 1000) {
    return Unavailable(
        "the CUDA driver is too old: it supports CUDA {}, and this program is "
        "of CUDA {}; install a newer driver",
        CudaVersionText(driver), CudaVersionText(runtime));
  }
  if (count == 0) {
    return Unavailable(
        "no GPU: the CUDA driver is there and reports none; look at "
        "CUDA_VISIBLE_DEVICES and nvidia-smi");
  }
  return OkStatus();
}

Status Synchronize(GpuStream& stream, std::chrono::milliseconds timeout,
                   const std::function<Status()>& health) {
  using Clock = std::chrono::steady_clock;
  // Looks, then yields, then naps: peers may need the core.
  constexpr int64_t kLooks = 256;
  constexpr int64_t kYields = 2000;
  const Clock::time_point deadline = Clock::now() + timeout;
  for (int64_t looks = 0;; ++looks) {
    SP_ASSIGN_OR_RETURN(const bool done, stream.Done());
    if (done) return OkStatus();
    if (looks < kLooks) continue;
    if (health != nullptr) SP_RETURN_IF_ERROR(health());
    if (Clock::now() >= deadline) {
      return Timeout("the stream was not done within {} ms", timeout.count());
    }
    if (looks < kLooks + kYields) {
      std::this_thread::yield();
    } else {
      const timespec nap{.tv_sec = 0, .tv_nsec = 50'000};
      nanosleep(&nap, nullptr);
    }
  }
}

Waited AwaitLaunches(GpuStream& stream, const WaitLimits& limits,
                     const WorldHealth& health) {
  Status aborted;
  std::function<Status()> ask;
  if (health != nullptr) ask = [&] { return aborted = health(); };
  Status status = Synchronize(stream, limits.timeout, ask);
  if (aborted.ok()) {
    if (status.code() != StatusCode::kTimeout) return {std::move(status), {}};
    return {status, status};
  }
  Status ended = Synchronize(stream, limits.grace);
  if (ended.code() != StatusCode::kTimeout) return {std::move(aborted), {}};
  return {std::move(aborted), std::move(ended)};
}

}  // namespace shardproof::cuda
