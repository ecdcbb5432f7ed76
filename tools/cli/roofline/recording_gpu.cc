#include "tools/cli/roofline/recording_gpu.h"

#include <utility>

namespace shardproof {

class RecordingGpus::RecordingStream final : public cuda::GpuStream {
 public:
  explicit RecordingStream(RecordingGpus& all) : all_(all) {}

  void* handle() override { return all_.stream_.handle(); }
  Status Launch(const cuda::CollectiveLaunch& launch) override {
    return all_.stream_.Launch(launch);
  }
  Status Launch(const cuda::GridLaunch& launch) override {
    SP_RETURN_IF_ERROR(all_.stream_.Launch(launch));
    all_.launches_.push_back(launch);
    return OkStatus();
  }
  Status Copy(void* to, const void* from, size_t bytes) override {
    return all_.stream_.Copy(to, from, bytes);
  }
  Status Record(cuda::GpuEvent& event) override {
    return all_.stream_.Record(event);
  }
  Status Wait(const cuda::GpuEvent& event) override {
    return all_.stream_.Wait(event);
  }
  StatusOr<bool> Done() override { return all_.stream_.Done(); }

 private:
  RecordingGpus& all_;
};

class RecordingGpus::RecordingGpu final : public cuda::Gpu {
 public:
  RecordingGpu(RecordingGpus& all, cuda::Gpu& gpu) : all_(all), gpu_(gpu) {}

  const cuda::GpuInfo& info() const override { return gpu_.info(); }
  Status Use() override { return gpu_.Use(); }
  Status EnablePeer(int peer) override { return gpu_.EnablePeer(peer); }
  StatusOr<Buffer> Allocate(size_t bytes) override {
    SP_ASSIGN_OR_RETURN(Buffer buffer, gpu_.Allocate(bytes));
    all_.kept_.push_back(std::make_shared<Buffer>(std::move(buffer)));
    const std::shared_ptr<Buffer>& kept = all_.kept_.back();
    return Buffer(kept, kept->data(), kept->bytes());
  }
  StatusOr<Buffer> AllocateFlags(size_t bytes) override {
    return gpu_.AllocateFlags(bytes);
  }
  StatusOr<Buffer> AllocateReports(size_t bytes) override {
    return gpu_.AllocateReports(bytes);
  }
  StatusOr<std::unique_ptr<cuda::GpuStream>> NewStream() override {
    return std::unique_ptr<cuda::GpuStream>(
        std::make_unique<RecordingStream>(all_));
  }
  StatusOr<std::unique_ptr<cuda::GpuEvent>> NewEvent() override {
    return gpu_.NewEvent();
  }
  StatusOr<double> Microseconds(const cuda::GpuEvent& from,
                                const cuda::GpuEvent& to) override {
    return gpu_.Microseconds(from, to);
  }
  Status Prepare(const cuda::CollectiveLaunch& launch) override {
    return gpu_.Prepare(launch);
  }

 private:
  RecordingGpus& all_;
  cuda::Gpu& gpu_;
};

RecordingGpus::RecordingGpus(std::shared_ptr<cuda::GpuSystem> gpus,
                             cuda::GpuStream& stream)
    : gpus_(std::move(gpus)), stream_(stream) {
  for (int i = 0; i < gpus_->count(); ++i) {
    each_.push_back(std::make_unique<RecordingGpu>(*this, gpus_->gpu(i)));
  }
}
RecordingGpus::~RecordingGpus() = default;

cuda::Gpu& RecordingGpus::gpu(int index) {
  return *each_[static_cast<size_t>(index)];
}

}  // namespace shardproof
