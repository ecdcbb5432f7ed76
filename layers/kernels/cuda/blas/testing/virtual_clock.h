// Emulated GPUs whose events tell the time of a clock that the work itself puts forward: which of two things is faster is
// then what a test says, and not what the machine is busy with.
//
//     const auto gpus = std::make_shared<VirtualClockGpus>(emulated, controls.seen.clock);
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_VIRTUAL_CLOCK_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_VIRTUAL_CLOCK_H_

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "collectives/backend/cuda/device/gpu.h"

namespace shardproof::testing {

class VirtualClockEvent final : public cuda::GpuEvent {
 public:
  double microseconds = 0;
};

class VirtualClockStream final : public cuda::GpuStream {
 public:
  VirtualClockStream(std::unique_ptr<cuda::GpuStream> inner,
                     const std::atomic<double>& clock)
      : inner_(std::move(inner)), clock_(clock) {}

  void* handle() override { return inner_->handle(); }
  Status Launch(const cuda::CollectiveLaunch& launch) override {
    return inner_->Launch(launch);
  }
  Status Launch(const cuda::GridLaunch& launch) override {
    return inner_->Launch(launch);
  }
  Status Copy(void* to, const void* from, size_t bytes) override {
    return inner_->Copy(to, from, bytes);
  }
  Status Record(cuda::GpuEvent& event) override {
    static_assert(sizeof(clock_) == sizeof(double));
    return inner_->Copy(&static_cast<VirtualClockEvent&>(event).microseconds,
                        &clock_, sizeof(double));
  }
  Status Wait(const cuda::GpuEvent& /*event*/) override {
    return Unsupported("to wait for an event of a virtual clock");
  }
  StatusOr<bool> Done() override { return inner_->Done(); }

 private:
  const std::unique_ptr<cuda::GpuStream> inner_;
  const std::atomic<double>& clock_;
};

class VirtualClockGpu final : public cuda::Gpu {
 public:
  VirtualClockGpu(cuda::Gpu& inner, const std::atomic<double>& clock)
      : inner_(inner), clock_(clock) {}

  const cuda::GpuInfo& info() const override { return inner_.info(); }
  Status Use() override { return inner_.Use(); }
  Status EnablePeer(int peer) override { return inner_.EnablePeer(peer); }
  StatusOr<Buffer> Allocate(size_t bytes) override {
    return inner_.Allocate(bytes);
  }
  StatusOr<Buffer> AllocateFlags(size_t bytes) override {
    return inner_.AllocateFlags(bytes);
  }
  StatusOr<Buffer> AllocateReports(size_t bytes) override {
    return inner_.AllocateReports(bytes);
  }
  StatusOr<std::unique_ptr<cuda::GpuStream>> NewStream() override {
    SP_ASSIGN_OR_RETURN(std::unique_ptr<cuda::GpuStream> inner,
                        inner_.NewStream());
    return std::unique_ptr<cuda::GpuStream>(
        std::make_unique<VirtualClockStream>(std::move(inner), clock_));
  }
  StatusOr<std::unique_ptr<cuda::GpuEvent>> NewEvent() override {
    return std::unique_ptr<cuda::GpuEvent>(
        std::make_unique<VirtualClockEvent>());
  }
  StatusOr<double> Microseconds(const cuda::GpuEvent& from,
                                const cuda::GpuEvent& to) override {
    return static_cast<const VirtualClockEvent&>(to).microseconds -
           static_cast<const VirtualClockEvent&>(from).microseconds;
  }
  Status Prepare(const cuda::CollectiveLaunch& launch) override {
    return inner_.Prepare(launch);
  }

 private:
  cuda::Gpu& inner_;
  const std::atomic<double>& clock_;
};

class VirtualClockGpus final : public cuda::GpuSystem {
 public:
  VirtualClockGpus(std::shared_ptr<cuda::GpuSystem> inner,
                   const std::atomic<double>& clock)
      : inner_(std::move(inner)) {
    for (int i = 0; i < inner_->count(); ++i) {
      gpus_.push_back(std::make_unique<VirtualClockGpu>(inner_->gpu(i), clock));
    }
  }

  int count() const override { return inner_->count(); }
  cuda::Gpu& gpu(int index) override {
    return *gpus_[static_cast<size_t>(index)];
  }
  bool emulated() const override { return inner_->emulated(); }
  std::string Describe() const override { return inner_->Describe(); }
  bool Addresses(const void* data) const override {
    return inner_->Addresses(data);
  }

 private:
  const std::shared_ptr<cuda::GpuSystem> inner_;
  std::vector<std::unique_ptr<VirtualClockGpu>> gpus_;
};

}  // namespace shardproof::testing

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_VIRTUAL_CLOCK_H_
