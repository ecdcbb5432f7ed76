#include "collectives/patterns/ring.h"

#include <algorithm>

#include "collectives/patterns/scratch.h"

namespace shardproof {

// Chunk c must visit all p ranks and end at rank c, so it starts at rank c + 1
// and makes p - 1 hops. Hop t of chunk c leaves rank c + 1 + t; read backwards,
// rank r in step t
//
//     sends     chunk r - 1 - t     its own input at t = 0, else the partial
// sum
//                                   of step t - 1
//     receives  chunk r - 2 - t     and adds its own input to it
//
// for t = 0 .. p - 2. What is received in step t is what is sent in step t + 1,
// and in the last step r - 2 - (p - 2) = r mod p: the chunk that stays. Every
// chunk is thus added to p - 1 times, in the order of the ranks it visits.
//
// Each step moves one chunk as ceil(chunk / segment) messages; chunks differ by
// at most one element where they are balanced, so the ranks' numbers of trips
// differ by at most one.
Status RingReduceScatter(const Communicator& comm, const Combine& combine,
                         const Blocks& blocks, const void* send, void* vector,
                         void* recv) {
  const int p = comm.size(), r = comm.rank();
  const auto chunk = [&](int back) { return (r + 2 * p - back) % p; };
  const DType dtype = combine.dtype;
  const int64_t largest = blocks.Largest();
  std::byte* scratch = nullptr;
  if (vector == nullptr && p > 2) {
    SP_ASSIGN_OR_RETURN(
        scratch, Scratch(comm, ScratchSlot::kVector, 2 * largest, dtype));
  }
  const void* out = At(send, dtype, blocks.Begin(chunk(1)));
  for (int t = 0; t <= p - 2; ++t) {
    const int sent = chunk(1 + t), received = chunk(2 + t);
    const int64_t begin = blocks.Begin(received);
    const bool last = t == p - 2;
    void* sum = vector != nullptr ? At(vector, dtype, begin)
                : last            ? recv
                                  : At(scratch, dtype, t % 2 * largest);
    SP_RETURN_IF_ERROR(ReducingExchange(comm, combine,
                                        {.to = (r + 1) % p,
                                         .out = out,
                                         .out_count = blocks.Count(sent),
                                         .from = (r + p - 1) % p,
                                         .own = At(send, dtype, begin),
                                         .result = sum,
                                         .count = blocks.Count(received),
                                         .finishes = last}));
    out = sum;
  }
  return OkStatus();
}

// Chunk c starts at rank c and makes p - 1 hops: in step t rank r sends chunk
// r - t on and receives chunk r - 1 - t, for t = 0 .. p - 2.
Status RingAllGather(const Communicator& comm, DType dtype,
                     const Blocks& blocks, void* vector, int root) {
  const int p = comm.size(), r = comm.rank();
  const auto chunk = [&](int back) { return (r - root + 2 * p - back) % p; };
  for (int t = 0; t <= p - 2; ++t) {
    const int sent = chunk(t), received = chunk(t + 1);
    SP_RETURN_IF_ERROR(
        comm.SendRecv(At(vector, dtype, blocks.Begin(sent)),
                      blocks.Count(sent) * SizeOf(dtype), (r + 1) % p,
                      At(vector, dtype, blocks.Begin(received)),
                      blocks.Count(received) * SizeOf(dtype), (r + p - 1) % p));
  }
  return OkStatus();
}

namespace {

// Every step moves every chunk one hop and takes as long as the largest.
Cost RingCost(const Blocks& blocks, DType dtype,
              Traffic (*traffic)(int64_t, DType)) {
  Cost cost;
  const double steps = blocks.parts() - 1;
  const Traffic largest = traffic(blocks.Largest(), dtype);
  cost.alpha_count = steps * static_cast<double>(largest.messages);
  cost.beta_bytes = steps * static_cast<double>(largest.bytes);
  for (int t = 0; t < blocks.parts() - 1; ++t) {
    for (int c = 0; c < blocks.parts(); ++c) {
      cost.total += traffic(blocks.Count(c), dtype);
    }
  }
  return cost;
}

}  // namespace

Cost RingReduceScatterCost(const Blocks& blocks, DType dtype) {
  Cost cost = RingCost(blocks, dtype, InSegments);
  cost.gamma_bytes = cost.beta_bytes;
  return cost;
}

Cost RingAllGatherCost(const Blocks& blocks, DType dtype) {
  return RingCost(blocks, dtype, InOneMessage);
}

}  // namespace shardproof
