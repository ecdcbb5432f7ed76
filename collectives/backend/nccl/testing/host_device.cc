#include "collectives/backend/nccl/testing/host_device.h"

#include <dlfcn.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "collectives/backend/nccl/nccl_bootstrap.h"

namespace shardproof::testing {
namespace {

StatusOr<nccl::HostApi> Open(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return Unavailable("{}", dlerror());
  nccl::HostApi api;
  const auto find = [&]<class F>(const char* name, F*& function) {
    function = reinterpret_cast<F*>(dlsym(handle, name));
    return function != nullptr;
  };
  if (find("hostNcclStreamCreate", api.stream_create) &&
      find("hostNcclStreamDestroy", api.stream_destroy) &&
      find("hostNcclStreamDone", api.stream_done) &&
      find("hostNcclPlant", api.plant)) {
    return api;
  }
  return Internal("{} is not made of host_nccl.cc", path);
}

}  // namespace

StatusOr<std::unique_ptr<HostDevice>> HostDevice::Create(
    const std::string& path) {
  std::unique_ptr<HostDevice> device(new HostDevice());
  SP_ASSIGN_OR_RETURN(device->api_, Open(path));
  device->stream_ = device->api_.stream_create();
  return device;
}

HostDevice::~HostDevice() {
  if (stream_ != nullptr) api_.stream_destroy(stream_);
}

StatusOr<bool> HostDevice::Done(nccl::Stream stream) {
  return api_.stream_done(stream);
}

PlantedFault::PlantedFault(const std::string& path, const std::string& fault,
                           int rank)
    : api_(Open(path).value()) {
  api_.plant(fault.c_str(), rank);
}

PlantedFault::~PlantedFault() { api_.plant(nullptr, -1); }

StatusOr<HostRank> OpenHostNccl(const Communicator& comm,
                                const std::string& path,
                                std::chrono::milliseconds timeout,
                                bool control) {
  const NcclLibraryHere library = NcclLibrary::Load(path);
  SP_ASSIGN_OR_RETURN(const nccl::UniqueId id, AgreeOnNcclId(comm, library));
  HostRank rank;
  SP_ASSIGN_OR_RETURN(rank.device, HostDevice::Create(path));
  SP_ASSIGN_OR_RETURN(rank.nccl, NcclCommunicator::Create(
                                     *library, id, *rank.device,
                                     {.rank = comm.rank(),
                                      .ranks = comm.size(),
                                      .timeout = timeout,
                                      .control = control ? &comm : nullptr}));
  return rank;
}

}  // namespace shardproof::testing
