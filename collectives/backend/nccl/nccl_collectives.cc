#include "collectives/backend/nccl/nccl_collectives.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <span>
#include <string_view>

#include "collectives/backend/nccl/nccl_types.h"

namespace shardproof {
namespace {

using nccl::Result;

// One request with what every function of the table needs.
struct Call {
  NcclCommunicator& comm;
  const nccl::Api& api;
  const NativeRequest& request;
  nccl::Stream stream;
  nccl::DataType type = nccl::DataType::kUint8;
  nccl::RedOp op = nccl::RedOp::kSum;

  const NativeRequest* operator->() const { return &request; }
  int rank() const { return comm.rank(); }
  int size() const { return comm.size(); }
  bool AtRoot() const { return rank() == request.root; }
  size_t count() const { return static_cast<size_t>(request.count); }
  NcclCall Named(std::string_view function) const {
    return {.primitive = request.primitive,
            .function = function,
            .count = request.count,
            .dtype = request.dtype};
  }
  // Takes what a function returned.
  Status Settle(Result result, std::string_view function) const {
    return comm.Settle(result, Named(function));
  }

  const std::byte* SendAt(int64_t element) const {
    return static_cast<const std::byte*>(request.send) +
           element * SizeOf(request.dtype);
  }
  std::byte* RecvAt(int64_t element) const {
    return static_cast<std::byte*>(request.recv) +
           element * SizeOf(request.dtype);
  }
};

bool Failed(Result result) {
  return result != Result::kSuccess && result != Result::kInProgress;
}

// The calls between ncclGroupStart and ncclGroupEnd. Keeps the first error, and
// makes no further call after it.
class Group {
 public:
  explicit Group(const Call& call) : call_(call) {}

  void Send(const void* data, int64_t count, int peer) {
    Do(count, [&](size_t n) {
      return call_.api.send(data, n, call_.type, peer, call_.comm.handle(),
                            call_.stream);
    });
  }
  void Recv(void* data, int64_t count, int peer) {
    Do(count, [&](size_t n) {
      return call_.api.recv(data, n, call_.type, peer, call_.comm.handle(),
                            call_.stream);
    });
  }
  void Broadcast(const void* send, void* recv, int64_t count, int root) {
    Do(count, [&](size_t n) {
      return call_.api.broadcast(send, recv, n, call_.type, root,
                                 call_.comm.handle(), call_.stream);
    });
  }
  void Reduce(const void* send, void* recv, int64_t count, int root) {
    Do(count, [&](size_t n) {
      return call_.api.reduce(send, recv, n, call_.type, call_.op, root,
                              call_.comm.handle(), call_.stream);
    });
  }
  Result first() const { return first_; }

 private:
  template <class F>
  void Do(int64_t count, F f) {
    if (count == 0 || Failed(first_)) return;
    first_ = f(static_cast<size_t>(count));
  }

  const Call& call_;
  Result first_ = Result::kSuccess;
};

// Runs body(group) as one operation of the library. A group is ended even after
// an error: the thread would stay in it.
template <class Body>
Status Grouped(const Call& call, std::string_view functions, Body body) {
  SP_RETURN_IF_ERROR(call.Settle(call.api.group_start(), "ncclGroupStart"));
  Group group(call);
  body(group);
  const Result end = call.api.group_end();
  return call.Settle(Failed(group.first()) ? group.first() : end, functions);
}

constexpr std::string_view kMessages = "ncclSend and ncclRecv";

// Where the blocks of the ranks lie: a view of the request's spans.
class BlockTable {
 public:
  BlockTable(std::span<const int64_t> counts, std::span<const int64_t> offsets)
      : counts_(counts), offsets_(offsets) {}
  static Status Check(const Call& call, std::span<const int64_t> counts,
                      std::span<const int64_t> offsets) {
    const auto size = static_cast<size_t>(call.size());
    if (counts.size() == size && (offsets.empty() || offsets.size() == size)) {
      return OkStatus();
    }
    return InvalidArgument("{} needs {} counts and as many offsets or none",
                           call->primitive, size);
  }

  // Calls f(rank, begin, count) for each block, in order.
  template <class F>
  void ForEach(F f) const {
    int64_t packed = 0;
    for (size_t r = 0; r < counts_.size(); ++r) {
      f(static_cast<int>(r), offsets_.empty() ? packed : offsets_[r],
        counts_[r]);
      packed += counts_[r];
    }
  }

 private:
  std::span<const int64_t> counts_, offsets_;
};

Status AllReduce(const Call& call) {
  return call.Settle(
      call.api.all_reduce(call->send, call->recv, call.count(), call.type,
                          call.op, call.comm.handle(), call.stream),
      "ncclAllReduce");
}

Status Reduce(const Call& call) {
  return call.Settle(
      call.api.reduce(call->send, call->recv, call.count(), call.type, call.op,
                      call->root, call.comm.handle(), call.stream),
      "ncclReduce");
}

Status Broadcast(const Call& call) {
  return call.Settle(
      call.api.broadcast(call->send, call->recv, call.count(), call.type,
                         call->root, call.comm.handle(), call.stream),
      "ncclBroadcast");
}

Status ReduceScatter(const Call& call) {
  return call.Settle(
      call.api.reduce_scatter(call->send, call->recv, call.count(), call.type,
                              call.op, call.comm.handle(), call.stream),
      "ncclReduceScatter");
}

Status ReduceScatterV(const Call& call) {
  SP_RETURN_IF_ERROR(BlockTable::Check(call, call->recv_counts, {}));
  return Grouped(call, "ncclReduce", [&](Group& group) {
    BlockTable(call->recv_counts, {})
        .ForEach([&](int root, int64_t begin, int64_t count) {
          group.Reduce(call.SendAt(begin),
                       root == call.rank() ? call->recv : nullptr, count, root);
        });
  });
}

Status AllGather(const Call& call) {
  return call.Settle(
      call.api.all_gather(call->send, call->recv, call.count(), call.type,
                          call.comm.handle(), call.stream),
      "ncclAllGather");
}

Status AllGatherV(const Call& call) {
  SP_RETURN_IF_ERROR(
      BlockTable::Check(call, call->recv_counts, call->recv_offsets));
  return Grouped(call, "ncclBroadcast", [&](Group& group) {
    BlockTable(call->recv_counts, call->recv_offsets)
        .ForEach([&](int root, int64_t begin, int64_t count) {
          // Only the root's input is read; NCCL wants an address from all.
          group.Broadcast(root == call.rank() ? call->send : call.RecvAt(begin),
                          call.RecvAt(begin), count, root);
        });
  });
}

// Every rank's `count` elements to their block at the root. What lies there
// already stays.
template <class Blocks>
Status GatherByMessages(const Call& call, int64_t mine, Blocks for_each) {
  return Grouped(call, kMessages, [&](Group& group) {
    const bool lies_there = call->in_place && call.AtRoot();
    if (!lies_there) group.Send(call->send, mine, call->root);
    if (!call.AtRoot()) return;
    for_each([&](int from, int64_t begin, int64_t count) {
      if (lies_there && from == call.rank()) return;
      group.Recv(call.RecvAt(begin), count, from);
    });
  });
}

template <class Blocks>
Status ScatterByMessages(const Call& call, int64_t mine, Blocks for_each) {
  return Grouped(call, kMessages, [&](Group& group) {
    const bool lies_there = call->in_place && call.AtRoot();
    if (!lies_there) group.Recv(call->recv, mine, call->root);
    if (!call.AtRoot()) return;
    for_each([&](int to, int64_t begin, int64_t count) {
      if (lies_there && to == call.rank()) return;
      group.Send(call.SendAt(begin), count, to);
    });
  });
}

// Calls f(rank, begin, count) for equal blocks.
auto EvenBlocks(const Call& call) {
  return [&call](auto f) {
    for (int r = 0; r < call.size(); ++r) {
      f(r, r * call->count, call->count);
    }
  };
}

auto ListedBlocks(std::span<const int64_t> counts,
                  std::span<const int64_t> offsets) {
  return [=](auto f) { BlockTable(counts, offsets).ForEach(f); };
}

Status Gather(const Call& call) {
  if (call.api.gather == nullptr) {
    return GatherByMessages(call, call->count, EvenBlocks(call));
  }
  return call.Settle(
      call.api.gather(call->send, call->recv, call.count(), call.type,
                      call->root, call.comm.handle(), call.stream),
      "ncclGather");
}

Status GatherV(const Call& call) {
  SP_RETURN_IF_ERROR(
      BlockTable::Check(call, call->recv_counts, call->recv_offsets));
  return GatherByMessages(call, call->recv_counts[call.rank()],
                          ListedBlocks(call->recv_counts, call->recv_offsets));
}

Status Scatter(const Call& call) {
  if (call.api.scatter == nullptr) {
    return ScatterByMessages(call, call->count, EvenBlocks(call));
  }
  return call.Settle(
      call.api.scatter(call->send, call->recv, call.count(), call.type,
                       call->root, call.comm.handle(), call.stream),
      "ncclScatter");
}

Status ScatterV(const Call& call) {
  SP_RETURN_IF_ERROR(
      BlockTable::Check(call, call->send_counts, call->send_offsets));
  return ScatterByMessages(call, call->send_counts[call.rank()],
                           ListedBlocks(call->send_counts, call->send_offsets));
}

// What is received may come before what lies there has been sent.
Status RefuseInPlace(std::string_view what) {
  return Unsupported("NCCL has no {} in place", what);
}

Status AllToAll(const Call& call) {
  if (call->in_place && call->count > 0) return RefuseInPlace("all_to_all");
  if (call.api.all_to_all != nullptr) {
    return call.Settle(
        call.api.all_to_all(call->send, call->recv, call.count(), call.type,
                            call.comm.handle(), call.stream),
        "ncclAlltoAll");
  }
  return Grouped(call, kMessages, [&](Group& group) {
    for (int r = 0; r < call.size(); ++r) {
      group.Send(call.SendAt(r * call->count), call->count, r);
      group.Recv(call.RecvAt(r * call->count), call->count, r);
    }
  });
}

Status AllToAllV(const Call& call) {
  // Refused whatever the counts are: they differ between ranks, and the answer
  // must not.
  if (call->in_place) return RefuseInPlace("all_to_all_v");
  SP_RETURN_IF_ERROR(
      BlockTable::Check(call, call->send_counts, call->send_offsets));
  SP_RETURN_IF_ERROR(
      BlockTable::Check(call, call->recv_counts, call->recv_offsets));
  return Grouped(call, kMessages, [&](Group& group) {
    BlockTable(call->send_counts, call->send_offsets)
        .ForEach([&](int to, int64_t begin, int64_t count) {
          group.Send(call.SendAt(begin), count, to);
        });
    BlockTable(call->recv_counts, call->recv_offsets)
        .ForEach([&](int from, int64_t begin, int64_t count) {
          group.Recv(call.RecvAt(begin), count, from);
        });
  });
}

Status SendRecv(const Call& call) {
  if (call->destination >= call.size() || call->source >= call.size()) {
    return InvalidArgument("send_recv to rank {} from rank {} among {}",
                           call->destination, call->source, call.size());
  }
  // Also where this rank has one partner only: the others have two.
  if (call->in_place && call->send != nullptr && call->count > 0) {
    return RefuseInPlace("send_recv");
  }
  return Grouped(call, kMessages, [&](Group& group) {
    if (call->destination >= 0) {
      group.Send(call->send, call->count, call->destination);
    }
    if (call->source >= 0) group.Recv(call->recv, call->count, call->source);
  });
}

Status Barrier(const Call& call) {
  void* one = call.comm.device().scratch();
  return call.Settle(
      call.api.all_reduce(one, one, 1, nccl::DataType::kInt32,
                          nccl::RedOp::kSum, call.comm.handle(), call.stream),
      "ncclAllReduce");
}

struct Row {
  std::string_view primitive;
  Status (*run)(const Call& call);
  bool reduces = false;
};

constexpr Row kTable[] = {
    {"all_reduce", &AllReduce, true},
    {"reduce", &Reduce, true},
    {"reduce_scatter", &ReduceScatter, true},
    {"reduce_scatter_v", &ReduceScatterV, true},
    {"broadcast", &Broadcast},
    {"all_gather", &AllGather},
    {"all_gather_v", &AllGatherV},
    {"gather", &Gather},
    {"gather_v", &GatherV},
    {"scatter", &Scatter},
    {"scatter_v", &ScatterV},
    {"all_to_all", &AllToAll},
    {"all_to_all_v", &AllToAllV},
    {"send_recv", &SendRecv},
    {"barrier", &Barrier},
};

// premul_sum is an operation that the communicator makes for each factor. The
// library keeps what it needs of it once it has been used.
Status RunPremulSum(Call call, const Row& row) {
  const NcclCall make = call.Named("ncclRedOpCreatePreMulSum");
  std::array<std::byte, 8> scalar = {};
  FromDouble(call->dtype, &call->scale, 1, scalar.data());
  SP_RETURN_IF_ERROR(call.comm.Settle(
      call.api.red_op_create_pre_mul_sum(&call.op, scalar.data(), call.type,
                                         nccl::ScalarResidence::kHostImmediate,
                                         call.comm.handle()),
      make));
  const Status ran = row.run(call);
  // An aborted communicator has no handle, and took its operations with it.
  if (!call.comm.health().ok()) return ran;
  const Status destroyed = call.Settle(
      call.api.red_op_destroy(call.op, call.comm.handle()), "ncclRedOpDestroy");
  return ran.ok() ? destroyed : ran;
}

StatusOr<const Row*> RowOf(const NativeRequest& request) {
  const Row* row = std::find_if(
      std::begin(kTable), std::end(kTable), [&](const Row& candidate) {
        return candidate.primitive == request.primitive;
      });
  if (row == std::end(kTable)) {
    return Unsupported("NCCL has no {}", request.primitive);
  }
  return row;
}

}  // namespace

Status EnqueueNcclNative(NcclCommunicator& comm, const NativeRequest& request,
                         nccl::Stream stream) {
  SP_RETURN_IF_ERROR(comm.health());
  SP_ASSIGN_OR_RETURN(const Row* row, RowOf(request));
  if (request.count < 0) {
    return InvalidArgument("a count of {}", request.count);
  }
  if (request.root < 0 || request.root >= comm.size()) {
    return InvalidArgument("root {} among {} ranks", request.root, comm.size());
  }
  Call call{.comm = comm,
            .api = comm.library().api(),
            .request = request,
            .stream = stream};
  if (!row->reduces) {
    call.type = NcclMovementType(comm.library(), request.dtype);
    return row->run(call);
  }
  SP_ASSIGN_OR_RETURN(call.type,
                      NcclReductionType(comm.library(), request.dtype));
  if (request.op == ReduceOp::kPremulSum) return RunPremulSum(call, *row);
  call.op = NcclReductionOp(request.op);
  return row->run(call);
}

Status RunNcclNative(NcclCommunicator& comm, const NativeRequest& request,
                     nccl::Stream stream) {
  SP_RETURN_IF_ERROR(EnqueueNcclNative(comm, request, stream));
  return comm.Finish(stream, {.primitive = request.primitive,
                              .function = "NCCL",
                              .count = request.count,
                              .dtype = request.dtype});
}

}  // namespace shardproof
