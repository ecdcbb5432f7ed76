#include "collectives/backend/cuda/device/gpu_backend.h"

namespace shardproof::cuda {

StatusOr<std::shared_ptr<Backend>> GpuBackend::Split(int color, int key) {
  SP_ASSIGN_OR_RETURN(std::shared_ptr<Backend> part, inner_->Split(color, key));
  if (part == nullptr) return part;
  return Around(std::move(part));
}

StatusOr<Buffer> GpuBackend::Allocate(size_t bytes) {
  SP_ASSIGN_OR_RETURN(Buffer plain, gpu().Allocate(bytes));
  std::byte* const data = plain.data();
  auto held = std::make_shared<Buffer>(std::move(plain));
  std::shared_ptr<void> owner(
      data, [held, inner = inner_, kept = place_.kept](void* /*data*/) {
        if (!inner->health().ok()) kept->Keep(std::move(*held));
      });
  return Buffer(std::move(owner), data, bytes);
}

}  // namespace shardproof::cuda
