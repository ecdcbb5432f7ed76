#include "collectives/backend/mpi/mpi_native.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "collectives/backend/mpi/mpi_types.h"

namespace shardproof {
namespace {

// One request with what every function of the table needs.
struct Call {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  int64_t limit = INT_MAX;
  const NativeRequest* request = nullptr;
  MPI_Datatype type = MPI_DATATYPE_NULL;  // The reduction's or the movement's.
  MPI_Op op = MPI_OP_NULL;

  const NativeRequest& operator*() const { return *request; }
  const NativeRequest* operator->() const { return request; }
  bool AtRoot() const { return rank == request->root; }
  // What stands for the input where it lies in the output.
  const void* Send(bool in_place) const {
    return in_place ? MPI_IN_PLACE : request->send;
  }
};

// Counts and offsets of all ranks as MPI takes them.
struct BlockTable {
  std::vector<int> counts;
  std::vector<int> offsets;
};

StatusOr<BlockTable> ToBlocks(const Call& call, std::span<const int64_t> counts,
                              std::span<const int64_t> offsets) {
  const auto size = static_cast<size_t>(call.size);
  if (counts.size() != size || (!offsets.empty() && offsets.size() != size)) {
    return InvalidArgument("{} needs {} counts and as many offsets or none",
                           call->primitive, size);
  }
  BlockTable table{std::vector<int>(size), std::vector<int>(size)};
  int64_t packed = 0;
  for (size_t r = 0; r < size; ++r) {
    const int64_t offset = offsets.empty() ? packed : offsets[r];
    packed += counts[r];
    if (counts[r] > call.limit || offset > call.limit) {
      return Unsupported(
          "the block of rank {} has {} elements at {}; MPI counts to {}", r,
          counts[r], offset, call.limit);
    }
    table.counts[r] = static_cast<int>(counts[r]);
    table.offsets[r] = static_cast<int>(offset);
  }
  return table;
}

// Calls run(first, n) over [0, count) in parts that an int counts. Only for
// what is done element by element.
template <class Run>
Status InParts(const Call& call, std::string_view what, Run run) {
  int64_t first = 0;
  do {
    const int64_t n = std::min(call->count - first, call.limit);
    SP_RETURN_IF_ERROR(MpiStatus(run(first, static_cast<int>(n)), what));
    first += n;
  } while (first < call->count);
  return OkStatus();
}

const void* Advance(const Call& call, const void* data, int64_t elements) {
  if (data == nullptr || data == MPI_IN_PLACE) return data;
  return static_cast<const std::byte*>(data) + elements * SizeOf(call->dtype);
}
void* Advance(const Call& call, void* data, int64_t elements) {
  return const_cast<void*>(
      Advance(call, static_cast<const void*>(data), elements));
}

Status AllReduce(const Call& call) {
  return InParts(call, "MPI_Allreduce", [&](int64_t first, int n) {
    return MPI_Allreduce(Advance(call, call.Send(call->in_place), first),
                         Advance(call, call->recv, first), n, call.type,
                         call.op, call.comm);
  });
}

Status Reduce(const Call& call) {
  const void* send = call.Send(call->in_place && call.AtRoot());
  return InParts(call, "MPI_Reduce", [&](int64_t first, int n) {
    return MPI_Reduce(Advance(call, send, first),
                      Advance(call, call->recv, first), n, call.type, call.op,
                      call->root, call.comm);
  });
}

Status Broadcast(const Call& call) {
  void* data = call.AtRoot() ? const_cast<void*>(call->send) : call->recv;
  SP_RETURN_IF_ERROR(InParts(call, "MPI_Bcast", [&](int64_t first, int n) {
    return MPI_Bcast(Advance(call, data, first), n, call.type, call->root,
                     call.comm);
  }));
  if (call.AtRoot() && !call->in_place && call->count > 0) {
    std::memcpy(call->recv, call->send,
                static_cast<size_t>(call->count) * SizeOf(call->dtype));
  }
  return OkStatus();
}

// MPI's form in place leaves every result at the start of the buffer and
// destroys the rest; ours leaves it at the rank's block and the rest alone.
Status RefuseInPlaceReduceScatter() {
  return Unsupported(
      "MPI's reduce_scatter in place overwrites the whole buffer");
}

Status ReduceScatter(const Call& call) {
  if (call->count > call.limit) {
    return Unsupported("{} elements for each rank; MPI counts to {}",
                       call->count, call.limit);
  }
  if (call->in_place && call->count > 0) return RefuseInPlaceReduceScatter();
  return MpiStatus(MPI_Reduce_scatter_block(call->send, call->recv,
                                            static_cast<int>(call->count),
                                            call.type, call.op, call.comm),
                   "MPI_Reduce_scatter_block");
}

Status ReduceScatterV(const Call& call) {
  SP_ASSIGN_OR_RETURN(const BlockTable blocks,
                      ToBlocks(call, call->recv_counts, {}));
  const bool empty = std::all_of(blocks.counts.begin(), blocks.counts.end(),
                                 [](int count) { return count == 0; });
  if (call->in_place && !empty) return RefuseInPlaceReduceScatter();
  return MpiStatus(
      MPI_Reduce_scatter(call->send, call->recv, blocks.counts.data(),
                         call.type, call.op, call.comm),
      "MPI_Reduce_scatter");
}

Status AllGather(const Call& call) {
  SP_ASSIGN_OR_RETURN(const Elements block,
                      Elements::Of(call.type, call->count, call.limit));
  return MpiStatus(
      MPI_Allgather(call.Send(call->in_place), block.count(), block.type(),
                    call->recv, block.count(), block.type(), call.comm),
      "MPI_Allgather");
}

Status AllGatherV(const Call& call) {
  SP_ASSIGN_OR_RETURN(const BlockTable blocks,
                      ToBlocks(call, call->recv_counts, call->recv_offsets));
  return MpiStatus(
      MPI_Allgatherv(call.Send(call->in_place), blocks.counts[call.rank],
                     call.type, call->recv, blocks.counts.data(),
                     blocks.offsets.data(), call.type, call.comm),
      "MPI_Allgatherv");
}

Status Gather(const Call& call) {
  SP_ASSIGN_OR_RETURN(const Elements block,
                      Elements::Of(call.type, call->count, call.limit));
  return MpiStatus(
      MPI_Gather(call.Send(call->in_place && call.AtRoot()), block.count(),
                 block.type(), call->recv, block.count(), block.type(),
                 call->root, call.comm),
      "MPI_Gather");
}

Status GatherV(const Call& call) {
  SP_ASSIGN_OR_RETURN(const BlockTable blocks,
                      ToBlocks(call, call->recv_counts, call->recv_offsets));
  return MpiStatus(MPI_Gatherv(call.Send(call->in_place && call.AtRoot()),
                               blocks.counts[call.rank], call.type, call->recv,
                               blocks.counts.data(), blocks.offsets.data(),
                               call.type, call->root, call.comm),
                   "MPI_Gatherv");
}

// In a scatter it is the root's output that may lie in its input.
void* ScatterOutput(const Call& call) {
  return call->in_place && call.AtRoot() ? MPI_IN_PLACE : call->recv;
}

Status Scatter(const Call& call) {
  SP_ASSIGN_OR_RETURN(const Elements block,
                      Elements::Of(call.type, call->count, call.limit));
  return MpiStatus(
      MPI_Scatter(call->send, block.count(), block.type(), ScatterOutput(call),
                  block.count(), block.type(), call->root, call.comm),
      "MPI_Scatter");
}

Status ScatterV(const Call& call) {
  SP_ASSIGN_OR_RETURN(const BlockTable blocks,
                      ToBlocks(call, call->send_counts, call->send_offsets));
  return MpiStatus(
      MPI_Scatterv(call->send, blocks.counts.data(), blocks.offsets.data(),
                   call.type, ScatterOutput(call), blocks.counts[call.rank],
                   call.type, call->root, call.comm),
      "MPI_Scatterv");
}

Status AllToAll(const Call& call) {
  SP_ASSIGN_OR_RETURN(const Elements block,
                      Elements::Of(call.type, call->count, call.limit));
  return MpiStatus(
      MPI_Alltoall(call.Send(call->in_place), block.count(), block.type(),
                   call->recv, block.count(), block.type(), call.comm),
      "MPI_Alltoall");
}

Status AllToAllV(const Call& call) {
  // Refused whatever the counts are: only all ranks together know whether
  // MPI's condition holds, and they must give one answer.
  if (call->in_place) {
    return Unsupported(
        "MPI_Alltoallv in place takes what it sends from where it receives; "
        "ours allows any two layouts");
  }
  SP_ASSIGN_OR_RETURN(const BlockTable out,
                      ToBlocks(call, call->send_counts, call->send_offsets));
  SP_ASSIGN_OR_RETURN(const BlockTable in,
                      ToBlocks(call, call->recv_counts, call->recv_offsets));
  return MpiStatus(
      MPI_Alltoallv(call->send, out.counts.data(), out.offsets.data(),
                    call.type, call->recv, in.counts.data(), in.offsets.data(),
                    call.type, call.comm),
      "MPI_Alltoallv");
}

Status SendRecv(const Call& call) {
  const auto partner = [](int rank) { return rank < 0 ? MPI_PROC_NULL : rank; };
  if (call->destination >= call.size || call->source >= call.size) {
    return InvalidArgument("send_recv to rank {} from rank {} among {}",
                           call->destination, call->source, call.size);
  }
  SP_ASSIGN_OR_RETURN(const Elements block,
                      Elements::Of(call.type, call->count, call.limit));
  if (call->in_place && call->send == call->recv) {
    return MpiStatus(
        MPI_Sendrecv_replace(
            call->recv, block.count(), block.type(), partner(call->destination),
            0, partner(call->source), 0, call.comm, MPI_STATUS_IGNORE),
        "MPI_Sendrecv_replace");
  }
  return MpiStatus(
      MPI_Sendrecv(call->send, block.count(), block.type(),
                   partner(call->destination), 0, call->recv, block.count(),
                   block.type(), partner(call->source), 0, call.comm,
                   MPI_STATUS_IGNORE),
      "MPI_Sendrecv");
}

Status Barrier(const Call& call) {
  return MpiStatus(MPI_Barrier(call.comm), "MPI_Barrier");
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

}  // namespace

Status RunMpiNative(MPI_Comm comm, const NativeRequest& request,
                    int64_t limit) {
  const Row* row = std::find_if(
      std::begin(kTable), std::end(kTable), [&](const Row& candidate) {
        return candidate.primitive == request.primitive;
      });
  if (row == std::end(kTable)) {
    return Unsupported("MPI has no {}", request.primitive);
  }
  Call call{.comm = comm, .limit = limit, .request = &request};
  MPI_Comm_rank(comm, &call.rank);
  MPI_Comm_size(comm, &call.size);
  if (request.count < 0) {
    return InvalidArgument("a count of {}", request.count);
  }
  if (request.root < 0 || request.root >= call.size) {
    return InvalidArgument("root {} among {} ranks", request.root, call.size);
  }
  if (row->reduces) {
    SP_ASSIGN_OR_RETURN(call.type, ReductionType(request.dtype));
    SP_ASSIGN_OR_RETURN(call.op, ReductionOp(request.op));
  } else {
    call.type = MovementType(request.dtype);
  }
  return row->run(call);
}

}  // namespace shardproof
