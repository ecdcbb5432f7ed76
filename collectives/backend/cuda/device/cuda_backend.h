// Ranks on GPUs, whose collectives are our kernels: Native runs them, and everything else is the backend of threads on
// managed memory (gpu_backend.h).
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_CUDA_BACKEND_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_CUDA_BACKEND_H_

#include <map>
#include <memory>
#include <mutex>
#include <string_view>

#include "collectives/backend/cuda/device/cuda_group.h"
#include "collectives/backend/cuda/device/gpu_backend.h"

namespace shardproof::cuda {

// The groups of a world, as the ranks of each find the one that they share.
class CudaGroups {
 public:
  CudaGroups(std::shared_ptr<GpuSystem> gpus, const CudaTuning& tuning)
      : gpus_(std::move(gpus)), tuning_(tuning) {}
  // That of the communicator of `backend`, made by the first rank that asks. It must not outlive `backend`.
  std::shared_ptr<CudaGroup> Of(const Backend& backend);

 private:
  const std::shared_ptr<GpuSystem> gpus_;
  const CudaTuning tuning_;
  std::mutex mutex_;
  // By what all ranks of a communicator, and of no other, see: the progress of its first rank. Guarded by mutex_.
  std::map<const OpRecord*, std::weak_ptr<CudaGroup>> groups_;
};

class CudaBackend final : public GpuBackend {
 public:
  CudaBackend(std::shared_ptr<Backend> inner, Place place,
              std::shared_ptr<CudaGroups> groups);

  std::string_view name() const override { return "cuda"; }
  Status Native(const NativeRequest& request) override;

 protected:
  std::shared_ptr<Backend> Around(std::shared_ptr<Backend> part) override;

 private:
  const std::shared_ptr<CudaGroups> groups_;
  const std::shared_ptr<CudaGroup> group_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_CUDA_BACKEND_H_
