// A backend whose buffers are managed memory of GPUs, around one of the host: what the cuda and the nccl backend have in
// common. All but Allocate, Native and the name is the other backend's, so that every host algorithm and every layer runs
// unchanged; between processes those that need no shared memory.
//
// A rank stays on its GPU in every group that is split from its world.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_GPU_BACKEND_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_GPU_BACKEND_H_

#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "collectives/backend.h"
#include "collectives/backend/cuda/device/gpu.h"
#include "collectives/communicator.h"
#include "collectives/device.h"
#include "reference/status.h"

namespace shardproof::cuda {

// After an abort ranks leave operations at any point, while peers may still use their buffers. So what is freed then is
// kept here until the world goes.
class KeptBuffers {
 public:
  void Keep(Buffer buffer) {
    const std::lock_guard<std::mutex> lock(mutex_);
    buffers_.push_back(std::move(buffer));
  }

 private:
  std::mutex mutex_;
  std::vector<Buffer> buffers_;
};

// Where a rank lives.
struct Place {
  std::shared_ptr<GpuSystem> gpus;
  int gpu = 0;
  int machine = 0;  // The node of the rank in the world that it is from.
  std::shared_ptr<KeptBuffers> kept = std::make_shared<KeptBuffers>();
};

// Two ranks of `comm` that are on the same GPU, the second as low as can be; `second` is -1 where each has its own.
// Collective, with the same answer on all ranks: each gives its own place, and may see other GPUs by the same number.
struct GpuMates {
  int first = -1, second = -1;
};
StatusOr<GpuMates> FindGpuMates(const Communicator& comm, const Place& place);
// The topology of ranks that share no memory: each is a node.
Topology Apart(int ranks);

class GpuBackend : public Backend {
 public:
  GpuBackend(std::shared_ptr<Backend> inner, Place place)
      : inner_(std::move(inner)),
        place_(std::move(place)),
        topology_(inner_->SharesAddressSpace() ? inner_->topology()
                                               : Apart(inner_->size())) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  // Managed memory is of one process: between processes each rank is a node, and
  // there is no board.
  const Topology& topology() const override { return topology_; }
  StatusOr<std::shared_ptr<Backend>> Split(int color, int key) override;
  StatusOr<Buffer> Allocate(size_t bytes) override;
  bool SharesAddressSpace() const override {
    return inner_->SharesAddressSpace();
  }
  NodeBoard* board() override {
    return inner_->SharesAddressSpace() ? inner_->board() : nullptr;
  }

  StatusOr<Transfer> StartSend(const void* data, size_t bytes, int destination,
                               int tag) override {
    return inner_->StartSend(data, bytes, destination, tag);
  }
  StatusOr<Transfer> StartReceive(void* data, size_t bytes, int source,
                                  int tag) override {
    return inner_->StartReceive(data, bytes, source, tag);
  }
  StatusOr<bool> Test(Transfer& transfer) override {
    return inner_->Test(transfer);
  }
  Status Wait(Transfer& transfer) override { return inner_->Wait(transfer); }

  void Abort(std::string_view reason) override { inner_->Abort(reason); }
  Status health() const override { return inner_->health(); }
  const Place& place() const { return place_; }
  const OpRecord* Progress(int r) const override { return inner_->Progress(r); }
  OpRecord* MyProgress() override { return inner_->MyProgress(); }

 protected:
  const std::shared_ptr<Backend>& inner() const { return inner_; }
  Gpu& gpu() const { return place_.gpus->gpu(place_.gpu); }
  // The same kind of backend around a part of `inner()`.
  virtual std::shared_ptr<Backend> Around(std::shared_ptr<Backend> part) = 0;

 private:
  const std::shared_ptr<Backend> inner_;
  const Place place_;
  const Topology topology_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_GPU_BACKEND_H_
