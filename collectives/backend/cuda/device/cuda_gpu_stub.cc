// The GPUs where there is no CUDA: it says so.
#include "collectives/backend/cuda/device/cuda_gpu.h"

namespace shardproof::cuda {

StatusOr<std::shared_ptr<GpuSystem>> OpenCudaGpus() {
  return Unavailable(
      "this program was built without CUDA; install the toolkit, 12.0 or later "
      "(CUDA_HOME says where), and build again, or try --emulate-gpus");
}

}  // namespace shardproof::cuda
