#include "collectives/backend/cuda/device/cuda_backend.h"

#include <utility>

namespace shardproof::cuda {

std::shared_ptr<CudaGroup> CudaGroups::Of(const Backend& backend) {
  const OpRecord* const key = backend.Progress(0);
  const std::lock_guard<std::mutex> lock(mutex_);
  std::weak_ptr<CudaGroup>& known = groups_[key];
  std::shared_ptr<CudaGroup> group = known.lock();
  if (group == nullptr) {
    std::erase_if(groups_, [key](const auto& entry) {
      return entry.first != key && entry.second.expired();
    });
    group = std::make_shared<CudaGroup>(gpus_, tuning_, backend.size());
    groups_[key] = group;
  }
  return group;
}

CudaBackend::CudaBackend(std::shared_ptr<Backend> inner, Place place,
                         std::shared_ptr<CudaGroups> groups)
    : GpuBackend(std::move(inner), std::move(place)),
      groups_(std::move(groups)),
      group_(groups_->Of(*this)) {}

std::shared_ptr<Backend> CudaBackend::Around(std::shared_ptr<Backend> part) {
  return std::make_shared<CudaBackend>(std::move(part), place(), groups_);
}

Status CudaBackend::Native(const NativeRequest& request) {
  return group_->Run(rank(), place().gpu, request, [this] { return health(); });
}

}  // namespace shardproof::cuda
