// The ranks of the library for tests: streams, communicators, and the operations
// between them, faults included. Every operation is messages: each rank posts
// what others need, then takes what they posted.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_RANK_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_RANK_H_

#include <array>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "collectives/backend/cuda/device/emulated_stream.h"
#include "collectives/backend/nccl/nccl_abi.h"
#include "collectives/backend/nccl/testing/host_arithmetic.h"
#include "collectives/backend/nccl/testing/host_link.h"
#include "reference/dtype.h"

namespace shardproof::nccl {

// See host_nccl.h. Null: no rank has a fault.
void Plant(const char* fault, int rank);
bool Planted(std::string_view what, std::string_view function, int rank);

// Remembers `why` for ncclGetLastError, which is about the process.
Result Refuse(Result result, const std::string& why);
std::string LastWords();

// A stream, of this library or of an emulated GPU.
using StreamHandle = cuda::EmulatedStreamHandle;

// One of this library.
struct HostStream : StreamHandle {
  HostStream() {
    enqueue = [](StreamHandle* self, void (*work)(void*), void* argument) {
      auto& mine = *static_cast<HostStream*>(self);
      const std::lock_guard lock(mine.mutex);
      mine.queue.emplace_back([work, argument] { work(argument); });
      mine.changed.notify_all();
    };
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::function<void()>> queue;
  bool busy = false, stop = false;
  std::thread thread;

  void Run() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return stop || !queue.empty(); });
      if (queue.empty()) return;
      const std::function<void()> work = std::move(queue.front());
      queue.pop_front();
      busy = true;
      lock.unlock();
      work();
      lock.lock();
      busy = false;
    }
  }
};

enum class Channel { kCollective, kMessage };

// What the ranks of one communicator share; one of each rank where they are in
// several processes.
struct World {
  std::mutex mutex;
  std::condition_variable changed;
  int size = 0, joined = 0;
  std::map<std::tuple<Channel, int, int>, std::deque<Bytes>> mail;
  std::unique_ptr<HostLink> link;  // Goes first. Null: there is one process.
};

struct HostComm {
  std::shared_ptr<World> world;
  int rank = 0, size = 1;
  // Guarded by world->mutex.
  bool aborted = false;
  int jobs = 0;
  Result async = Result::kSuccess;
  int in_progress = 0;  // So often ncclCommGetAsyncError says kInProgress.
  bool never_queued = false;
  std::vector<std::pair<DataType, std::array<std::byte, 8>>> scales;
};

struct Work {
  std::string_view function;
  const void* send = nullptr;
  void* recv = nullptr;
  size_t count = 0;
  DataType type = DataType::kUint8;
  RedOp op = RedOp::kSum;
  int root = 0;
  HostComm* comm = nullptr;
  StreamHandle* stream = nullptr;
  // Found when it is queued.
  DType dtype = DType::kU8;
  bool scales = false;
  std::array<std::byte, 8> scale = {};

  Work& To(int rank) {
    root = rank;
    return *this;
  }
  Work& By(RedOp operation) {
    op = operation;
    return *this;
  }
};

// Queues all of `works`, which are of one communicator and stream, as one
// operation.
void Launch(std::vector<Work> works);

// Waits until nothing of it is on a stream, and deletes it.
void Free(HostComm* comm);

}  // namespace shardproof::nccl

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_RANK_H_
