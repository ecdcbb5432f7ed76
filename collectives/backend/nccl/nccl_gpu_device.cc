#include "collectives/backend/nccl/nccl_gpu_device.h"

namespace shardproof {

StatusOr<std::unique_ptr<NcclGpuDevice>> NcclGpuDevice::Create(cuda::Gpu& gpu) {
  constexpr size_t kScratchBytes = 64;
  SP_RETURN_IF_ERROR(gpu.Use());
  auto device = std::make_unique<NcclGpuDevice>();
  SP_ASSIGN_OR_RETURN(device->scratch_, gpu.AllocateFlags(kScratchBytes));
  SP_ASSIGN_OR_RETURN(device->stream_, gpu.NewStream());
  return device;
}

}  // namespace shardproof
