// A function of the host's as launches on a GPU: what the GPU cannot address
// is staged, and results can be read by the host once Finish has returned.
//
//     GpuLanes lanes({.gpus = gpus, .gpu = 0});                // kept
//     GpuCall call(lanes);                                     // one call
//     const void* const in = call.In(x, n * 4);
//     void* const out = call.Out(y, n * 4);                    // y may be x
//     call.Launch(launch);               // with `in` and `out` as parameters
//     return call.Finish();
//
// Memory of GpuSystem's Allocate is used where it is. Other memory (tensors of
// the host, vectors, single numbers) is copied into managed memory before the
// first launch and, where it is written, back after the last: twice its bytes,
// by the calling thread. Staged operands begin at multiples of 64 bytes.
//
// A lane is a stream and the scratch that calls on it stage in, which stays
// with it. Each call under way has one, so several threads may call at once.
//
// A launch that does not end within the timeout may still write: its lane is
// kept aside until the lanes go, and every later call fails at once with the
// same error. Nothing can tell a kernel that its world was aborted: once the
// world's health says so, a launch gets `grace` instead of what is left of the
// timeout, which is more than a kernel takes that works.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_DEVICE_GPU_CALL_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_DEVICE_GPU_CALL_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "collectives/backend/cuda/device/gpu.h"
#include "collectives/device.h"
#include "layers/kernels/cuda/launch.h"
#include "reference/status.h"

namespace shardproof::cuda {

struct GpuLanesOptions {
  std::shared_ptr<GpuSystem> gpus;
  int gpu = 0;
  // Of all launches of one call together,
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
  // and from the time on when the world is known to be aborted.
  std::chrono::milliseconds grace = std::chrono::seconds(5);
};

// Managed memory in which pieces are laid out one after the other.
class Scratch {
 public:
  // `bytes`, at a multiple of 64; valid until Reset. kOutOfMemory.
  StatusOr<std::byte*> Take(Gpu& gpu, int64_t bytes);
  // All of it is free again, and the largest chunk is kept for the next call.
  void Reset();

 private:
  std::vector<Buffer> chunks_;  // Each larger than the one before.
  size_t used_ = 0;             // Of the last one.
};

// The stream first to go: what is queued on it may use the scratch.
struct GpuLane {
  Scratch scratch;
  std::unique_ptr<GpuStream> stream;
};

class GpuLanes {
 public:
  explicit GpuLanes(GpuLanesOptions options);

  Gpu& gpu() const { return options_.gpus->gpu(options_.gpu); }
  // A fiber for each thread is slow, and every kernel is right with any grid:
  // an emulated GPU gets at most 2 blocks of 64 threads, which is two warps, so
  // that reductions cross them.
  LaunchShape Limited(LaunchShape shape) const;

  // Since these were made.
  int64_t launches() const { return launches_.load(); }
  int64_t staged_bytes() const { return staged_bytes_.load(); }

 private:
  friend class GpuCall;
  StatusOr<std::unique_ptr<GpuLane>> Take();
  void GiveBack(std::unique_ptr<GpuLane> lane);
  // Of a launch that has not ended.
  void Abandon(std::unique_ptr<GpuLane> lane, const Status& why);

  const GpuLanesOptions options_;
  std::atomic<int64_t> launches_{0}, staged_bytes_{0};
  std::mutex mutex_;
  // Guarded by mutex_.
  std::vector<std::unique_ptr<GpuLane>> idle_, abandoned_;
  Status health_;
};

// Used by one thread. The first error stays: after it nothing is launched or
// copied back, and operands are null.
class GpuCall {
 public:
  // Waits no longer for the sake of a world that `health` says is aborted.
  explicit GpuCall(GpuLanes& lanes, const WorldHealth* health = nullptr);
  ~GpuCall();
  GpuCall(const GpuCall&) = delete;
  GpuCall& operator=(const GpuCall&) = delete;

  // Where kernels find the `bytes` at `data`. Null, and what is empty, stays as
  // it is. Operands that are the same memory are so for kernels too; those of
  // which one is written overlap in no other way. Of `Out` every byte is
  // written.
  template <class T>
  const T* In(const T* data, int64_t bytes) {
    return static_cast<const T*>(
        Stage(const_cast<void*>(static_cast<const void*>(data)),
              {1, bytes, bytes}, true, false)
            .data);
  }
  template <class T>
  T* Out(T* data, int64_t bytes) {
    return static_cast<T*>(Stage(data, {1, bytes, bytes}, false, true).data);
  }
  template <class T>
  T* InOut(T* data, int64_t bytes) {
    return static_cast<T*>(Stage(data, {1, bytes, bytes}, true, true).data);
  }

  struct Rows {
    int64_t count = 0;
    int64_t bytes = 0;   // Of each,
    int64_t stride = 0;  // and from one to the next.
  };
  struct Staged {
    void* data = nullptr;
    int64_t stride = 0;  // In bytes: staged rows follow one another.
  };
  // Rows with something in between that is not touched.
  Staged InOutRows(void* data, const Rows& rows) {
    return Stage(data, rows, true, true);
  }

  // Memory for this call alone; contents are arbitrary, or zero.
  template <class T>
  T* Make(int64_t count, bool zeros = false) {
    return static_cast<T*>(
        MakeBytes(count * static_cast<int64_t>(sizeof(T)), zeros));
  }

  bool Addresses(const void* data) const;
  void Launch(const GridLaunch& launch);
  // What a library queues: work(stream), whose status counts. `name` is for
  // sentences.
  void Queue(const std::string& name,
             const std::function<Status(GpuStream&)>& work);
  // Waits, copies back and returns the first error: of the GPU, kOutOfMemory,
  // kTimeout, or that of the world. The last that is done with a call.
  Status Finish();

 private:
  struct Piece {
    std::byte* outside;
    std::byte* inside;
    Rows rows;
    bool in, out;
  };
  Staged Stage(void* data, const Rows& rows, bool in, bool out);
  void* MakeBytes(int64_t bytes, bool zeros);
  void CopyIn(const Piece& piece);
  Waited Wait();

  GpuLanes& lanes_;
  const WorldHealth* const health_;
  std::unique_ptr<GpuLane> lane_;
  std::vector<Piece> pieces_;
  Status status_;
  std::string launched_;  // The last kernel; empty: none.
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_DEVICE_GPU_CALL_H_
