#include "collectives/backend/cuda/device/cuda_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <thread>
#include <utility>

namespace shardproof::cuda {
namespace {

// Of a rank that has come early, before it sleeps.
constexpr int kLooks = 100;

}  // namespace

CudaGroup::CudaGroup(std::shared_ptr<GpuSystem> gpus, const CudaTuning& tuning,
                     int ranks)
    : gpus_(std::move(gpus)),
      tuning_(tuning),
      members_(static_cast<size_t>(ranks)) {
  for (Meeting& meeting : meetings_) {
    meeting.requests.resize(static_cast<size_t>(ranks));
  }
}

CudaGroup::~CudaGroup() {
  // Kernels of other GPUs write to the flags that are about to go. After a
  // failure some may wait for their peers; their patience ends that.
  using Clock = std::chrono::steady_clock;
  const auto deadline =
      Clock::now() + (failed_.ok() ? tuning_.timeout : 2 * tuning_.patience);
  for (Member& member : members_) {
    if (member.stream == nullptr) continue;
    const auto left = std::max(Clock::duration(0), deadline - Clock::now());
    static_cast<void>(Synchronize(
        *member.stream,
        std::chrono::duration_cast<std::chrono::milliseconds>(left)));
  }
}

std::string CudaGroup::Whose(int rank) const {
  return fmt::format("rank {} on {}", rank,
                     NameOf(*gpus_, members_[static_cast<size_t>(rank)].gpu));
}

std::vector<int> CudaGroup::GpusInUse() const {
  std::set<int> used;
  for (const Member& member : members_) used.insert(member.gpu);
  return {used.begin(), used.end()};
}

int CudaGroup::RanksOn(int gpu) const {
  return static_cast<int>(
      std::count_if(members_.begin(), members_.end(),
                    [gpu](const Member& m) { return m.gpu == gpu; }));
}

// Flags begin as rounds.h wants them, which is not zeros.
Status CudaGroup::MakeSignals(Member& member) {
  auto page = std::make_unique<SignalPage>();
  InitializeSignals(*page);
  SP_RETURN_IF_ERROR(
      member.stream->Copy(member.page.data(), page.get(), sizeof(SignalPage)));
  return Synchronize(*member.stream, tuning_.timeout);
}

Status CudaGroup::MakeMember(int rank) {
  Member& member = members_[static_cast<size_t>(rank)];
  Gpu& gpu = gpus_->gpu(member.gpu);
  SP_ASSIGN_OR_RETURN(member.stream, gpu.NewStream());
  SP_ASSIGN_OR_RETURN(member.event, gpu.NewEvent());
  SP_ASSIGN_OR_RETURN(member.page, gpu.AllocateFlags(sizeof(SignalPage)));
  const auto ranks = static_cast<int64_t>(members_.size());
  SP_ASSIGN_OR_RETURN(
      member.staging,
      gpu.AllocateFlags(static_cast<size_t>(2 * ranks * tuning_.slot_bytes)));
  SP_RETURN_IF_ERROR(MakeSignals(member));
  world_.pages[rank] = member.page.as<SignalPage>();
  world_.staging[rank] = member.staging.data();
  return OkStatus();
}

Status CudaGroup::MakeWorld() {
  if (made_) return OkStatus();
  used_ = GpusInUse();
  blocks_ = std::min(tuning_.blocks, kMaxBlocks);
  threads_ = gpus_->gpu(used_.front()).info().block_threads;
  for (const int gpu : used_) {
    const GpuInfo& info = gpus_->gpu(gpu).info();
    // One block on each multiprocessor is what any kernel gets. The same for
    // all ranks: blocks of equal number meet.
    blocks_ = std::min(blocks_, info.multiprocessors / RanksOn(gpu));
    threads_ = std::min(threads_, info.block_threads);
    for (const int peer : used_) {
      if (peer == gpu) continue;
      SP_RETURN_IF_ERROR(gpus_->gpu(gpu).EnablePeer(peer).WithContext(
          "the kernels need peer access between all GPUs that ranks live on "
          "(CUDA_VISIBLE_DEVICES chooses others, or one for all ranks)"));
    }
  }
  // What does not fit then, Prepare refuses.
  blocks_ = std::max(blocks_, 1);
  const auto ranks = static_cast<int>(members_.size());
  world_ = {.ranks = ranks, .slot_bytes = tuning_.slot_bytes};
  world_.patience =
      static_cast<uint64_t>(std::chrono::nanoseconds(tuning_.patience).count());
  SP_ASSIGN_OR_RETURN(reports_,
                      gpus_->gpu(members_.front().gpu)
                          .AllocateReports(sizeof(uint64_t) * kMaxRanks));
  world_.reports = reports_.as<uint64_t>();
  for (int rank = 0; rank < ranks; ++rank) {
    SP_RETURN_IF_ERROR(MakeMember(rank).WithContext(
        fmt::format("making the streams and flags of {}", Whose(rank))));
  }
  made_ = true;
  return OkStatus();
}

CollectiveLaunch CudaGroup::LaunchFor(int gpu,
                                      const KernelRequest& request) const {
  CollectiveLaunch launch{.primitive = request.primitive,
                          .dtype = request.dtype,
                          .op = request.op,
                          .world = world_,
                          .args = request.args,
                          .ranks = 0,
                          .blocks = blocks_,
                          .threads = threads_};
  for (size_t r = 0; r < members_.size(); ++r) {
    if (members_[r].gpu != gpu) continue;
    launch.residents.ranks[launch.ranks++] = static_cast<int>(r);
  }
  return launch;
}

Status CudaGroup::LaunchOn(int gpu, const CollectiveLaunch& launch) {
  const auto resident = [&](int i) -> Member& {
    return members_[static_cast<size_t>(launch.residents.ranks[i])];
  };
  Member& first = resident(0);
  for (int i = 1; i < launch.ranks; ++i) {
    SP_RETURN_IF_ERROR(resident(i).stream->Record(*resident(i).event));
    SP_RETURN_IF_ERROR(first.stream->Wait(*resident(i).event));
  }
  SP_RETURN_IF_ERROR(first.stream->Launch(launch).WithContext(
      fmt::format("launching on {}", NameOf(*gpus_, gpu))));
  if (launch.ranks == 1) return OkStatus();
  SP_RETURN_IF_ERROR(first.stream->Record(*first.event));
  for (int i = 1; i < launch.ranks; ++i) {
    SP_RETURN_IF_ERROR(resident(i).stream->Wait(*first.event));
  }
  return OkStatus();
}

Status CudaGroup::Launch(const Meeting& meeting) {
  SP_RETURN_IF_ERROR(failed_);
  SP_ASSIGN_OR_RETURN(
      const KernelRequest request,
      ToKernelRequest(meeting.requests, *gpus_, tuning_.one_shot_bytes));
  SP_RETURN_IF_ERROR(MakeWorld());
  std::vector<CollectiveLaunch> launches;
  for (const int gpu : used_) {
    launches.push_back(LaunchFor(gpu, request));
    SP_RETURN_IF_ERROR(gpus_->gpu(gpu).Prepare(launches.back()));
  }
  size_t launched = 0;
  {
    const std::lock_guard<std::mutex> together(*gpus_->launching());
    for (; launched < used_.size() && failed_.ok(); ++launched) {
      failed_ = LaunchOn(used_[launched], launches[launched]);
    }
  }
  if (failed_.ok()) return OkStatus();
  // Kernels of the GPUs before wait for this one in vain, and have the buffers
  // of all ranks until they give up.
  for (size_t i = 0; i + 1 < launched; ++i) {
    const int rank = launches[i].residents.ranks[0];
    Member& first = members_[static_cast<size_t>(rank)];
    static_cast<void>(Synchronize(*first.stream, 2 * tuning_.patience));
  }
  return failed_;
}

// What kernels have reported, of any rank: the others may still be waiting.
Status CudaGroup::Failed(const NativeRequest& request) const {
  for (size_t r = 0; r < members_.size(); ++r) {
    const uint64_t word = __atomic_load_n(&world_.reports[r], __ATOMIC_RELAXED);
    const Failure failure = Failure::Unpack(word);
    if (failure.code == FailureCode::kNone) continue;
    const std::string where =
        fmt::format("{} of {} {}: the kernel of {}, block {}, round {}",
                    request.primitive, request.count, Name(request.dtype),
                    Whose(static_cast<int>(r)), failure.block, failure.round);
    if (failure.code == FailureCode::kDeadline) {
      return Timeout("{}, waited {} ms in vain for {}", where,
                     tuning_.patience.count(), Whose(failure.peer));
    }
    return Internal(
        "{}, found a flag of {} that cannot be: the ranks are in different "
        "kernels",
        where, Whose(failure.peer));
  }
  return OkStatus();
}

Status CudaGroup::Run(int rank, int gpu, const NativeRequest& request,
                      const std::function<Status()>& health) {
  Member& me = members_[static_cast<size_t>(rank)];
  const uint64_t call = ++me.calls;
  Meeting& meeting = meetings_[call & 1];
  {
    std::unique_lock<std::mutex> lock(mutex_);
    me.gpu = gpu;
    meeting.requests[static_cast<size_t>(rank)] = request;
    if (++meeting.arrived == static_cast<int>(members_.size())) {
      meeting.arrived = 0;
      // Not for ranks that have left: their buffers may be gone.
      const Status healthy = health();
      meeting.answer = healthy.ok() ? Launch(meeting) : healthy;
      meeting.over.store(call, std::memory_order_release);
      changed_.notify_all();
    } else {
      // Most come within microseconds of one another.
      lock.unlock();
      for (int looks = 0; looks < kLooks &&
                          meeting.over.load(std::memory_order_acquire) < call;
           ++looks) {
        std::this_thread::yield();
      }
      lock.lock();
      // With a timeout, since an abort notifies nobody.
      while (meeting.over.load(std::memory_order_acquire) < call) {
        changed_.wait_for(lock, std::chrono::milliseconds(2));
        SP_RETURN_IF_ERROR(health());
      }
    }
    SP_RETURN_IF_ERROR(meeting.answer);
  }
  const Status done = Synchronize(*me.stream, tuning_.timeout, health);
  me.finished.store(call, std::memory_order_release);
  // What a kernel says is the cause of what the host sees.
  Status failed = Failed(request);
  if (failed.ok() && done.ok()) return OkStatus();
  if (failed.ok()) {
    failed = done.WithContext(fmt::format("{} of {} {} by the kernel of {}",
                                          request.primitive, request.count,
                                          Name(request.dtype), Whose(rank)));
  }
  AwaitOthers(call, health);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (failed_.ok()) failed_ = failed;
  return failed;
}

// After a failure the caller may free its buffers, which kernels of other GPUs
// use until they have given up too.
void CudaGroup::AwaitOthers(uint64_t call,
                            const std::function<Status()>& health) const {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + 2 * tuning_.patience;
  const auto finished = [call](const Member& member) {
    return member.finished.load(std::memory_order_acquire) >= call;
  };
  while (!std::all_of(members_.begin(), members_.end(), finished) &&
         Clock::now() < deadline && health().ok()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace shardproof::cuda
