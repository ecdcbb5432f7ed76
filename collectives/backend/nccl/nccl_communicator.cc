#include "collectives/backend/nccl/nccl_communicator.h"

#include <fmt/format.h>

#include <ctime>
#include <string>
#include <thread>
#include <utility>

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;

// Looks, then yields, then naps: a library that works needs the core.
class Patience {
 public:
  explicit Patience(std::chrono::milliseconds timeout)
      : deadline_(Clock::now() + timeout) {}
  // False once the time is over.
  bool Pause() {
    ++looks_;
    if (looks_ < kLooks) return true;
    if (Clock::now() >= deadline_) return false;
    if (looks_ < kLooks + kYields) {
      std::this_thread::yield();
    } else {
      const timespec nap{.tv_sec = 0, .tv_nsec = 50'000};
      nanosleep(&nap, nullptr);
    }
    return true;
  }

 private:
  static constexpr int64_t kLooks = 64;
  static constexpr int64_t kYields = 2000;
  const Clock::time_point deadline_;
  int64_t looks_ = 0;
};

}  // namespace

NcclCommunicator::NcclCommunicator(std::shared_ptr<const NcclLibrary> library,
                                   NcclDevice& device,
                                   const NcclCommunicatorOptions& options)
    : library_(std::move(library)), device_(device), options_(options) {}

StatusOr<std::unique_ptr<NcclCommunicator>> NcclCommunicator::Create(
    std::shared_ptr<const NcclLibrary> library, const nccl::UniqueId& id,
    NcclDevice& device, const NcclCommunicatorOptions& options) {
  std::unique_ptr<NcclCommunicator> made(
      new NcclCommunicator(std::move(library), device, options));
  nccl::Config config;
  const NcclCall call{.function = "ncclCommInitRankConfig"};
  // A call that fails may leave a communicator behind, which Settle aborts.
  const nccl::Result result = made->library_->api().comm_init_rank_config(
      &made->comm_, options.ranks, id, options.rank, &config);
  SP_RETURN_IF_ERROR(made->Settle(result, call));
  return made;
}

NcclCommunicator::~NcclCommunicator() {
  if (comm_ == nullptr) return;
  const nccl::Api& api = library_->api();
  // On an error Settle has aborted it, which frees it as well.
  const Status finalized =
      Settle(api.comm_finalize(comm_), {.function = "ncclCommFinalize"});
  if (finalized.ok()) api.comm_destroy(comm_);
}

Status NcclCommunicator::Settle(nccl::Result result, const NcclCall& call) {
  if (!failure_.ok()) return failure_;
  if (result == nccl::Result::kSuccess) return OkStatus();
  if (result != nccl::Result::kInProgress) {
    return Fail(library_->StatusOf(result, Text(call), comm_));
  }
  return WaitUntil(call, [](nccl::Result state) -> StatusOr<bool> {
    return state == nccl::Result::kSuccess;
  });
}

Status NcclCommunicator::Finish(nccl::Stream stream, const NcclCall& call) {
  if (!failure_.ok()) return failure_;
  return WaitUntil(
      call, [&](nccl::Result /*state*/) { return device_.Done(stream); });
}

Status NcclCommunicator::WaitUntil(
    const NcclCall& call,
    const std::function<StatusOr<bool>(nccl::Result)>& done) {
  const nccl::Api& api = library_->api();
  Patience patience(options_.timeout);
  do {
    nccl::Result state = nccl::Result::kSuccess;
    const nccl::Result asked = api.comm_get_async_error(comm_, &state);
    if (asked != nccl::Result::kSuccess) {
      return Fail(library_->StatusOf(asked, "ncclCommGetAsyncError", comm_));
    }
    // An error ends the wait at once: what is on the stream may never end.
    Status failed = library_->StatusOf(state, Text(call), comm_);
    if (!failed.ok()) return Fail(std::move(failed));
    StatusOr<bool> finished = done(state);
    if (!finished.ok()) {
      return Fail(std::move(finished).status().WithContext(Text(call)));
    }
    if (*finished) return OkStatus();
    if (options_.control != nullptr) {
      Status health = options_.control->health();
      if (!health.ok()) {
        return Fail(health.WithContext(
            fmt::format("{}, ended by another rank", Text(call))));
      }
    }
  } while (patience.Pause());
  return Fail(Expired(call));
}

Status NcclCommunicator::Fail(Status why) {
  failure_ = std::move(why);
  if (comm_ != nullptr) {
    // Its result says nothing that would help, and the handle is gone after it.
    (void)library_->api().comm_abort(comm_);
    comm_ = nullptr;
  }
  if (options_.control != nullptr && options_.control->health().ok()) {
    options_.control->Abort(failure_.message());
  }
  return failure_;
}

Status NcclCommunicator::Expired(const NcclCall& call) const {
  const std::string last = library_->LastError(comm_);
  return Timeout(
      "{} did not end within {} ms, and the communicator was aborted: {}",
      Text(call), options_.timeout.count(),
      last.empty() ? "the library reports no error; some rank never came"
                   : fmt::format("the library's last error is \"{}\"", last));
}

std::string NcclCommunicator::Text(const NcclCall& call) const {
  const std::string who =
      fmt::format("on rank {} of {}", options_.rank, options_.ranks);
  if (call.primitive.empty()) return fmt::format("{} {}", call.function, who);
  return fmt::format("{} by {} of {} {} {}", call.primitive, call.function,
                     call.count, Name(call.dtype), who);
}

}  // namespace shardproof
