// The device of the library for tests, and one rank's way to a communicator of
// it.
//
//     SP_ASSIGN_OR_RETURN(auto rank, OpenHostNccl(comm, kHostNccl));
//     RunNcclNative(*rank.nccl, request, rank.device->stream());
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_DEVICE_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_DEVICE_H_

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include "collectives/backend/nccl/nccl_communicator.h"
#include "collectives/backend/nccl/testing/host_nccl.h"
#include "collectives/communicator.h"
#include "reference/status.h"

namespace shardproof::testing {

// Where the tests find them: libraries of testing/BUILD.
inline constexpr char kHostNccl[] =
    "collectives/backend/nccl/testing/libnccl_host.so";
inline constexpr char kHostNccl219[] =
    "collectives/backend/nccl/testing/libnccl_host_2_19.so";
inline constexpr char kHostNccl213[] =
    "collectives/backend/nccl/testing/libnccl_host_2_13.so";
inline constexpr char kHostNccl230[] =
    "collectives/backend/nccl/testing/libnccl_host_2_30.so";
inline constexpr char kHostNcclForGpus[] =
    "collectives/backend/nccl/testing/libnccl_host_for_gpus.so";
inline constexpr char kHostNcclWithoutAllGather[] =
    "collectives/backend/nccl/testing/libnccl_host_without_all_gather.so";

class HostDevice final : public NcclDevice {
 public:
  static StatusOr<std::unique_ptr<HostDevice>> Create(const std::string& path);
  ~HostDevice() override;

  StatusOr<bool> Done(nccl::Stream stream) override;
  void* scratch() override { return scratch_.data(); }
  nccl::Stream stream() const { return stream_; }

 private:
  HostDevice() = default;
  nccl::HostApi api_;
  nccl::Stream stream_ = nullptr;
  alignas(64) std::array<std::byte, 64> scratch_ = {};
};

// Plants a fault of host_nccl.h into the library at `path` as long as it lives.
class PlantedFault {
 public:
  PlantedFault(const std::string& path, const std::string& fault, int rank);
  ~PlantedFault();
  PlantedFault(const PlantedFault&) = delete;
  PlantedFault& operator=(const PlantedFault&) = delete;

 private:
  nccl::HostApi api_;
};

struct HostRank {
  std::unique_ptr<HostDevice> device;
  std::unique_ptr<NcclCommunicator> nccl;  // Goes first.
};

// Collective over `comm`: loads, agrees on an id, and makes the communicator.
// Without control, `comm` serves for the id only.
StatusOr<HostRank> OpenHostNccl(
    const Communicator& comm, const std::string& path,
    std::chrono::milliseconds timeout = std::chrono::seconds(60),
    bool control = true);

}  // namespace shardproof::testing

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_DEVICE_H_
