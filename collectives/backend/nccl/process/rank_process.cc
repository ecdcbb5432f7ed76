#include "collectives/backend/nccl/process/rank_process.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <optional>
#include <utility>

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;

// How soon an abort of the world is noticed; an answer is at once.
constexpr std::chrono::milliseconds kLook{5};
// How long a process that has closed its files may take to end.
constexpr std::chrono::seconds kEnding{5};

// Ranks on one GPU must be of different hosts, and reach one another by sockets
// of this machine. The rest stays as a person has set it.
std::vector<std::string> EnvironmentOfRank(int rank) {
  constexpr std::array<std::pair<const char*, const char*>, 2> kDefaults = {{
      {"NCCL_MAX_CTAS", "1"},
      {"NCCL_RAS_ENABLE", "0"},
  }};
  std::vector<std::string> added = {
      fmt::format("NCCL_HOSTID=shardproof-{}-{}", getpid(), rank),
      "NCCL_NET=Socket", "NCCL_IB_DISABLE=1", "NCCL_SOCKET_IFNAME=lo"};
  for (const auto& [name, value] : kDefaults) {
    if (std::getenv(name) == nullptr) {
      added.push_back(fmt::format("{}={}", name, value));
    }
  }
  return EnvironmentWith(added);
}

}  // namespace

NcclRankProcess::NcclRankProcess(NcclRankOptions options)
    : options_(std::move(options)) {}

Status NcclRankProcess::Spawn() {
  SP_ASSIGN_OR_RETURN(auto ends, RankSocket::Pair());
  SP_ASSIGN_OR_RETURN(memory_, SharedBlock::Create());
  SP_ASSIGN_OR_RETURN(
      child_, ChildProcess::Start(
                  {.command = options_.command,
                   .environment = EnvironmentOfRank(options_.setup.rank),
                   .files = {ends.second.fd(), memory_.fd()}}));
  socket_ = std::move(ends.first);
  return OkStatus();
}

StatusOr<std::unique_ptr<NcclRankProcess>> NcclRankProcess::Start(
    NcclRankOptions options) {
  std::unique_ptr<NcclRankProcess> made(
      new NcclRankProcess(std::move(options)));
  SP_RETURN_IF_ERROR(made->Spawn());
  SP_ASSIGN_OR_RETURN(const RankAnswer answer,
                      made->Ask(Encode(made->options_.setup), "the start"));
  SP_RETURN_IF_ERROR(answer.status);
  made->version_ = answer.version;
  made->id_ = answer.id;
  return made;
}

NcclRankProcess::~NcclRankProcess() {
  const auto healthy = [this] {
    return failure_.ok() && options_.control->health().ok();
  };
  if (!joined_ || !healthy() || !socket_.Send(EncodeClose())) return;
  const Clock::time_point deadline =
      Clock::now() + options_.setup.timeout + options_.grace;
  while (!child_.AwaitEnd(kLook) && healthy() && Clock::now() < deadline) {
  }
}

Status NcclRankProcess::Join(const nccl::UniqueId& id) {
  SP_ASSIGN_OR_RETURN(const RankAnswer answer, Ask(Encode(id), "the init"));
  joined_ = answer.status.ok();
  return answer.status;
}

Status NcclRankProcess::Run(const NativeRequest& request) {
  SP_RETURN_IF_ERROR(failure_);
  const StagedRequest staged =
      Stage(request, options_.setup.rank, options_.setup.ranks);
  SP_RETURN_IF_ERROR(memory_.Grow(staged.staging.bytes));
  staged.CopyIn(memory_.data());
  SP_ASSIGN_OR_RETURN(const RankAnswer answer,
                      Ask(Encode(request, staged.staging),
                          fmt::format("{} of {} {}", request.primitive,
                                      request.count, Name(request.dtype))));
  SP_RETURN_IF_ERROR(answer.status);
  staged.CopyOut(memory_.data());
  return OkStatus();
}

StatusOr<RankAnswer> NcclRankProcess::Ask(const MessageBytes& message,
                                          std::string_view what) {
  SP_RETURN_IF_ERROR(failure_);
  const std::string who =
      fmt::format("{} by the process of rank {} of {}", what,
                  options_.setup.rank, options_.setup.ranks);
  if (!socket_.Send(message)) return Died(who);
  // The library gives up first, where it can, and says more.
  const std::chrono::milliseconds most =
      options_.setup.timeout + options_.grace;
  const Clock::time_point deadline = Clock::now() + most;
  while (!socket_.AwaitInput(kLook)) {
    const Status health = options_.control->health();
    if (!health.ok()) {
      return Fail(
          health.WithContext(fmt::format("{}, ended by another rank", who)));
    }
    if (Clock::now() >= deadline) {
      return Fail(Timeout("{} did not end within {} ms, and it was killed", who,
                          most.count()));
    }
  }
  const std::optional<MessageBytes> received = socket_.Receive();
  if (!received) return Died(who);
  StatusOr<RankAnswer> answer = DecodeAnswer(*received);
  if (!answer.ok()) return Fail(answer.status());
  if (answer->lost) return Fail(answer->status);
  return answer;
}

Status NcclRankProcess::Died(std::string_view who) {
  const bool ended = child_.AwaitEnd(kEnding);
  return Fail(Unavailable(
      "{}: it {}", who,
      ended ? child_.HowItEnded() : "closed its socket and did not end"));
}

Status NcclRankProcess::Fail(Status why) {
  failure_ = std::move(why);
  child_.Kill();
  if (options_.control->health().ok()) {
    options_.control->Abort(failure_.message());
  }
  return failure_;
}

}  // namespace shardproof
