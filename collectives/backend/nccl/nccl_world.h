// A world of ranks on GPUs whose collectives are NCCL's, or those of any library with its interface: threads of this
// process, or processes of a launcher; rank r of a node on GPU r modulo the GPUs. Where ranks share a GPU and the library does not take that, each rank's end
// of the library's communicator is in a process of its own (process/rank_process.h): for correctness, and slow.
//
//     SP_ASSIGN_OR_RETURN(const auto gpus, cuda::OpenCudaGpus());
//     SP_ASSIGN_OR_RETURN(const auto library, NcclLibrary::Load());
//     SP_ASSIGN_OR_RETURN(const auto world, CreateNcclWorld({.ranks = 4, .gpus = gpus, .library = library}));
//
// Native is the library's (nccl_collectives.h), in a communicator of its own for each communicator here, made at the
// first call. Everything else is the other backend on managed memory (cuda/device/gpu_backend.h).
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_WORLD_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_WORLD_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "collectives/backend/cuda/device/cuda_world.h"
#include "collectives/backend/cuda/device/gpu.h"
#include "collectives/backend/nccl/nccl_library.h"
#include "collectives/backend/thread/thread_world.h"
#include "reference/status.h"

namespace shardproof {

struct NcclWorldOptions {
  int ranks = 1;
  std::shared_ptr<cuda::GpuSystem> gpus;
  std::shared_ptr<const NcclLibrary> library;
  // Of each wait for the library: see NcclCommunicatorOptions.
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
  cuda::PutServices services = nullptr;
  // A program that serves a rank (process/rank_server.h), by its path, and its arguments. Empty: there is none.
  std::vector<std::string> rank_command = {};
};

// kUnavailable: a library for GPUs and emulated ones, or the other way round; GPUs that share no memory with the host.
//
// Several ranks on one GPU are in this process with NCCL 2.30 or newer and NCCL_MULTI_RANK_GPU_ENABLE=1 in the
// environment, and else, on one machine, in the processes of `rank_command`. Without either Native is kUnsupported, on all
// ranks alike.
StatusOr<std::unique_ptr<ThreadWorld>> CreateNcclWorld(
    const NcclWorldOptions& options);

// The same around the ranks of another world, such as MpiWorld's processes; `options.ranks` is that world's.
StatusOr<cuda::WrapBackend> NcclOnGpus(const NcclWorldOptions& options);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_WORLD_H_
