#include "collectives/backend/nccl/nccl_backend.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "collectives/backend/nccl/nccl_bootstrap.h"
#include "collectives/backend/nccl/nccl_collectives.h"

namespace shardproof {
namespace {

// The library's own switch for several ranks on one GPU.
bool SeveralRanksEnabled() {
  const char* enabled = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  return enabled != nullptr && std::string_view(enabled) == "1";
}

}  // namespace

NcclBackend::NcclBackend(std::shared_ptr<Backend> inner, cuda::Place place,
                         std::shared_ptr<const NcclShared> shared)
    : GpuBackend(std::move(inner), std::move(place)),
      shared_(std::move(shared)),
      control_(this->inner()) {}

std::shared_ptr<Backend> NcclBackend::Around(std::shared_ptr<Backend> part) {
  return std::make_shared<NcclBackend>(std::move(part), place(), shared_);
}

// The same answer on all ranks, which may be processes with other libraries.
Status NcclBackend::CheckGpus() const {
  SP_ASSIGN_OR_RETURN(const cuda::GpuMates mates,
                      cuda::FindGpuMates(control_, place()));
  if (mates.second < 0) return OkStatus();
  const NcclLibrary& library = *shared_->library;
  const bool here =
      library.Has(NcclFeature::kSeveralRanksOnGpu) && SeveralRanksEnabled();
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> taken,
                      control_.ExchangeControl(here ? "yes" : "no"));
  if (std::ranges::count(taken, "no") == 0) return OkStatus();
  return Unsupported(
      "ranks {} and {} are both on one GPU, and NCCL {} takes one rank on "
      "each: "
      "run with at most {} ranks, or take NCCL 2.30 or newer and set "
      "NCCL_MULTI_RANK_GPU_ENABLE=1",
      mates.first, mates.second, NcclVersionText(library.version()),
      mates.second);
}

Status NcclBackend::Open() {
  Status checked = CheckGpus();
  if (checked.ok()) return OpenHere();
  // What is apart meets by sockets of one machine.
  const bool apart = checked.code() == StatusCode::kUnsupported &&
                     !shared_->rank_command.empty() &&
                     control_.topology().nodes == 1;
  return apart ? OpenApart() : checked;
}

Status NcclBackend::OpenHere() {
  SP_ASSIGN_OR_RETURN(const nccl::UniqueId id,
                      AgreeOnNcclId(control_, shared_->library));
  SP_ASSIGN_OR_RETURN(device_, NcclGpuDevice::Create(gpu()));
  SP_ASSIGN_OR_RETURN(nccl_,
                      NcclCommunicator::Create(shared_->library, id, *device_,
                                               {.rank = rank(),
                                                .ranks = size(),
                                                .timeout = shared_->timeout,
                                                .control = &control_}));
  return OkStatus();
}

Status NcclBackend::OpenApart() {
  cuda::GpuSystem& gpus = *place().gpus;
  StatusOr<std::unique_ptr<NcclRankProcess>> started = NcclRankProcess::Start(
      {.command = shared_->rank_command,
       .setup = {.library = shared_->library->path(),
                 .emulated_gpus = gpus.emulated() ? gpus.count() : 0,
                 .gpu = place().gpu,
                 .rank = rank(),
                 .ranks = size(),
                 .timeout = shared_->timeout},
       .control = &control_});
  // It ended, which has ended the world: this rank knows how.
  if (!started.ok() && !health().ok()) return started.status();
  const auto version = [&]() -> StatusOr<int> {
    if (!started.ok()) return started.status();
    return (*started)->version();
  };
  // Where one has none, all get the reason here.
  SP_ASSIGN_OR_RETURN(
      const nccl::UniqueId id,
      AgreeOnNcclId(control_, version(), [&]() -> StatusOr<nccl::UniqueId> {
        return (*started)->id();
      }));
  SP_RETURN_IF_ERROR((*started)->Join(id));
  apart_ = *std::move(started);
  return OkStatus();
}

// Buffers are of one kind on all ranks, so that all get the same answer.
Status NcclBackend::CheckBuffers(const NativeRequest& request) const {
  for (const void* data :
       {request.send, static_cast<const void*>(request.recv)}) {
    if (data == nullptr || place().gpus->Addresses(data)) continue;
    return Unsupported(
        "rank {} gave ordinary memory, which a GPU cannot address: NCCL works "
        "on what the communicator allocates",
        rank());
  }
  return OkStatus();
}

Status NcclBackend::Native(const NativeRequest& request) {
  SP_RETURN_IF_ERROR(health());
  if (!opened_) {
    opened_ = true;
    refused_ = Open();
  }
  SP_RETURN_IF_ERROR(refused_);
  SP_RETURN_IF_ERROR(CheckBuffers(request));
  if (apart_ != nullptr) return apart_->Run(request);
  SP_RETURN_IF_ERROR(gpu().Use());
  return RunNcclNative(*nccl_, request, device_->stream());
}

}  // namespace shardproof
