#include "collectives/backend/nccl/testing/host_rank.h"

#include <signal.h>  // raise. NOLINT(modernize-deprecated-headers)
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <utility>

namespace shardproof::nccl {
namespace {

struct Faults {
  std::mutex mutex;
  std::string fault;
  int rank = -1;

  static Faults& Get() {
    static Faults faults;
    return faults;
  }

 private:
  // "1 hangs ncclAllReduce": for processes that nobody can call hostNcclPlant in.
  Faults() {
    const char* const planted = std::getenv("HOST_NCCL_PLANT");
    if (planted == nullptr) return;
    const std::string text = planted;
    const size_t space = text.find(' ');
    rank = std::stoi(text.substr(0, space));
    fault = text.substr(space + 1);
  }
};

}  // namespace

void Plant(const char* fault, int rank) {
  Faults& faults = Faults::Get();
  const std::lock_guard lock(faults.mutex);
  faults.fault = fault == nullptr ? "" : fault;
  faults.rank = fault == nullptr ? -1 : rank;
}

bool Planted(std::string_view what, std::string_view function, int rank) {
  Faults& faults = Faults::Get();
  const std::lock_guard lock(faults.mutex);
  if (faults.rank != rank) return false;
  std::string name(what);
  if (!function.empty()) name += " " + std::string(function);
  return faults.fault == name;
}

namespace {

struct Words {
  std::mutex mutex;
  std::string last;

  static Words& Get() {
    static Words words;
    return words;
  }
};

}  // namespace

Result Refuse(Result result, const std::string& why) {
  Words& words = Words::Get();
  const std::lock_guard lock(words.mutex);
  words.last = why + "\n";  // NCCL's may end in a new line too.
  return result;
}

std::string LastWords() {
  Words& words = Words::Get();
  const std::lock_guard lock(words.mutex);
  return words.last;
}

namespace {

// One operation of one rank, on the thread of its stream.
class Operation {
 public:
  explicit Operation(const Work& work)
      : work_(work),
        comm_(*work.comm),
        bytes_(work.count * static_cast<size_t>(SizeOf(work.dtype))) {}

  // What others need of this rank. Never waits.
  void Post() {
    const std::string_view f = work_.function;
    if (Planted("killed", f, comm_.rank)) raise(SIGKILL);
    if (Planted("exits", f, comm_.rank)) _exit(3);
    if (f == "ncclSend") {
      return PostTo(work_.root, Channel::kMessage, Input(0, 1));
    }
    if (f == "ncclRecv") return;
    const bool from_root = f == "ncclBroadcast" || f == "ncclScatter";
    if (from_root && comm_.rank != work_.root) return;
    const bool to_root = f == "ncclReduce" || f == "ncclGather";
    const bool by_block =
        f == "ncclReduceScatter" || f == "ncclAlltoAll" || f == "ncclScatter";
    for (int r = 0; r < comm_.size; ++r) {
      if (to_root && r != work_.root) continue;
      PostTo(r, Channel::kCollective, Input(by_block ? r : 0, 1));
    }
  }

  // False if the communicator was aborted meanwhile.
  bool Take() {
    const std::string_view f = work_.function;
    if (Planted("async_error", f, comm_.rank)) {
      (void)Refuse(Result::kRemoteError, "a planted peer is gone");
      const std::lock_guard lock(comm_.world->mutex);
      comm_.async = Result::kRemoteError;
    }
    if (Planted("async_error", f, comm_.rank) ||
        Planted("hangs", f, comm_.rank)) {
      std::unique_lock lock(comm_.world->mutex);
      comm_.world->changed.wait(lock, [&] { return comm_.aborted; });
      return false;
    }
    const bool done = TakeAll();
    // So that the planted byte is in what this call has written.
    if (done && wrote_ != nullptr && Planted("wrong", f, comm_.rank)) {
      *wrote_ ^= std::byte{0x41};
    }
    if (done && wrote_ != nullptr && Planted("beside", f, comm_.rank)) {
      *(wrote_ - 1) ^= std::byte{0x41};
    }
    return done;
  }

 private:
  bool TakeAll() {
    const std::string_view f = work_.function;
    const bool at_root = comm_.rank == work_.root;
    if (f == "ncclSend") return true;
    if (f == "ncclRecv") return TakeInto(work_.root, Channel::kMessage, 0);
    if (f == "ncclBroadcast" || f == "ncclScatter") {
      return TakeInto(work_.root, Channel::kCollective, 0);
    }
    if (!at_root && (f == "ncclReduce" || f == "ncclGather")) return true;
    if (f == "ncclAllGather" || f == "ncclGather" || f == "ncclAlltoAll") {
      for (int r = 0; r < comm_.size; ++r) {
        if (!TakeInto(r, Channel::kCollective, r)) return false;
      }
      return true;
    }
    Bytes sum;
    for (int r = 0; r < comm_.size; ++r) {
      Bytes next;
      if (!TakeFrom(r, Channel::kCollective, next)) return false;
      if (r == 0) {
        sum = std::move(next);
      } else {
        Fold(work_.op, work_.dtype, next, sum);
      }
    }
    if (work_.op == RedOp::kAvg) Average(work_.dtype, comm_.size, sum);
    Store(sum, 0);
    return true;
  }

  Bytes Input(int block, int blocks) const {
    Bytes data(bytes_ * static_cast<size_t>(blocks));
    if (data.empty()) return data;
    std::memcpy(data.data(),
                static_cast<const std::byte*>(work_.send) +
                    static_cast<size_t>(block) * bytes_,
                data.size());
    if (work_.scales) Scale(work_.dtype, work_.scale, data);
    return data;
  }
  void Store(const Bytes& data, int block) {
    if (data.empty()) return;
    wrote_ = static_cast<std::byte*>(work_.recv) +
             static_cast<size_t>(block) * bytes_;
    std::memcpy(wrote_, data.data(), data.size());
  }
  void PostTo(int peer, Channel channel, Bytes data) {
    if (comm_.world->link != nullptr && peer != comm_.rank) {
      comm_.world->link->Send(peer, channel, data);
      return;
    }
    const std::lock_guard lock(comm_.world->mutex);
    comm_.world->mail[{channel, comm_.rank, peer}].push_back(std::move(data));
    comm_.world->changed.notify_all();
  }
  bool TakeFrom(int peer, Channel channel, Bytes& data) {
    std::unique_lock lock(comm_.world->mutex);
    std::deque<Bytes>& box = comm_.world->mail[{channel, peer, comm_.rank}];
    comm_.world->changed.wait(lock,
                              [&] { return comm_.aborted || !box.empty(); });
    if (comm_.aborted) return false;
    data = std::move(box.front());
    box.pop_front();
    if (data.size() == bytes_) return true;
    comm_.async = Refuse(Result::kInvalidUsage, "sizes of two ranks differ");
    return false;
  }
  bool TakeInto(int peer, Channel channel, int block) {
    Bytes data;
    if (!TakeFrom(peer, channel, data)) return false;
    Store(data, block);
    return true;
  }

  const Work& work_;
  HostComm& comm_;
  const size_t bytes_;
  std::byte* wrote_ = nullptr;
};

}  // namespace

namespace {

// What is queued, and deletes itself.
struct Queued {
  HostComm* comm;
  std::vector<Work> works;

  void Run() const {
    std::vector<Operation> operations(works.begin(), works.end());
    for (Operation& operation : operations) operation.Post();
    for (Operation& operation : operations) {
      if (!operation.Take()) break;
    }
    const std::shared_ptr<World> world = comm->world;
    const std::lock_guard lock(world->mutex);
    --comm->jobs;
    world->changed.notify_all();
  }
};

}  // namespace

void Launch(std::vector<Work> works) {
  HostComm* comm = works.front().comm;
  StreamHandle* stream = works.front().stream;
  {
    const std::lock_guard lock(comm->world->mutex);
    ++comm->jobs;
    comm->in_progress = 2;
    comm->never_queued =
        Planted("never_queued", works.front().function, comm->rank);
  }
  auto queued = std::make_unique<Queued>(Queued{comm, std::move(works)});
  stream->enqueue(
      stream,
      [](void* argument) {
        const std::unique_ptr<Queued> mine(static_cast<Queued*>(argument));
        mine->Run();
      },
      queued.release());
}

void Free(HostComm* comm) {
  const std::shared_ptr<World> world = comm->world;
  std::unique_lock lock(world->mutex);
  world->changed.wait(lock, [&] { return comm->jobs == 0; });
  lock.unlock();
  delete comm;
}

}  // namespace shardproof::nccl
