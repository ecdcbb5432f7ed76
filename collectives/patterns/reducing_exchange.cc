#include "collectives/patterns/reducing_exchange.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "collectives/chunks.h"
#include "collectives/kernels/reduce.h"
#include "collectives/patterns/scratch.h"

namespace shardproof {
namespace {

int64_t SegmentCount(DType dtype) { return kSegmentBytes / SizeOf(dtype); }

int64_t Segments(int64_t count, DType dtype) {
  return (count + SegmentCount(dtype) - 1) / SegmentCount(dtype);
}

Chunk Segment(int64_t count, DType dtype, int64_t index) {
  const int64_t begin = index * SegmentCount(dtype);
  return {begin, std::min(SegmentCount(dtype), count - begin)};
}

// At most one message in each of its two places; waits for what is left when an
// error ends the exchange early.
class InFlight {
 public:
  explicit InFlight(const Communicator& comm) : comm_(comm) {}
  ~InFlight() {
    for (int place : {0, 1}) (void)Wait(place);
  }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;

  Status Set(int64_t place, StatusOr<Request> started) {
    if (!started.ok()) return std::move(started).status();
    requests_[place % 2] = *std::move(started);
    busy_[place % 2] = true;
    return OkStatus();
  }
  Status Wait(int64_t place) {
    if (!std::exchange(busy_[place % 2], false)) return OkStatus();
    return comm_.Wait(requests_[place % 2]);
  }

 private:
  const Communicator& comm_;
  Request requests_[2];
  bool busy_[2] = {false, false};
};

}  // namespace

// Segment s of what arrives lands in place s mod 2 of the scratch, so that
// segment s + 1 is on its way while s is added. Each rank makes
//
//     max(ceil(out_count / segment), ceil(count / segment))
//
// trips, and starts segment s + 1 of both directions before it waits for
// segment s of either: then the partner's segment s always finds a receive that
// has been posted, and nobody waits in a circle. The wait for our own segment s
// to leave comes before result is written at s, since out may be result.
Status ReducingExchange(const Communicator& comm, const Combine& combine,
                        const ReducingStep& step) {
  const DType dtype = combine.dtype;
  const int64_t sends = step.to < 0 ? 0 : Segments(step.out_count, dtype);
  const int64_t receives = step.from < 0 ? 0 : Segments(step.count, dtype);
  std::byte* arriving = nullptr;
  if (receives > 0) {
    SP_ASSIGN_OR_RETURN(
        arriving,
        Scratch(comm, ScratchSlot::kSegments,
                std::min(step.count, 2 * SegmentCount(dtype)), dtype));
  }
  const auto place = [&](int64_t s) {
    return At(arriving, dtype, s % 2 * SegmentCount(dtype));
  };
  InFlight sent(comm), received(comm);
  const auto start = [&](int64_t s) -> Status {
    if (s < receives) {
      const Chunk in = Segment(step.count, dtype, s);
      SP_RETURN_IF_ERROR(received.Set(
          s, comm.Irecv(place(s), in.count * SizeOf(dtype), step.from)));
    }
    if (s < sends) {
      const Chunk out = Segment(step.out_count, dtype, s);
      SP_RETURN_IF_ERROR(
          sent.Set(s, comm.Isend(At(step.out, dtype, out.begin),
                                 out.count * SizeOf(dtype), step.to)));
    }
    return OkStatus();
  };
  const int64_t divisor = step.finishes ? combine.divisor : 1;
  SP_RETURN_IF_ERROR(start(0));
  for (int64_t s = 0; s < std::max(sends, receives); ++s) {
    SP_RETURN_IF_ERROR(start(s + 1));
    SP_RETURN_IF_ERROR(sent.Wait(s));
    SP_RETURN_IF_ERROR(received.Wait(s));
    if (s >= receives) continue;
    const Chunk in = Segment(step.count, dtype, s);
    const void* sources[] = {At(step.own, dtype, in.begin), place(s)};
    if (step.from < comm.rank()) std::swap(sources[0], sources[1]);
    void* result = At(step.result, dtype, in.begin);
    kernels::Reduce(dtype, combine.op, sources, in.count, {&result, 1},
                    {.divisor = divisor});
  }
  return OkStatus();
}

Arithmetic ExchangeArithmetic(int ranks, DType dtype, ReduceOp op,
                              int additions) {
  Arithmetic arithmetic = Arithmetic::For(dtype, ranks);
  arithmetic.depth = additions;
  arithmetic.wire_roundings = additions + (op == ReduceOp::kPremulSum ? 1 : 0);
  // A sum carries the roundings of a contribution's own path. In a product the
  // relative errors of both operands multiply, whatever the tree.
  if (op == ReduceOp::kProd) {
    arithmetic.depth = arithmetic.wire_roundings = std::max(ranks - 1, 1);
  }
  return arithmetic;
}

Traffic InSegments(int64_t count, DType dtype) {
  return {count * SizeOf(dtype), Segments(count, dtype)};
}

Traffic InOneMessage(int64_t count, DType dtype) {
  return {count * SizeOf(dtype), count > 0 ? 1 : 0};
}

}  // namespace shardproof
