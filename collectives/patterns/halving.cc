#include "collectives/patterns/halving.h"

#include <algorithm>

namespace shardproof {

StatusOr<bool> FoldIn(const Communicator& comm, const Combine& combine,
                      const Regions& regions, const void* send, void* vector) {
  const int v = regions.Virtual(comm.rank());
  if (!regions.fold().InPair(v)) return false;
  const int partner = regions.Real(v ^ 1);
  const int64_t count = regions.Total();
  if (regions.fold().FoldsAway(v)) {
    SP_RETURN_IF_ERROR(ReducingExchange(
        comm, combine, {.to = partner, .out = send, .out_count = count}));
    return false;
  }
  SP_RETURN_IF_ERROR(ReducingExchange(
      comm, combine,
      {.from = partner, .own = send, .result = vector, .count = count}));
  return true;
}

// A member's run of regions starts as all P and halves with every step: with
// partner g ^ mask it keeps the half that holds its own region and sends the
// other. mask = P/2, P/4, ..., 1, so the last run is one region.
Status HalvingReduceScatter(const Communicator& comm, const Combine& combine,
                            const Regions& regions, const void* send,
                            void* vector) {
  const DType dtype = combine.dtype;
  SP_ASSIGN_OR_RETURN(const bool folded,
                      FoldIn(comm, combine, regions, send, vector));
  const int v = regions.Virtual(comm.rank());
  if (regions.fold().FoldsAway(v)) return OkStatus();
  const int g = regions.fold().MemberOf(v);
  const void* own = folded ? vector : send;
  for (int mask = regions.fold().power() / 2; mask >= 1; mask /= 2) {
    const int keep = g & -mask, give = keep ^ mask;
    const Chunk kept = regions.Run(keep, keep + mask);
    const Chunk given = regions.Run(give, give + mask);
    const int partner = regions.RealMember(g ^ mask);
    SP_RETURN_IF_ERROR(
        ReducingExchange(comm, combine,
                         {.to = partner,
                          .out = At(own, dtype, given.begin),
                          .out_count = given.count,
                          .from = partner,
                          .own = At(own, dtype, kept.begin),
                          .result = At(vector, dtype, kept.begin),
                          .count = kept.count,
                          .finishes = mask == 1}));
    own = vector;
  }
  return OkStatus();
}

Status DoublingAllGather(const Communicator& comm, DType dtype,
                         const Regions& regions, void* vector) {
  const int v = regions.Virtual(comm.rank());
  if (regions.fold().FoldsAway(v)) return OkStatus();
  const int g = regions.fold().MemberOf(v);
  for (int mask = 1; mask < regions.fold().power(); mask *= 2) {
    const int have = g & -mask, lack = have ^ mask;
    const Chunk out = regions.Run(have, have + mask);
    const Chunk in = regions.Run(lack, lack + mask);
    const int partner = regions.RealMember(g ^ mask);
    SP_RETURN_IF_ERROR(comm.SendRecv(
        At(vector, dtype, out.begin), out.count * SizeOf(dtype), partner,
        At(vector, dtype, in.begin), in.count * SizeOf(dtype), partner));
  }
  return OkStatus();
}

Status Unfold(const Communicator& comm, DType dtype, const Regions& regions,
              void* vector) {
  const int v = regions.Virtual(comm.rank());
  if (!regions.fold().InPair(v)) return OkStatus();
  const int partner = regions.Real(v ^ 1);
  const int64_t bytes = regions.Total() * SizeOf(dtype);
  return regions.fold().FoldsAway(v) ? comm.Recv(vector, bytes, partner)
                                     : comm.Send(vector, bytes, partner);
}

namespace {

// One more step, in which `every` is the traffic of all ranks and `largest`
// that of the rank with the most.
void AddStep(Cost& cost, const Traffic& every, const Traffic& largest) {
  cost.total += every;
  cost.alpha_count += static_cast<double>(largest.messages);
  cost.beta_bytes += static_cast<double>(largest.bytes);
}

// `excess` whole vectors in one step.
Cost FoldCost(const Regions& regions, const Traffic& vector) {
  Cost cost;
  Traffic every;
  for (int i = 0; i < regions.fold().excess(); ++i) every += vector;
  if (regions.fold().excess() > 0) AddStep(cost, every, vector);
  return cost;
}

// The exchanges at each distance, in whatever order: each member sends the run
// of its partner (halving), or its own run (doubling), which adds up alike.
Cost ExchangeCost(const Regions& regions, DType dtype,
                  Traffic (*traffic)(int64_t, DType)) {
  Cost cost;
  for (int mask = 1; mask < regions.fold().power(); mask *= 2) {
    Traffic every, largest;
    for (int g = 0; g < regions.fold().power(); ++g) {
      const int first = g & -mask;
      const Traffic run =
          traffic(regions.Run(first, first + mask).count, dtype);
      every += run;
      if (run.bytes > largest.bytes) largest = run;
    }
    AddStep(cost, every, largest);
  }
  return cost;
}

}  // namespace

Cost FoldInCost(const Regions& regions, DType dtype) {
  Cost cost = FoldCost(regions, InSegments(regions.Total(), dtype));
  cost.gamma_bytes = cost.beta_bytes;
  return cost;
}

Cost UnfoldCost(const Regions& regions, DType dtype) {
  return FoldCost(regions, InOneMessage(regions.Total(), dtype));
}

Cost HalvingReduceScatterCost(const Regions& regions, DType dtype) {
  Cost cost = ExchangeCost(regions, dtype, InSegments);
  cost.gamma_bytes = cost.beta_bytes;
  return FoldInCost(regions, dtype) + cost;
}

Cost DoublingAllGatherCost(const Regions& regions, DType dtype) {
  return ExchangeCost(regions, dtype, InOneMessage);
}

}  // namespace shardproof
