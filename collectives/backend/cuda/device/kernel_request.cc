#include "collectives/backend/cuda/device/kernel_request.h"

#include <algorithm>
#include <iterator>
#include <string_view>

namespace shardproof::cuda {
namespace {

struct Row {
  std::string_view name;
  Primitive primitive;
};

// "all_reduce" itself is chosen by size.
constexpr Row kTable[] = {
    {"all_reduce_one_shot", Primitive::kAllReduceOneShot},
    {"all_reduce_two_shot", Primitive::kAllReduceTwoShot},
    {"reduce_scatter", Primitive::kReduceScatter},
    {"reduce", Primitive::kReduce},
    {"all_gather", Primitive::kAllGather},
    {"broadcast", Primitive::kBroadcast},
    {"all_to_all", Primitive::kAllToAll},
    {"send_recv", Primitive::kSendRecv},
    {"barrier", Primitive::kBarrier},
};

StatusOr<Primitive> Choose(const NativeRequest& request,
                           int64_t one_shot_bytes) {
  if (request.primitive == "all_reduce") {
    return request.count * SizeOf(request.dtype) <= one_shot_bytes
               ? Primitive::kAllReduceOneShot
               : Primitive::kAllReduceTwoShot;
  }
  const Row* row =
      std::find_if(std::begin(kTable), std::end(kTable),
                   [&](const Row& r) { return r.name == request.primitive; });
  if (row == std::end(kTable)) {
    return Unsupported("the cuda backend has no kernel for {}",
                       request.primitive);
  }
  return row->primitive;
}

// What kernels read of `r`, beside pointers, factors and partners.
bool AskTheSame(const NativeRequest& a, const NativeRequest& b) {
  return a.primitive == b.primitive && a.count == b.count &&
         a.dtype == b.dtype && a.op == b.op && a.root == b.root;
}

Status CheckNumbers(std::span<const NativeRequest> requests) {
  const NativeRequest& first = requests.front();
  const auto ranks = static_cast<int>(requests.size());
  for (int r = 1; r < ranks; ++r) {
    const NativeRequest& other = requests[static_cast<size_t>(r)];
    if (AskTheSame(first, other)) continue;
    return InvalidArgument(
        "ranks 0 and {} do not ask the same: {} of {} {} (op {}, root {}) and "
        "{} of {} {} (op {}, root {})",
        r, first.primitive, first.count, Name(first.dtype), Name(first.op),
        first.root, other.primitive, other.count, Name(other.dtype),
        Name(other.op), other.root);
  }
  if (first.count < 0) return InvalidArgument("a count of {}", first.count);
  if (first.root < 0 || first.root >= ranks) {
    return InvalidArgument("root {} among {} ranks", first.root, ranks);
  }
  return OkStatus();
}

Status CheckPartners(std::span<const NativeRequest> requests) {
  const auto ranks = static_cast<int>(requests.size());
  const auto partner = [&](int r) -> const NativeRequest& {
    return requests[static_cast<size_t>(r)];
  };
  for (int r = 0; r < ranks; ++r) {
    const int to = partner(r).destination;
    const int from = partner(r).source;
    if (to >= ranks || from >= ranks) {
      return InvalidArgument("send_recv to rank {} from rank {} among {}", to,
                             from, ranks);
    }
    if (to >= 0 && partner(to).source != r) {
      return InvalidArgument(
          "rank {} sends to rank {}, which receives from rank {}", r, to,
          partner(to).source);
    }
    if (from >= 0 && partner(from).destination != r) {
      return InvalidArgument(
          "rank {} receives from rank {}, which sends to rank {}", r, from,
          partner(from).destination);
    }
  }
  return OkStatus();
}

// Which of its two buffers a rank's kernel or a peer's touches.
struct Touched {
  bool send = true, recv = true;
};

Touched TouchedBy(Primitive primitive, const NativeRequest& request, int rank) {
  if (request.count == 0) return {false, false};
  switch (primitive) {
    case Primitive::kBarrier:
      return {false, false};
    case Primitive::kReduce:
      return {true, rank == request.root};
    case Primitive::kBroadcast:
      return {rank == request.root, true};
    case Primitive::kSendRecv:
      return {request.destination >= 0, request.source >= 0};
    default:
      return {};
  }
}

Status CheckBuffer(const NativeRequest& request, const void* data,
                   std::string_view what, int rank, const GpuSystem& gpus) {
  if (reinterpret_cast<uintptr_t>(data) %
          static_cast<size_t>(SizeOf(request.dtype)) !=
      0) {
    return InvalidArgument(
        "the {} buffer of rank {} is not aligned to its elements, which are "
        "{}",
        what, rank, Name(request.dtype));
  }
  if (!gpus.Addresses(data)) {
    return Unsupported(
        "the {} buffer of rank {} is ordinary memory, which a kernel cannot "
        "address: kernels work on what the communicator allocates",
        what, rank);
  }
  return OkStatus();
}

}  // namespace

StatusOr<KernelRequest> ToKernelRequest(std::span<const NativeRequest> requests,
                                        const GpuSystem& gpus,
                                        int64_t one_shot_bytes) {
  if (requests.size() > kMaxRanks) {
    return Unsupported("the kernels are for up to {} ranks, and these are {}",
                       kMaxRanks, requests.size());
  }
  const NativeRequest& first = requests.front();
  KernelRequest out;
  SP_ASSIGN_OR_RETURN(out.primitive, Choose(first, one_shot_bytes));
  SP_RETURN_IF_ERROR(CheckNumbers(requests));
  if (out.primitive == Primitive::kSendRecv) {
    SP_RETURN_IF_ERROR(CheckPartners(requests));
  }
  out.dtype = first.dtype;
  out.op = first.op;
  out.args.count = first.count;
  out.args.element_bytes = SizeOf(first.dtype);
  out.args.root = first.root;
  for (size_t r = 0; r < requests.size(); ++r) {
    const NativeRequest& request = requests[r];
    const int rank = static_cast<int>(r);
    const Touched touched = TouchedBy(out.primitive, request, rank);
    if (touched.send) {
      SP_RETURN_IF_ERROR(
          CheckBuffer(request, request.send, "send", rank, gpus));
    }
    if (touched.recv) {
      SP_RETURN_IF_ERROR(
          CheckBuffer(request, request.recv, "recv", rank, gpus));
    }
    out.args.send[r] = request.send;
    out.args.recv[r] = request.recv;
    out.args.destination[r] = request.destination;
    out.args.scales[r] = request.scale;
  }
  return out;
}

}  // namespace shardproof::cuda
