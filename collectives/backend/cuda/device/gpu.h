// GPUs, as little of them as the backends need: memory, streams, events, and the cooperative launch of a collective
// kernel. Two implementations: CUDA (cuda_gpu.h) and host memory with the same kernels in fibers (emulated_gpu.h).
//
//     SP_ASSIGN_OR_RETURN(const std::shared_ptr<GpuSystem> gpus, OpenCudaGpus());
//     Gpu& gpu = gpus->gpu(0);
//     SP_ASSIGN_OR_RETURN(const Buffer data, gpu.Allocate(bytes));      // host and GPU address it
//     SP_ASSIGN_OR_RETURN(const std::unique_ptr<GpuStream> stream, gpu.NewStream());
//     SP_RETURN_IF_ERROR(gpu.Prepare(launch));
//     SP_RETURN_IF_ERROR(stream->Launch(launch));
//     SP_RETURN_IF_ERROR(Synchronize(*stream, std::chrono::seconds(10)));
//
// Buffers of a backend are managed memory: every host algorithm, reference and layer works on them as on any other, and
// kernels work on the same addresses at GPU speed once the pages are there. A page moves when the other side touches it,
// so the first kernel after the host has filled a buffer pays for the way; warm-up iterations do that here. Rejected:
// device memory behind explicit copies, which every host algorithm would have to know of.
//
// Errors: kUnavailable for the driver and the device ("no CUDA driver"), kOutOfMemory, kUnsupported for what this GPU
// cannot do, kInternal for what should not happen; always one sentence that names the GPU.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_GPU_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_GPU_H_

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "collectives/backend/cuda/kernels/primitive.h"
#include "collectives/backend/cuda/kernels/world.h"
#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"
#include "reference/status.h"

namespace shardproof::cuda {

struct GpuInfo {
  std::string name;
  // Which of the host's it is, whatever its number in this process: by its UUID, or that of the partition (MIG).
  std::string identity;
  int major = 0, minor = 0;  // Compute capability.
  size_t memory_bytes = 0;
  int multiprocessors = 0;
  bool cooperative_launch = false;
  // Memory that host and GPU may use at the same time (concurrentManagedAccess).
  bool managed_memory = false;
  // The threads of a block that collective kernels are launched with.
  int block_threads = 1;
};

// A collective kernel on one GPU: all ranks of that GPU in one cooperative launch.
struct CollectiveLaunch {
  Primitive primitive = Primitive::kBarrier;
  DType dtype = DType::kF32;
  ReduceOp op = ReduceOp::kSum;
  World world = {};
  CollectiveArgs args = {};
  Residents residents = {};
  int ranks = 1;   // How many of `residents` there are.
  int blocks = 1;  // Of each rank.
  int threads = 1;
};

class FiberThread;

// A kernel that knows nothing of ranks, of a layer or of attention: in both languages, and with its parameters.
struct GridLaunch {
  std::string name;
  const void* kernel =
      nullptr;  // Its entry point for CUDA; null: not compiled.
  // Its body for a thread of an emulated GPU.
  void (*emulated)(FiberThread& thread, void* const* parameters) = nullptr;
  int blocks = 1;
  int threads = 1;
  int shared_bytes = 0;  // Of dynamic shared memory on a GPU,
  int fiber_bytes =
      0;  // and all that the threads of a block share on an emulated one.
  // Addresses of the kernel's parameters, of exactly its types. Set by SetParameters.
  std::vector<void*> parameters;
  std::shared_ptr<void> held;
};

// Keeps copies.
template <class... Parameters>
void SetParameters(GridLaunch& launch, Parameters... parameters) {
  auto held = std::make_shared<std::tuple<Parameters...>>(parameters...);
  launch.parameters = std::apply(
      [](auto&... each) { return std::vector<void*>{&each...}; }, *held);
  launch.held = std::move(held);
}

class GpuEvent {
 public:
  virtual ~GpuEvent() = default;
};

// An in-order queue of work on one GPU. Used by one thread at a time.
class GpuStream {
 public:
  virtual ~GpuStream() = default;
  // What a library is given as a cudaStream_t; emulated: an EmulatedStreamHandle*.
  virtual void* handle() = 0;
  // `launch` must have been prepared. Returns at once.
  virtual Status Launch(const CollectiveLaunch& launch) = 0;
  // kUnsupported for a kernel that there is not here. Returns at once.
  virtual Status Launch(const GridLaunch& launch) = 0;
  // Between any two kinds of memory. That of the host stays until the stream is done.
  virtual Status Copy(void* to, const void* from, size_t bytes) = 0;
  virtual Status Record(GpuEvent& event) = 0;
  // What is queued after this starts when `event`, of any GPU, is done.
  virtual Status Wait(const GpuEvent& event) = 0;
  // Whether all that was queued is done, or the first error of it.
  virtual StatusOr<bool> Done() = 0;
};

class Gpu {
 public:
  virtual ~Gpu() = default;
  virtual const GpuInfo& info() const = 0;

  // Makes this the calling thread's current GPU, for libraries that go by that.
  virtual Status Use() = 0;
  // Makes the memory of GPU `peer` addressable by kernels of this one. kUnsupported where it cannot be.
  virtual Status EnablePeer(int peer) = 0;

  // Managed memory that prefers this GPU and that the host and every GPU may address.
  virtual StatusOr<Buffer> Allocate(size_t bytes) = 0;
  // Memory of this GPU alone, zeroed: for flags and staging. The host cannot address it, peers can.
  virtual StatusOr<Buffer> AllocateFlags(size_t bytes) = 0;
  // Memory of the host, zeroed, that every GPU may address while the host does.
  virtual StatusOr<Buffer> AllocateReports(size_t bytes) = 0;

  virtual StatusOr<std::unique_ptr<GpuStream>> NewStream() = 0;
  virtual StatusOr<std::unique_ptr<GpuEvent>> NewEvent() = 0;
  // Between two recorded events that are done.
  virtual StatusOr<double> Microseconds(const GpuEvent& from,
                                        const GpuEvent& to) = 0;

  // Everything of a launch that can be refused or that may wait for the GPU: kUnsupported for a kernel that there is
  // not, or for more blocks than the GPU holds at a time. A kernel of one GPU may then wait for that of another without
  // anything between the two launches that waits for the first.
  virtual Status Prepare(const CollectiveLaunch& launch) = 0;
};

// All GPUs that this process sees.
class GpuSystem {
 public:
  GpuSystem() = default;
  virtual ~GpuSystem() = default;
  GpuSystem(const GpuSystem&) = delete;
  GpuSystem& operator=(const GpuSystem&) = delete;

  // Held while the kernels of one collective are launched on all their GPUs, and while memory is allocated and freed: a
  // cudaFree between two of the launches waits for the kernel of the first, which waits for that of the second, which
  // waits for the driver.
  const std::shared_ptr<std::mutex>& launching() const { return launching_; }

  virtual int count() const = 0;
  virtual Gpu& gpu(int index) = 0;
  virtual bool emulated() const = 0;
  // "CUDA driver 13.0, runtime 13.0"
  virtual std::string Describe() const = 0;
  // Whether kernels can address what lies at `data`: memory of Allocate does, that of malloc does not.
  virtual bool Addresses(const void* data) const = 0;

 private:
  const std::shared_ptr<std::mutex> launching_ = std::make_shared<std::mutex>();
};

// "GPU 1 (NVIDIA H100 80GB HBM3)"
std::string NameOf(GpuSystem& gpus, int gpu);

// What a driver that supports CUDA `driver` (0: there is none) means for a program of CUDA `runtime`, both coded as
// 1000 major + 10 minor, where it reports `count` GPUs: ok or kUnavailable.
Status CheckDriver(int driver, int runtime, int count);
// 13000 -> "13.0"
std::string CudaVersionText(int version);

// Returns once the stream is done. kTimeout after `timeout`, and an error of `health`, which is asked now and then, at
// once.
Status Synchronize(GpuStream& stream, std::chrono::milliseconds timeout,
                   const std::function<Status()>& health = nullptr);

// Ok, or why the world of a rank was aborted; any thread may ask. Null: nobody knows.
using WorldHealth = std::function<Status()>;

// How long launches are waited for: all together, and from the time on when their world is known to be aborted. Nothing can
// tell a kernel of that, and a grace is more than one takes that works.
struct WaitLimits {
  std::chrono::milliseconds timeout;
  std::chrono::milliseconds grace = std::chrono::seconds(5);
};
struct Waited {
  Status
      status;  // The error of the launches: of the GPU, kTimeout, or that of the world.
  Status
      unended;  // Ok: they have ended. Else the kTimeout with which they were given up; they may still write.
};
Waited AwaitLaunches(GpuStream& stream, const WaitLimits& limits,
                     const WorldHealth& health);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_GPU_H_
