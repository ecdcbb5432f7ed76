// GPUs that are none: host memory, and the very kernels that nvcc compiles, run in fibers (../fiber/). So everything
// above gpu.h is tested on any machine, with the faults of a GPU planted where a test wants them.
//
//     SP_ASSIGN_OR_RETURN(const auto gpus, OpenEmulatedGpus({.count = 2}));
//
// A stream is a thread; a launch is one run of the fiber scheduler on it, in an order that the seed and the number of
// the launch give. Kernels of several GPUs run at the same time, on several threads, and wait for one another by the
// same flags as on GPUs. It emulates no speed, and what ../fiber/ cannot see it cannot see either.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_GPU_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_GPU_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "collectives/backend/cuda/device/gpu.h"
#include "reference/status.h"

namespace shardproof::cuda {

// What tests plant. Launches are counted over all GPUs, from 0; -1: none.
struct EmulatedFaults {
  bool no_peer_access = false;
  bool no_cooperative_launch = false;
  bool no_managed_memory = false;
  int refused_launch = -1;  // Launch fails.
  int lost_launch = -1;     // It is queued and never runs.
  int endless_launch = -1;  // It does not end while all streams live.
  int failing_launch = -1;  // It ends the stream with an error.
};

struct EmulatedGpuOptions {
  int count = 1;
  // The blocks of a cooperative launch that a GPU holds at a time.
  int multiprocessors = 8;
  int block_threads = 4;
  // Of each GPU; allocations beyond are refused.
  size_t memory_bytes = size_t{1} << 40;
  // As CheckDriver takes it; 0: no driver.
  int driver = 13000;
  uint64_t seed = 1;
  EmulatedFaults faults = {};
};

// At most 16. kUnavailable as CheckDriver says it.
StatusOr<std::shared_ptr<GpuSystem>> OpenEmulatedGpus(
    const EmulatedGpuOptions& options);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_GPU_H_
