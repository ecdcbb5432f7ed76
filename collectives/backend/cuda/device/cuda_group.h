// What the ranks of one communicator of the cuda backend share: the flags and staging memory of their kernels, a stream
// for each of them, and the meeting at which one of them launches for all.
//
// A collective: every rank brings its request. The last that comes checks them together, and then, for each GPU,
//
//     records an event on the stream of each rank of that GPU; makes the stream of the first of them wait for all;
//     launches one cooperative grid for all of them there; records an event, and makes the other streams wait for it.
//
// Then every rank waits for its own stream, and looks at the words in which kernels report failures. Pointers have to be
// exchanged anyway, since a kernel loads from and stores to all ranks; so the meeting costs nothing that one rank on each
// GPU would do without.
//
// Everything that can be refused is refused before anything is queued, with one answer for all ranks. Memory and streams
// come with the first collective: most communicators that are split never ask for one.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_CUDA_GROUP_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_CUDA_GROUP_H_

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "collectives/backend.h"
#include "collectives/backend/cuda/device/gpu.h"
#include "collectives/backend/cuda/device/kernel_request.h"
#include "collectives/backend/cuda/kernels/world.h"
#include "collectives/device.h"
#include "reference/status.h"

namespace shardproof::cuda {

struct CudaTuning {
  // all_reduce takes the one-shot kernel up to so many bytes. A guess: not measured on a GPU yet.
  int64_t one_shot_bytes = 256 << 10;
  // Of a slot of staging memory, of which a rank has two for each rank: a multiple of 16.
  int64_t slot_bytes = 256 << 10;
  // The most of one rank: enough to fill the links, and room for other kernels.
  int blocks = 32;
  // How long a kernel waits for a rank, and how long the host waits for a kernel.
  std::chrono::milliseconds patience = std::chrono::seconds(20);
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
};

class CudaGroup {
 public:
  CudaGroup(std::shared_ptr<GpuSystem> gpus, const CudaTuning& tuning,
            int ranks);
  // Waits for kernels that still run.
  ~CudaGroup();
  CudaGroup(const CudaGroup&) = delete;
  CudaGroup& operator=(const CudaGroup&) = delete;

  // Called by every rank, from its own thread; `gpu` is where the rank lives. `health` is asked while it waits. Errors
  // besides those of ToKernelRequest: what gpu.h says, from Prepare and Launch; kTimeout that names the ranks that a
  // kernel missed. After a kernel failed the group answers with that failure.
  Status Run(int rank, int gpu, const NativeRequest& request,
             const std::function<Status()>& health);

 private:
  // One collective. There are two, in turn: a rank may begin the next one while others still read the answer of this.
  struct Meeting {
    std::vector<NativeRequest> requests;
    int arrived = 0;
    Status answer;
    std::atomic<uint64_t> over{0};  // The number of the last that is.
  };
  struct Member {
    int gpu = 0;
    uint64_t calls = 0;  // The rank's own.
    // The last collective of which its stream has nothing left.
    std::atomic<uint64_t> finished{0};
    Buffer page, staging;
    std::unique_ptr<GpuStream> stream;
    std::unique_ptr<GpuEvent> event;
  };

  Status Launch(const Meeting& meeting);
  Status LaunchOn(int gpu, const CollectiveLaunch& launch);
  // The launch of the ranks that live on `gpu`.
  CollectiveLaunch LaunchFor(int gpu, const KernelRequest& request) const;
  Status MakeWorld();
  Status MakeMember(int rank);
  Status MakeSignals(Member& member);
  std::vector<int> GpusInUse() const;
  int RanksOn(int gpu) const;
  Status Failed(const NativeRequest& request) const;
  void AwaitOthers(uint64_t call, const std::function<Status()>& health) const;
  std::string Whose(int rank) const;

  const std::shared_ptr<GpuSystem> gpus_;
  const CudaTuning tuning_;
  std::vector<Member> members_;
  std::array<Meeting, 2> meetings_;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_; set before the first launch.
  bool made_ = false;
  Status failed_;
  std::vector<int> used_;  // The GPUs, in order.
  int blocks_ = 1, threads_ = 1;
  World world_;
  Buffer reports_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_CUDA_GROUP_H_
