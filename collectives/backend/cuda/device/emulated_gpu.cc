#include "collectives/backend/cuda/device/emulated_gpu.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "collectives/backend/cuda/device/emulated_kernels.h"
#include "collectives/backend/cuda/device/emulated_stream.h"
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"
#include "collectives/backend/node/available_memory.h"
#include "collectives/host_memory.h"

namespace shardproof::cuda {
namespace {

constexpr int kMostGpus = 16;
// Of the toolkit that is emulated.
constexpr int kRuntime = 13000;

// What all GPUs of a system share. Buffers and streams keep it.
class Machine {
 public:
  explicit Machine(const EmulatedGpuOptions& options)
      : options_(options), used_(static_cast<size_t>(options.count)) {}

  const EmulatedGpuOptions& options() const { return options_; }
  int NextLaunch() { return launches_.fetch_add(1); }

  Status Take(int gpu, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    size_t& used = used_[static_cast<size_t>(gpu)];
    const size_t left = options_.memory_bytes - used;
    if (bytes > left) {
      return OutOfMemory(
          "GPU {} (emulated): {} were asked for, and {} of {} are left", gpu,
          FormatBytes(bytes), FormatBytes(left),
          FormatBytes(options_.memory_bytes));
    }
    used += bytes;
    return OkStatus();
  }
  void GiveBack(int gpu, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    used_[static_cast<size_t>(gpu)] -= bytes;
  }

  void Add(const std::byte* data, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ranges_[data] = bytes;
  }
  void Remove(const std::byte* data) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ranges_.erase(data);
  }
  bool Holds(const void* address) {
    const auto* const at = static_cast<const std::byte*>(address);
    const std::lock_guard<std::mutex> lock(mutex_);
    auto after = ranges_.upper_bound(at);
    if (after == ranges_.begin()) return false;
    const auto& [begin, bytes] = *std::prev(after);
    // The end is an address of the buffer too: of a block of no elements.
    return at <= begin + bytes;
  }

  // A launch that never ends waits here until the first stream goes.
  void WaitForRelease() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return released_; });
  }
  void Release() {
    const std::lock_guard<std::mutex> lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }

 private:
  const EmulatedGpuOptions options_;
  std::atomic<int> launches_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::vector<size_t> used_;
  std::map<const std::byte*, size_t> ranges_;
  bool released_ = false;
};

// When the work recorded before it was done.
struct Mark {
  std::atomic<std::chrono::steady_clock::time_point> when{};
};

class EmulatedEvent final : public GpuEvent {
 public:
  Event event;
  std::shared_ptr<Mark> mark;
};

class EmulatedStream final : public GpuStream {
 public:
  EmulatedStream(std::shared_ptr<Machine> machine, Stream stream)
      : machine_(std::move(machine)), stream_(std::move(stream)) {
    handle_.owner = this;
    handle_.enqueue = [](EmulatedStreamHandle* self, void (*work)(void*),
                         void* argument) {
      EmulatedStream& mine = *static_cast<Handle*>(self)->owner;
      // A stream that is there refuses nothing.
      static_cast<void>(mine.Queue([work, argument] {
        work(argument);
        return OkStatus();
      }));
    };
  }
  ~EmulatedStream() override { machine_->Release(); }
  EmulatedStream(const EmulatedStream&) = delete;
  EmulatedStream& operator=(const EmulatedStream&) = delete;

  void* handle() override {
    return static_cast<EmulatedStreamHandle*>(&handle_);
  }
  Status Launch(const CollectiveLaunch& launch) override;
  Status Launch(const GridLaunch& launch) override;
  Status Copy(void* to, const void* from, size_t bytes) override {
    return Queue([to, from, bytes] {
      std::memcpy(to, from, bytes);
      return OkStatus();
    });
  }
  Status Record(GpuEvent& event) override {
    auto& mine = static_cast<EmulatedEvent&>(event);
    mine.mark = std::make_shared<Mark>();
    SP_RETURN_IF_ERROR(Queue([mark = mine.mark] {
      mark->when.store(std::chrono::steady_clock::now());
      return OkStatus();
    }));
    mine.event = last_;
    return OkStatus();
  }
  Status Wait(const GpuEvent& event) override {
    SP_RETURN_IF_ERROR(
        stream_.Wait(static_cast<const EmulatedEvent&>(event).event));
    return Mend();
  }
  StatusOr<bool> Done() override {
    if (!last_.Done()) return false;
    SP_RETURN_IF_ERROR(stream_.Synchronize());
    return true;
  }

 private:
  struct Handle : EmulatedStreamHandle {
    EmulatedStream* owner = nullptr;
  };

  // What the faults of the machine say of this launch, or in fibers.
  template <class AnyLaunch>
  Status LaunchOrFault(const AnyLaunch& launch);
  template <class Work>
  Status Queue(Work work) {
    SP_RETURN_IF_ERROR(stream_.Run(std::move(work)));
    return Mend();
  }
  // The event that Done looks at.
  Status Mend() {
    SP_ASSIGN_OR_RETURN(last_, stream_.Record());
    return OkStatus();
  }

  std::shared_ptr<Machine> machine_;
  Handle handle_;
  // Of the stream's thread alone. Before the stream, whose end joins that.
  std::unique_ptr<FiberScheduler> scheduler_;
  Event last_;
  Stream stream_;
};

Status RunInFibers(FiberScheduler& scheduler, const CollectiveLaunch& launch,
                   uint64_t seed) {
  const EmulatedKernel kernel =
      FindEmulatedKernel(launch.primitive, launch.dtype, launch.op);
  return scheduler.Run({.ranks = launch.ranks,
                        .blocks = launch.blocks,
                        .threads = launch.threads},
                       {.seed = seed,
                        .preempt_one_in = 64,
                        .most_turns = std::numeric_limits<int64_t>::max()},
                       [&](FiberThread& thread) {
                         EmulatedContext context(thread, launch.residents);
                         EmulatedRounds rounds(context, launch.world);
                         if (rounds.Begin() && kernel(rounds, launch.args))
                           rounds.End();
                       });
}

Status RunInFibers(FiberScheduler& scheduler, const GridLaunch& launch,
                   uint64_t seed) {
  return scheduler
      .Run({.ranks = 1,
            .blocks = launch.blocks,
            .threads = launch.threads,
            .shared_bytes = launch.fiber_bytes},
           {.seed = seed,
            .preempt_one_in = 64,
            .most_turns = std::numeric_limits<int64_t>::max()},
           [&](FiberThread& thread) {
             launch.emulated(thread, launch.parameters.data());
           })
      .WithContext(launch.name);
}

Status EmulatedStream::Launch(const CollectiveLaunch& launch) {
  return LaunchOrFault(launch);
}

Status EmulatedStream::Launch(const GridLaunch& launch) {
  if (launch.emulated == nullptr) {
    return Unsupported("there is no kernel {} for an emulated GPU",
                       launch.name);
  }
  return LaunchOrFault(launch);
}

template <class AnyLaunch>
Status EmulatedStream::LaunchOrFault(const AnyLaunch& launch) {
  const EmulatedGpuOptions& options = machine_->options();
  const EmulatedFaults& faults = options.faults;
  const int number = machine_->NextLaunch();
  if (number == faults.refused_launch) {
    return Internal("launch {} was told to be refused", number);
  }
  if (number == faults.lost_launch) return OkStatus();
  if (number == faults.endless_launch) {
    return Queue([machine = machine_.get()] {
      machine->WaitForRelease();
      return OkStatus();
    });
  }
  if (number == faults.failing_launch) {
    return Queue(
        [number] { return Internal("launch {} was told to fail", number); });
  }
  return Queue([this, launch, number] {
    if (scheduler_ == nullptr) scheduler_ = std::make_unique<FiberScheduler>();
    return RunInFibers(
        *scheduler_, launch,
        machine_->options().seed * 1000003 + static_cast<uint64_t>(number));
  });
}

class EmulatedGpu final : public Gpu {
 public:
  EmulatedGpu(std::shared_ptr<Machine> machine, int index)
      : machine_(std::move(machine)), index_(index) {
    const EmulatedGpuOptions& options = machine_->options();
    info_ = {.name = "emulated",
             .identity = fmt::format("{}", index),
             .major = 9,
             .minor = 0,
             .memory_bytes = options.memory_bytes,
             .multiprocessors = options.multiprocessors,
             .cooperative_launch = !options.faults.no_cooperative_launch,
             .managed_memory = !options.faults.no_managed_memory,
             .block_threads = options.block_threads};
  }

  const GpuInfo& info() const override { return info_; }
  Status Use() override { return OkStatus(); }
  Status EnablePeer(int peer) override {
    if (!machine_->options().faults.no_peer_access) return OkStatus();
    return Unsupported("GPU {} (emulated) cannot address the memory of GPU {}",
                       index_, peer);
  }
  StatusOr<Buffer> Allocate(size_t bytes) override {
    SP_ASSIGN_OR_RETURN(Buffer plain, Limited(bytes, &Managed));
    std::byte* const data = plain.data();
    machine_->Add(data, bytes);
    auto held = std::make_shared<Buffer>(std::move(plain));
    std::shared_ptr<void> owner(data, [held, machine = machine_](void* p) {
      machine->Remove(static_cast<std::byte*>(p));
    });
    return Buffer(std::move(owner), data, bytes);
  }
  StatusOr<Buffer> AllocateFlags(size_t bytes) override {
    return Limited(bytes, &AllocateZeroed);
  }
  StatusOr<Buffer> AllocateReports(size_t bytes) override {
    return AllocateZeroed(bytes);
  }
  StatusOr<std::unique_ptr<GpuStream>> NewStream() override {
    SP_ASSIGN_OR_RETURN(Stream stream,
                        Stream::Create(fmt::format("gpu {}", index_)));
    return std::unique_ptr<GpuStream>(
        std::make_unique<EmulatedStream>(machine_, std::move(stream)));
  }
  StatusOr<std::unique_ptr<GpuEvent>> NewEvent() override {
    return std::unique_ptr<GpuEvent>(std::make_unique<EmulatedEvent>());
  }
  StatusOr<double> Microseconds(const GpuEvent& from,
                                const GpuEvent& to) override {
    const auto& first = static_cast<const EmulatedEvent&>(from);
    const auto& second = static_cast<const EmulatedEvent&>(to);
    for (const EmulatedEvent* event : {&first, &second}) {
      if (event->mark == nullptr || !event->event.Done()) {
        return InvalidArgument("the time between events that are not done");
      }
    }
    return std::chrono::duration<double, std::micro>(second.mark->when.load() -
                                                     first.mark->when.load())
        .count();
  }
  Status Prepare(const CollectiveLaunch& launch) override {
    if (FindEmulatedKernel(launch.primitive, launch.dtype, launch.op) ==
        nullptr) {
      return Unsupported("there is no such kernel");
    }
    if (!info_.cooperative_launch) {
      return Unsupported("GPU {} (emulated) has no cooperative launch", index_);
    }
    const int blocks = launch.blocks * launch.ranks;
    if (blocks > info_.multiprocessors) {
      return Unsupported(
          "GPU {} (emulated) holds {} blocks at a time, and {} ranks of {} "
          "blocks are {}",
          index_, info_.multiprocessors, launch.ranks, launch.blocks, blocks);
    }
    return OkStatus();
  }

 private:
  static StatusOr<Buffer> Managed(size_t bytes) {
    return AllocateHostMemory(bytes, Pages::kHuge);
  }
  StatusOr<Buffer> Limited(size_t bytes, StatusOr<Buffer> (*make)(size_t)) {
    SP_RETURN_IF_ERROR(machine_->Take(index_, bytes));
    // The owner gives back, whatever becomes of `make`.
    std::shared_ptr<void> taken(
        nullptr, [machine = machine_, gpu = index_, bytes](void* /*null*/) {
          machine->GiveBack(gpu, bytes);
        });
    SP_ASSIGN_OR_RETURN(Buffer plain, make(bytes));
    std::byte* const data = plain.data();
    struct Held {
      std::shared_ptr<void> taken;
      Buffer plain;
    };
    auto held = std::make_shared<Held>();
    held->taken = std::move(taken);
    held->plain = std::move(plain);
    return Buffer(std::move(held), data, bytes);
  }

  std::shared_ptr<Machine> machine_;
  const int index_;
  GpuInfo info_;
};

class EmulatedSystem final : public GpuSystem {
 public:
  explicit EmulatedSystem(const EmulatedGpuOptions& options)
      : machine_(std::make_shared<Machine>(options)) {
    for (int i = 0; i < options.count; ++i) {
      gpus_.push_back(std::make_unique<EmulatedGpu>(machine_, i));
    }
  }
  int count() const override { return static_cast<int>(gpus_.size()); }
  Gpu& gpu(int index) override { return *gpus_[static_cast<size_t>(index)]; }
  bool emulated() const override { return true; }
  std::string Describe() const override {
    return fmt::format("{} emulated: kernels in fibers, host memory", count());
  }
  bool Addresses(const void* data) const override {
    return machine_->Holds(data);
  }

 private:
  std::shared_ptr<Machine> machine_;
  std::vector<std::unique_ptr<EmulatedGpu>> gpus_;
};

}  // namespace

StatusOr<std::shared_ptr<GpuSystem>> OpenEmulatedGpus(
    const EmulatedGpuOptions& options) {
  if (options.count < 0 || options.count > kMostGpus) {
    return InvalidArgument("{} emulated GPUs: there may be 1 to {}",
                           options.count, kMostGpus);
  }
  if (options.multiprocessors < 1 || options.block_threads < 1) {
    return InvalidArgument("an emulated GPU without processors");
  }
  SP_RETURN_IF_ERROR(CheckDriver(options.driver, kRuntime, options.count));
  return std::shared_ptr<GpuSystem>(std::make_shared<EmulatedSystem>(options));
}

}  // namespace shardproof::cuda
