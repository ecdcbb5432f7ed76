// A GPU that does what it is told and keeps what it was told, so that the launches of a layer can be made again by who
// measures them.
//
//     RecordingGpus recording(gpus, stream);
//     ... a layer computes on GPU 0 of `recording` ...
//     for (const GridLaunch& launch : recording.launches()) SP_RETURN_IF_ERROR(stream.Launch(launch));
//
// All its streams are `stream`, used by one thread at a time. Memory that was allocated lives as long as it does, also what
// its owner has given back: launches point there.
#ifndef SHARDPROOF_TOOLS_CLI_ROOFLINE_RECORDING_GPU_H_
#define SHARDPROOF_TOOLS_CLI_ROOFLINE_RECORDING_GPU_H_

#include <memory>
#include <string>
#include <vector>

#include "collectives/backend/cuda/device/gpu.h"

namespace shardproof {

class RecordingGpus final : public cuda::GpuSystem {
 public:
  // `stream` is of a GPU of `gpus`, and outlives it.
  RecordingGpus(std::shared_ptr<cuda::GpuSystem> gpus, cuda::GpuStream& stream);
  ~RecordingGpus() override;

  // All so far, in order.
  const std::vector<cuda::GridLaunch>& launches() const { return launches_; }

  int count() const override { return gpus_->count(); }
  cuda::Gpu& gpu(int index) override;
  bool emulated() const override { return gpus_->emulated(); }
  std::string Describe() const override { return gpus_->Describe(); }
  bool Addresses(const void* data) const override {
    return gpus_->Addresses(data);
  }

 private:
  class RecordingGpu;
  class RecordingStream;

  const std::shared_ptr<cuda::GpuSystem> gpus_;
  cuda::GpuStream& stream_;
  std::vector<std::unique_ptr<RecordingGpu>> each_;
  std::vector<std::shared_ptr<Buffer>> kept_;
  std::vector<cuda::GridLaunch> launches_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_ROOFLINE_RECORDING_GPU_H_
