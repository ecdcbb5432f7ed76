// gpu.h on the CUDA runtime.
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "collectives/backend/cuda/device/cuda_gpu.h"
#include "collectives/backend/cuda/kernels/kernel_table.h"

namespace shardproof::cuda {
namespace {

// More of dynamic shared memory has to be asked for.
constexpr int kSharedBytesOfAnyKernel = 48 << 10;

constexpr size_t kHugePage = size_t{2} << 20;

// "GPU 0: cudaMalloc: out of memory (2)", with the code that says who can do something about it.
Status StatusOf(cudaError_t error, int gpu, const char* what) {
  if (error == cudaSuccess) return OkStatus();
  // What is not sticky must not be found by the next call.
  static_cast<void>(cudaGetLastError());
  const std::string text =
      fmt::format("GPU {}: {}: {} ({})", gpu, what, cudaGetErrorString(error),
                  static_cast<int>(error));
  switch (error) {
    case cudaErrorMemoryAllocation:
      return Status(StatusCode::kOutOfMemory, text);
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return Status(StatusCode::kUnsupported,
                    fmt::format("{}; the kernels need compute capability 8.0 "
                                "or later",
                                text));
    case cudaErrorCooperativeLaunchTooLarge:
    case cudaErrorNotSupported:
      return Status(StatusCode::kUnsupported, text);
    case cudaErrorDevicesUnavailable:
    case cudaErrorECCUncorrectable:
    case cudaErrorSystemNotReady:
      return Status(StatusCode::kUnavailable, text);
    default:
      return Status(StatusCode::kInternal, text);
  }
}

#define SHARDPROOF_CUDA(gpu, call) \
  SP_RETURN_IF_ERROR(StatusOf(call, gpu, #call))

// The thread's current GPU; costs nothing where it is that already.
Status Select(int gpu) {
  return StatusOf(cudaSetDevice(gpu), gpu, "cudaSetDevice");
}

class CudaEvent final : public GpuEvent {
 public:
  CudaEvent(int gpu, cudaEvent_t event) : gpu_(gpu), event_(event) {}
  ~CudaEvent() override {
    if (Select(gpu_).ok()) cudaEventDestroy(event_);
  }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  const int gpu_;
  const cudaEvent_t event_;
};

cudaEvent_t Get(const GpuEvent& event) {
  return static_cast<const CudaEvent&>(event).get();
}

class CudaStream final : public GpuStream {
 public:
  CudaStream(int gpu, cudaStream_t stream) : gpu_(gpu), stream_(stream) {}
  ~CudaStream() override {
    if (Select(gpu_).ok()) cudaStreamDestroy(stream_);
  }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  void* handle() override { return stream_; }
  Status Launch(const CollectiveLaunch& launch) override {
    SP_RETURN_IF_ERROR(Select(gpu_));
    CollectiveLaunch mine = launch;
    void* parameters[] = {&mine.world, &mine.args, &mine.residents};
    return StatusOf(
        cudaLaunchCooperativeKernel(
            FindKernel(mine.primitive, mine.dtype, mine.op),
            dim3(static_cast<unsigned>(mine.blocks),
                 static_cast<unsigned>(mine.ranks)),
            dim3(static_cast<unsigned>(mine.threads)), parameters, 0, stream_),
        gpu_, "cudaLaunchCooperativeKernel");
  }
  Status Launch(const GridLaunch& launch) override {
    if (launch.kernel == nullptr) {
      return Unsupported("there is no kernel {} for GPUs", launch.name);
    }
    SP_RETURN_IF_ERROR(Select(gpu_));
    if (launch.shared_bytes > kSharedBytesOfAnyKernel) {
      SP_RETURN_IF_ERROR(StatusOf(
          cudaFuncSetAttribute(launch.kernel,
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               launch.shared_bytes),
          gpu_, "cudaFuncSetAttribute"));
    }
    std::vector<void*> parameters = launch.parameters;
    return StatusOf(
        cudaLaunchKernel(
            launch.kernel, dim3(static_cast<unsigned>(launch.blocks)),
            dim3(static_cast<unsigned>(launch.threads)), parameters.data(),
            static_cast<size_t>(launch.shared_bytes), stream_),
        gpu_, "cudaLaunchKernel");
  }
  Status Copy(void* to, const void* from, size_t bytes) override {
    SP_RETURN_IF_ERROR(Select(gpu_));
    return StatusOf(
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), gpu_,
        "cudaMemcpyAsync");
  }
  Status Record(GpuEvent& event) override {
    SP_RETURN_IF_ERROR(Select(gpu_));
    return StatusOf(cudaEventRecord(Get(event), stream_), gpu_,
                    "cudaEventRecord");
  }
  Status Wait(const GpuEvent& event) override {
    SP_RETURN_IF_ERROR(Select(gpu_));
    return StatusOf(cudaStreamWaitEvent(stream_, Get(event), 0), gpu_,
                    "cudaStreamWaitEvent");
  }
  StatusOr<bool> Done() override {
    SP_RETURN_IF_ERROR(Select(gpu_));
    const cudaError_t state = cudaStreamQuery(stream_);
    if (state == cudaErrorNotReady) return false;
    SP_RETURN_IF_ERROR(StatusOf(state, gpu_, "a kernel or a copy"));
    return true;
  }

 private:
  const int gpu_;
  const cudaStream_t stream_;
};

// Takes place beyond `bytes` where the allocator does not align by itself.
Buffer Aligned(std::byte* data, size_t bytes, size_t alignment,
               std::shared_ptr<void> owner) {
  const size_t off = reinterpret_cast<uintptr_t>(data) % alignment;
  return Buffer(std::move(owner), data + (off == 0 ? 0 : alignment - off),
                bytes);
}

// Advice is a hint: where a GPU or a driver does not take it, memory works all the same.
void Advise(const void* data, size_t bytes, cudaMemoryAdvise advice, int gpu) {
#if CUDART_VERSION >= 13000
  const cudaMemLocation where{.type = cudaMemLocationTypeDevice, .id = gpu};
  const cudaError_t error = cudaMemAdvise(data, bytes, advice, where);
#else
  const cudaError_t error = cudaMemAdvise(data, bytes, advice, gpu);
#endif
  if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
}

constexpr uint32_t kProbe = 0x5eed;

__global__ void ProbeKernel(uint32_t* word) { *word = kProbe; }

std::string IdentityOf(const cudaUUID_t& uuid) {
  std::string digits;
  for (const char byte : uuid.bytes) {
    digits += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  }
  return digits;
}

using Lock = std::lock_guard<std::mutex>;

class CudaGpu final : public Gpu {
 public:
  static StatusOr<std::unique_ptr<CudaGpu>> Create(
      int index, int count, std::shared_ptr<std::mutex> launching) {
    std::unique_ptr<CudaGpu> made(
        new CudaGpu(index, count, std::move(launching)));
    cudaDeviceProp p;
    SHARDPROOF_CUDA(index, cudaGetDeviceProperties(&p, index));
    made->info_ = {.name = p.name,
                   .identity = IdentityOf(p.uuid),
                   .major = p.major,
                   .minor = p.minor,
                   .memory_bytes = p.totalGlobalMem,
                   .multiprocessors = p.multiProcessorCount,
                   .cooperative_launch = p.cooperativeLaunch != 0,
                   .managed_memory = p.concurrentManagedAccess != 0,
                   .block_threads = kMaxThreads};
    return made;
  }

  // Whether kernels of this program run here and write to memory of the host.
  Status Probe() {
    SP_ASSIGN_OR_RETURN(const Buffer word, AllocateReports(sizeof(uint32_t)));
    ProbeKernel<<<1, 1>>>(word.as<uint32_t>());
    SHARDPROOF_CUDA(index_, cudaGetLastError());
    SHARDPROOF_CUDA(index_, cudaDeviceSynchronize());
    if (*word.as<uint32_t>() == kProbe) return OkStatus();
    return Internal("GPU {} ({}): a kernel ran and did nothing", index_,
                    info_.name);
  }

  const GpuInfo& info() const override { return info_; }
  Status Use() override { return Select(index_); }

  Status EnablePeer(int peer) override {
    const Lock lock(*launching_);
    SP_RETURN_IF_ERROR(Select(index_));
    int can = 0;
    SHARDPROOF_CUDA(index_, cudaDeviceCanAccessPeer(&can, index_, peer));
    if (can == 0) {
      return Unsupported("GPU {} ({}) cannot address the memory of GPU {}",
                         index_, info_.name, peer);
    }
    const cudaError_t enabled = cudaDeviceEnablePeerAccess(peer, 0);
    if (enabled == cudaErrorPeerAccessAlreadyEnabled) {
      static_cast<void>(cudaGetLastError());
      return OkStatus();
    }
    return StatusOf(enabled, index_, "cudaDeviceEnablePeerAccess");
  }

  StatusOr<Buffer> Allocate(size_t bytes) override {
    // Before the lock: it takes that itself.
    std::shared_ptr<void> misaligned;
    const Lock lock(*launching_);
    SP_RETURN_IF_ERROR(Select(index_));
    // Empty buffers have an address too.
    size_t room = bytes == 0 ? 1 : bytes;
    void* data = nullptr;
    SHARDPROOF_CUDA(index_,
                    cudaMallocManaged(&data, room, cudaMemAttachGlobal));
    std::shared_ptr<void> owner = Owner(data);
    if (bytes >= kHugePage &&
        reinterpret_cast<uintptr_t>(data) % kHugePage != 0) {
      misaligned = std::move(owner);
      room += kHugePage;
      SHARDPROOF_CUDA(index_,
                      cudaMallocManaged(&data, room, cudaMemAttachGlobal));
      owner = Owner(data);
    }
    Advise(data, room, cudaMemAdviseSetPreferredLocation, index_);
    for (int peer = 0; peer < count_; ++peer) {
      int can = 0;
      if (peer != index_ &&
          cudaDeviceCanAccessPeer(&can, peer, index_) == cudaSuccess &&
          can != 0) {
        Advise(data, room, cudaMemAdviseSetAccessedBy, peer);
      }
    }
    return Aligned(static_cast<std::byte*>(data), bytes,
                   bytes >= kHugePage ? kHugePage : 64, std::move(owner));
  }

  StatusOr<Buffer> AllocateFlags(size_t bytes) override {
    Buffer buffer;
    const Lock lock(*launching_);
    SP_RETURN_IF_ERROR(Select(index_));
    void* data = nullptr;
    SHARDPROOF_CUDA(index_, cudaMalloc(&data, bytes));
    buffer = Buffer(Owner(data), static_cast<std::byte*>(data), bytes);
    SHARDPROOF_CUDA(index_, cudaMemset(data, 0, bytes));
    // cudaMemset does not wait for itself, and no stream of ours waits for it.
    SHARDPROOF_CUDA(index_, cudaDeviceSynchronize());
    return buffer;
  }

  StatusOr<Buffer> AllocateReports(size_t bytes) override {
    const Lock lock(*launching_);
    SP_RETURN_IF_ERROR(Select(index_));
    void* data = nullptr;
    SHARDPROOF_CUDA(index_,
                    cudaHostAlloc(&data, bytes,
                                  cudaHostAllocPortable | cudaHostAllocMapped));
    std::shared_ptr<void> owner(
        data, [gpu = index_, launching = launching_](void* p) {
          const Lock guard(*launching);
          if (Select(gpu).ok()) cudaFreeHost(p);
        });
    auto* const begin = static_cast<std::byte*>(data);
    std::fill_n(begin, bytes, std::byte{0});
    return Buffer(std::move(owner), begin, bytes);
  }

  StatusOr<std::unique_ptr<GpuStream>> NewStream() override {
    SP_RETURN_IF_ERROR(Select(index_));
    cudaStream_t stream = nullptr;
    SHARDPROOF_CUDA(index_,
                    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return std::unique_ptr<GpuStream>(
        std::make_unique<CudaStream>(index_, stream));
  }

  StatusOr<std::unique_ptr<GpuEvent>> NewEvent() override {
    SP_RETURN_IF_ERROR(Select(index_));
    cudaEvent_t event = nullptr;
    SHARDPROOF_CUDA(index_, cudaEventCreate(&event));
    return std::unique_ptr<GpuEvent>(
        std::make_unique<CudaEvent>(index_, event));
  }

  StatusOr<double> Microseconds(const GpuEvent& from,
                                const GpuEvent& to) override {
    SP_RETURN_IF_ERROR(Select(index_));
    float milliseconds = 0;
    SHARDPROOF_CUDA(index_,
                    cudaEventElapsedTime(&milliseconds, Get(from), Get(to)));
    return static_cast<double>(milliseconds) * 1000;
  }

  Status Prepare(const CollectiveLaunch& launch) override {
    const void* const kernel =
        FindKernel(launch.primitive, launch.dtype, launch.op);
    if (kernel == nullptr) return Unsupported("there is no such kernel");
    if (!info_.cooperative_launch) {
      return Unsupported("GPU {} ({}) has no cooperative launch", index_,
                         info_.name);
    }
    SP_ASSIGN_OR_RETURN(const int most, MostBlocks(kernel, launch.threads));
    const int blocks = launch.blocks * launch.ranks;
    if (blocks > most) {
      return Unsupported(
          "GPU {} ({}) holds {} blocks at a time, and {} ranks of {} blocks "
          "are {}",
          index_, info_.name, most, launch.ranks, launch.blocks, blocks);
    }
    return OkStatus();
  }

 private:
  CudaGpu(int index, int count, std::shared_ptr<std::mutex> launching)
      : index_(index), count_(count), launching_(std::move(launching)) {}

  std::shared_ptr<void> Owner(void* data) const {
    return std::shared_ptr<void>(
        data, [gpu = index_, launching = launching_](void* p) {
          const Lock guard(*launching);
          if (Select(gpu).ok()) cudaFree(p);
        });
  }

  // How many blocks are on the GPU together. The first call for a kernel loads it, which may wait for whatever runs.
  StatusOr<int> MostBlocks(const void* kernel, int threads) {
    const Lock lock(*launching_);
    const auto known = most_blocks_.find({kernel, threads});
    if (known != most_blocks_.end()) return known->second;
    SP_RETURN_IF_ERROR(Select(index_));
    cudaFuncAttributes attributes;
    SHARDPROOF_CUDA(index_, cudaFuncGetAttributes(&attributes, kernel));
    int each = 0;
    SHARDPROOF_CUDA(index_, cudaOccupancyMaxActiveBlocksPerMultiprocessor(
                                &each, kernel, threads, 0));
    const int most = each * info_.multiprocessors;
    most_blocks_[{kernel, threads}] = most;
    return most;
  }

  const int index_, count_;
  GpuInfo info_;
  const std::shared_ptr<std::mutex> launching_;
  // Guarded by launching_.
  std::map<std::pair<const void*, int>, int> most_blocks_;
};

class CudaSystem final : public GpuSystem {
 public:
  CudaSystem(int driver, int runtime) : driver_(driver), runtime_(runtime) {}
  Status Open(int count) {
    for (int i = 0; i < count; ++i) {
      SP_ASSIGN_OR_RETURN(std::unique_ptr<CudaGpu> gpu,
                          CudaGpu::Create(i, count, launching()));
      SP_RETURN_IF_ERROR(gpu->Probe().WithContext(
          "no kernel of this program runs (CUDA_VISIBLE_DEVICES leaves a GPU "
          "out)"));
      gpus_.push_back(std::move(gpu));
    }
    return OkStatus();
  }
  int count() const override { return static_cast<int>(gpus_.size()); }
  Gpu& gpu(int index) override { return *gpus_[static_cast<size_t>(index)]; }
  bool emulated() const override { return false; }
  std::string Describe() const override {
    return fmt::format("CUDA driver {}, runtime {}", CudaVersionText(driver_),
                       CudaVersionText(runtime_));
  }
  bool Addresses(const void* data) const override {
    cudaPointerAttributes attributes;
    if (data == nullptr ||
        cudaPointerGetAttributes(&attributes, data) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      return false;
    }
    return attributes.type != cudaMemoryTypeUnregistered;
  }

 private:
  const int driver_, runtime_;
  std::vector<std::unique_ptr<CudaGpu>> gpus_;
};

}  // namespace

StatusOr<std::shared_ptr<GpuSystem>> OpenCudaGpus() {
  int driver = 0, runtime = 0, count = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  static_cast<void>(cudaRuntimeGetVersion(&runtime));
  const cudaError_t counted = cudaGetDeviceCount(&count);
  if (counted != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    count = 0;
  }
  // Before what the runtime says, which calls a driver that is not there too old.
  Status status = CheckDriver(driver, runtime, count);
  if (!status.ok()) {
    const bool said = counted == cudaSuccess || counted == cudaErrorNoDevice ||
                      counted == cudaErrorInsufficientDriver;
    if (said) return status;
    return Unavailable("the CUDA driver gives no GPU: {}",
                       cudaGetErrorString(counted));
  }
  auto system = std::make_shared<CudaSystem>(driver, runtime);
  SP_RETURN_IF_ERROR(system->Open(count));
  return std::shared_ptr<GpuSystem>(std::move(system));
}

}  // namespace shardproof::cuda
