#include "collectives/backend/nccl/process/rank_server.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "collectives/backend/nccl/nccl_collectives.h"
#include "collectives/backend/nccl/nccl_communicator.h"
#include "collectives/backend/nccl/nccl_gpu_device.h"
#include "collectives/backend/nccl/nccl_library.h"
#include "collectives/backend/nccl/process/rank_protocol.h"
#include "collectives/backend/nccl/process/rank_socket.h"
#include "collectives/backend/nccl/process/shared_block.h"

namespace shardproof {
namespace {

// A rank's thread may be bound to a core, and this process inherits that: it gets
// the cores of the main thread.
void TakeCoresOfParent() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(getppid(), sizeof(cores), &cores) == 0) {
    static_cast<void>(sched_setaffinity(0, sizeof(cores), &cores));
  }
}

class RankServer {
 public:
  RankServer(const OpenGpusOfRank& open, SharedBlock memory)
      : open_(open), memory_(std::move(memory)) {}

  RankAnswer Answer(const RankMessage& message) {
    RankAnswer answer;
    switch (message.call) {
      case RankCall::kSetup:
        answer.status = SetUp(message.setup, answer);
        break;
      case RankCall::kJoin:
        answer.status = Join(message.id);
        answer.lost = nccl_ == nullptr;
        break;
      case RankCall::kRun:
        answer.status = Run(message);
        answer.lost = nccl_ == nullptr || !nccl_->health().ok();
        break;
      case RankCall::kClose:
        break;
    }
    return answer;
  }

 private:
  Status SetUp(const RankSetup& setup, RankAnswer& answer) {
    setup_ = setup;
    SP_ASSIGN_OR_RETURN(library_, NcclLibrary::Load(setup.library));
    answer.version = library_->version();
    SP_ASSIGN_OR_RETURN(gpus_, open_(setup.emulated_gpus));
    if (setup.gpu >= gpus_->count()) {
      return Unavailable("its process finds {} GPUs, and should use GPU {}",
                         gpus_->count(), setup.gpu);
    }
    SP_ASSIGN_OR_RETURN(device_, NcclGpuDevice::Create(gpu()));
    // By the process that stays: the library listens there for the other ranks.
    if (setup.rank == 0) {
      SP_ASSIGN_OR_RETURN(answer.id, library_->MakeUniqueId());
    }
    return OkStatus();
  }

  Status Join(const nccl::UniqueId& id) {
    if (device_ == nullptr) return Internal("a rank that is not set up joins");
    SP_ASSIGN_OR_RETURN(nccl_,
                        NcclCommunicator::Create(library_, id, *device_,
                                                 {.rank = setup_.rank,
                                                  .ranks = setup_.ranks,
                                                  .timeout = setup_.timeout}));
    return OkStatus();
  }

  Status Run(const RankMessage& message) {
    if (nccl_ == nullptr) return Internal("a rank that has not joined runs");
    const Staging& staging = message.staging;
    SP_RETURN_IF_ERROR(memory_.Hold(staging.bytes));
    SP_RETURN_IF_ERROR(HoldOnDevice(staging.bytes));
    std::byte* const shared = memory_.data();
    std::byte* const data = buffer_.data();
    std::memcpy(data, shared, staging.bytes);
    NativeRequest request = message.request;
    request.send = staging.Send(data);
    request.recv = staging.Recv(data);
    SP_RETURN_IF_ERROR(RunNcclNative(*nccl_, request, device_->stream()));
    if (!staging.RestIsEqual(shared, data)) {
      return DataLoss(
          "{} of {} {} on rank {} of {}: the library wrote beside what it "
          "receives",
          request.primitive, request.count, Name(request.dtype), setup_.rank,
          setup_.ranks);
    }
    std::memcpy(shared + staging.returned_at, data + staging.returned_at,
                staging.returned_bytes);
    return OkStatus();
  }

  Status HoldOnDevice(size_t bytes) {
    if (bytes <= buffer_.bytes()) return OkStatus();
    buffer_ = Buffer();  // First: both may not fit.
    SP_ASSIGN_OR_RETURN(buffer_, gpu().Allocate(memory_.bytes()));
    return OkStatus();
  }

  cuda::Gpu& gpu() { return gpus_->gpu(setup_.gpu); }

  const OpenGpusOfRank& open_;
  SharedBlock memory_;
  RankSetup setup_;
  std::shared_ptr<const NcclLibrary> library_;
  std::shared_ptr<cuda::GpuSystem> gpus_;
  Buffer buffer_;
  std::unique_ptr<NcclGpuDevice> device_;
  std::unique_ptr<NcclCommunicator> nccl_;  // Goes first.
};

}  // namespace

Status ServeNcclRank(const OpenGpusOfRank& open) {
  SP_ASSIGN_OR_RETURN(const RankSocket socket,
                      RankSocket::Adopt(kRankSocketFile));
  TakeCoresOfParent();
  std::thread([] {
    RankSocket::AwaitEndOf(kRankSocketFile);
    _exit(0);  // Without a word to the library, which may be what hangs.
  }).detach();
  RankServer server(open, SharedBlock::Adopt(kRankMemoryFile));
  while (true) {
    const std::optional<MessageBytes> received = socket.Receive();
    if (!received) return OkStatus();
    SP_ASSIGN_OR_RETURN(const auto message, DecodeMessage(*received));
    if (message->call == RankCall::kClose) return OkStatus();
    if (!socket.Send(Encode(server.Answer(*message)))) return OkStatus();
  }
}

}  // namespace shardproof
