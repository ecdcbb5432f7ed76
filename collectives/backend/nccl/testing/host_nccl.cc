// A small library with NCCL's C interface that works on host memory, between the
// threads of one process, or between processes (host_link.h): for tests without a
// GPU. A shared library of its own,
// so that it is found by dlopen as NCCL is.
//
// A stream is one of its own (host_nccl.h) or one of an emulated GPU.
//
// It is as asynchronous as NCCL: a call only queues work on a stream, which is
// served by another thread; the communicator does not block and answers
// kInProgress first; and a call before that is over is refused.
//
// HOST_NCCL_VERSION is the version it claims, and says which functions it has.
#include "collectives/backend/nccl/testing/host_nccl.h"

#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "collectives/backend/nccl/nccl_abi.h"
#include "collectives/backend/nccl/testing/host_arithmetic.h"
#include "collectives/backend/nccl/testing/host_rank.h"
#include "reference/dtype.h"

namespace shardproof::nccl {
namespace {

HostStream* StreamOf(Stream handle) {
  return static_cast<HostStream*>(static_cast<StreamHandle*>(handle));
}

HostComm* Of(Comm comm) { return reinterpret_cast<HostComm*>(comm); }

struct Worlds {
  std::mutex mutex;
  std::map<std::string, std::weak_ptr<World>> by_id;
  int ids = 0;

  static Worlds& Get() {
    static Worlds worlds;
    return worlds;
  }

  // The one of this process.
  std::shared_ptr<World> Of(const UniqueId& id) {
    const std::lock_guard lock(mutex);
    std::weak_ptr<World>& known =
        by_id[std::string(id.internal.data(), id.internal.size())];
    std::shared_ptr<World> world = known.lock();
    if (world == nullptr) known = world = std::make_shared<World>();
    return world;
  }
};

struct Grouping {
  int depth = 0;
  std::vector<Work> works;
};
thread_local Grouping group;

Result CheckReady(HostComm& comm) {
  const std::lock_guard lock(comm.world->mutex);
  if (comm.in_progress > 0 || comm.never_queued) {
    return Refuse(Result::kInvalidArgument,
                  "used before the previous operation returned ncclSuccess");
  }
  return Result::kSuccess;
}

Result Queue(Work work) {
  HostComm& comm = *work.comm;
  if (!ToDType(work.type, work.dtype)) {
    return Refuse(Result::kInvalidArgument, "invalid type");
  }
  if (work.root < 0 || work.root >= comm.size) {
    return Refuse(Result::kInvalidArgument, "invalid root or peer");
  }
  if (work.op >= RedOp::kNumOps) {
    const size_t at =
        static_cast<size_t>(work.op) - static_cast<size_t>(RedOp::kNumOps);
    if (at >= comm.scales.size() || comm.scales[at].first != work.type) {
      return Refuse(Result::kInvalidArgument, "no such operation");
    }
    work.scales = true;
    work.scale = comm.scales[at].second;
    work.op = RedOp::kSum;
  }
  if (Planted("refuses", work.function, comm.rank)) {
    return Refuse(Result::kInvalidUsage,
                  std::string(work.function) + " was told to refuse");
  }
  if (const Result r = CheckReady(comm); r != Result::kSuccess) return r;
  if (group.depth > 0) {
    group.works.push_back(work);
    return Result::kSuccess;
  }
  Launch({work});
  return Result::kInProgress;
}

Work Make(const char* function, const void* send, void* recv, size_t count,
          DataType type, Comm comm, Stream stream) {
  Work work;
  work.function = function;
  work.send = send;
  work.recv = recv;
  work.count = count;
  work.type = type;
  work.comm = Of(comm);
  work.stream = static_cast<StreamHandle*>(stream);
  return work;
}

}  // namespace
}  // namespace shardproof::nccl

// --- The interface ------------------------------------------------------------

using shardproof::DType;
using namespace shardproof::nccl;  // NOLINT(google-build-using-namespace)

// NOLINTBEGIN(readability-identifier-naming): the names are NCCL's.
#pragma GCC visibility push(default)
extern "C" {

Result ncclGetVersion(int* version) {
  *version = HOST_NCCL_VERSION;
  return Result::kSuccess;
}

Result ncclGetUniqueId(UniqueId* id) {
  if (Planted("no_id", "", 0)) {
    return Refuse(Result::kUnhandledCudaError, "no device is planted here");
  }
  Worlds& worlds = Worlds::Get();
  const std::lock_guard lock(worlds.mutex);
  *id = {};
  std::memcpy(id->internal.data(), &++worlds.ids, sizeof(worlds.ids));
  // What other processes make must differ, those of other machines' too.
  std::random_device random;
  for (size_t at = 4; at < 16; at += 4) {
    const unsigned part = random();
    std::memcpy(id->internal.data() + at, &part, sizeof(part));
  }
  id->internal.back() = '\x81';  // So that a copy that stops early is noticed.
  return Result::kSuccess;
}

const char* ncclGetErrorString(Result result) {
  static constexpr std::array kNames = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited",
                                        "operation in progress"};
  const auto at = static_cast<size_t>(result);
  return at < kNames.size() ? kNames[at] : "unknown result code";
}

const char* ncclGetLastError(Comm /*comm*/) {
  thread_local std::string copy;
  copy = LastWords();
  return copy.c_str();
}

Result ncclCommInitRankConfig(Comm* comm, int ranks, UniqueId id, int rank,
                              Config* config) {
  *comm = nullptr;
  if (config->size < sizeof(Config) || config->magic != 0xcafebeef ||
      config->version < 21400 || config->blocking != 0) {
    return Refuse(Result::kInvalidArgument, "only what does not block");
  }
  if (ranks < 1 || rank < 0 || rank >= ranks || id.internal.back() != '\x81') {
    return Refuse(Result::kInvalidArgument, "rank or id is damaged");
  }
  if (Planted("init_fails", "", rank)) {
    return Refuse(Result::kSystemError, "no socket is planted here");
  }
  auto made = std::make_unique<HostComm>();
  made->rank = rank;
  made->size = ranks;
  made->world =
      InSeveralProcesses() ? std::make_shared<World>() : Worlds::Get().Of(id);
  {
    const std::lock_guard lock(made->world->mutex);
    made->world->size = ranks;
    ++made->world->joined;
  }
  if (InSeveralProcesses()) {
    made->world->link = HostLink::Create(*made->world, id, rank);
    if (made->world->link == nullptr) {
      return Refuse(Result::kSystemError, "the name of this rank is taken");
    }
  }
  *comm = reinterpret_cast<Comm>(made.release());
  return Result::kInProgress;
}

#if HOST_NCCL_VERSION >= 22300
Result ncclCommInitRankScalable(Comm* comm, int ranks, int rank, int /*ids*/,
                                UniqueId* id, Config* config) {
  return ncclCommInitRankConfig(comm, ranks, *id, rank, config);
}
#endif

Result ncclCommGetAsyncError(Comm comm, Result* result) {
  HostComm& c = *Of(comm);
  const std::lock_guard lock(c.world->mutex);
  if (c.in_progress > 0) --c.in_progress;
  const bool waits =
      c.in_progress > 0 || c.never_queued || c.world->joined < c.world->size;
  *result = c.async != Result::kSuccess ? c.async
            : waits                     ? Result::kInProgress
                                        : Result::kSuccess;
  return Result::kSuccess;
}

Result ncclCommFinalize(Comm comm) { return CheckReady(*Of(comm)); }

Result ncclCommDestroy(Comm comm) {
  Free(Of(comm));
  return Result::kSuccess;
}

Result ncclCommAbort(Comm comm) {
  World& world = *Of(comm)->world;
  {
    const std::lock_guard lock(world.mutex);
    Of(comm)->aborted = true;
    world.changed.notify_all();
  }
  if (world.link != nullptr) world.link->Stop();
  Free(Of(comm));
  return Result::kSuccess;
}

Result ncclRedOpCreatePreMulSum(RedOp* op, void* scalar, DataType type,
                                ScalarResidence residence, Comm comm) {
  DType dtype;
  if (residence != ScalarResidence::kHostImmediate || !ToDType(type, dtype)) {
    return Refuse(Result::kInvalidArgument, "invalid scalar");
  }
  std::array<std::byte, 8> factor = {};
  std::memcpy(factor.data(), scalar,
              static_cast<size_t>(shardproof::SizeOf(dtype)));
  Of(comm)->scales.emplace_back(type, factor);
  *op = static_cast<RedOp>(static_cast<int>(RedOp::kNumOps) +
                           static_cast<int>(Of(comm)->scales.size()) - 1);
  return Result::kSuccess;
}

Result ncclRedOpDestroy(RedOp /*op*/, Comm comm) {
  Of(comm)->scales.pop_back();
  return Result::kSuccess;
}

Result ncclGroupStart() {
  ++group.depth;
  return Result::kSuccess;
}

Result ncclGroupEnd() {
  if (group.depth == 0) {
    return Refuse(Result::kInvalidUsage, "ncclGroupEnd without ncclGroupStart");
  }
  if (--group.depth > 0 || group.works.empty()) return Result::kSuccess;
  Launch(std::exchange(group.works, {}));
  return Result::kInProgress;
}

Result ncclSend(const void* send, size_t count, DataType type, int peer,
                Comm comm, Stream stream) {
  return Queue(
      Make("ncclSend", send, nullptr, count, type, comm, stream).To(peer));
}

Result ncclRecv(void* recv, size_t count, DataType type, int peer, Comm comm,
                Stream stream) {
  return Queue(
      Make("ncclRecv", nullptr, recv, count, type, comm, stream).To(peer));
}

Result ncclAllReduce(const void* send, void* recv, size_t count, DataType type,
                     RedOp op, Comm comm, Stream stream) {
  return Queue(
      Make("ncclAllReduce", send, recv, count, type, comm, stream).By(op));
}

Result ncclReduce(const void* send, void* recv, size_t count, DataType type,
                  RedOp op, int root, Comm comm, Stream stream) {
  return Queue(Make("ncclReduce", send, recv, count, type, comm, stream)
                   .By(op)
                   .To(root));
}

Result ncclReduceScatter(const void* send, void* recv, size_t count,
                         DataType type, RedOp op, Comm comm, Stream stream) {
  return Queue(
      Make("ncclReduceScatter", send, recv, count, type, comm, stream).By(op));
}

Result ncclBroadcast(const void* send, void* recv, size_t count, DataType type,
                     int root, Comm comm, Stream stream) {
  return Queue(
      Make("ncclBroadcast", send, recv, count, type, comm, stream).To(root));
}

#ifndef HOST_NCCL_WITHOUT_ALL_GATHER
Result ncclAllGather(const void* send, void* recv, size_t count, DataType type,
                     Comm comm, Stream stream) {
  return Queue(Make("ncclAllGather", send, recv, count, type, comm, stream));
}
#endif

#if HOST_NCCL_VERSION >= 22800
Result ncclAlltoAll(const void* send, void* recv, size_t count, DataType type,
                    Comm comm, Stream stream) {
  return Queue(Make("ncclAlltoAll", send, recv, count, type, comm, stream));
}

Result ncclGather(const void* send, void* recv, size_t count, DataType type,
                  int root, Comm comm, Stream stream) {
  return Queue(
      Make("ncclGather", send, recv, count, type, comm, stream).To(root));
}

Result ncclScatter(const void* send, void* recv, size_t count, DataType type,
                   int root, Comm comm, Stream stream) {
  return Queue(
      Make("ncclScatter", send, recv, count, type, comm, stream).To(root));
}
#endif

Stream hostNcclStreamCreate() {
  auto* stream = new HostStream;
  stream->thread = std::thread([stream] { stream->Run(); });
  return static_cast<StreamHandle*>(stream);
}

void hostNcclStreamDestroy(Stream handle) {
  auto* stream = StreamOf(handle);
  {
    const std::lock_guard lock(stream->mutex);
    stream->stop = true;
    stream->changed.notify_all();
  }
  stream->thread.join();
  delete stream;
}

bool hostNcclStreamDone(Stream handle) {
  auto* stream = StreamOf(handle);
  const std::lock_guard lock(stream->mutex);
  return stream->queue.empty() && !stream->busy;
}

#ifndef HOST_NCCL_FOR_GPUS
int takesEmulatedStreams() { return 1; }
#endif

void hostNcclPlant(const char* fault, int rank) { Plant(fault, rank); }

}  // extern "C"
#pragma GCC visibility pop
// NOLINTEND(readability-identifier-naming)
