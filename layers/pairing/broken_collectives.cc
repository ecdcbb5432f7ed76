#include "layers/pairing/broken_collectives.h"

#include <cstring>
#include <vector>

#include "collectives/chunks.h"

namespace shardproof {
namespace {

void CopyElements(void* to, const void* from, int64_t count, DType dtype) {
  if (count == 0 || to == from) return;
  std::memcpy(to, from, static_cast<size_t>(count * SizeOf(dtype)));
}

Status KeepOwn(const Communicator&, const AllReduceArgs& args) {
  CopyElements(args.recv, args.send, args.count, args.dtype);
  return OkStatus();
}

Status KeepOwnBlock(const Communicator& comm, const ReduceScatterVArgs& args) {
  const Blocks blocks = Blocks::Listed(args.counts);
  const int rank = comm.rank();
  CopyElements(args.recv, At(args.send, args.dtype, blocks.Begin(rank)),
               blocks.Count(rank), args.dtype);
  return OkStatus();
}

Status Average(const Communicator& comm, const AllReduceArgs& args) {
  AllReduceArgs average = args;
  average.op = ReduceOp::kAvg;
  return AllReduce(comm, average);
}

Status AverageBlock(const Communicator& comm, const ReduceScatterVArgs& args) {
  ReduceScatterVArgs average = args;
  average.op = ReduceOp::kAvg;
  return ReduceScatterV(comm, average);
}

Status SumPairs(const Communicator& comm, const AllReduceArgs& args) {
  SP_ASSIGN_OR_RETURN(Communicator* const pair,
                      comm.Attribute<Communicator>("the wrong group", [&comm] {
                        return comm.Split(comm.rank() / 2, comm.rank());
                      }));
  return AllReduce(*pair, args);
}

Status KeepOwnAmongZeros(const Communicator& comm, const AllGatherVArgs& args) {
  const Blocks blocks = Blocks::Listed(args.counts);
  if (blocks.Total() == 0) return OkStatus();
  std::memset(args.recv, 0,
              static_cast<size_t>(blocks.Total() * SizeOf(args.dtype)));
  CopyElements(At(args.recv, args.dtype, blocks.Begin(comm.rank())), args.send,
               blocks.Count(comm.rank()), args.dtype);
  return OkStatus();
}

Status GatherBackwards(const Communicator& comm, const AllGatherVArgs& args) {
  std::vector<int64_t> offsets(args.counts.size());
  int64_t next = 0;
  for (size_t r = offsets.size(); r-- > 0;) {
    offsets[r] = next;
    next += args.counts[r];
  }
  AllGatherVArgs backwards = args;
  backwards.offsets = offsets;
  return AllGatherV(comm, backwards);
}

// Constant, so that cases may copy it while they register themselves.
constexpr CollectiveFamily With(const char* name,
                                const CollectiveFamily& changes) {
  CollectiveFamily family = kAutoCollectives;
  family.name = name;
  if (changes.all_reduce) family.all_reduce = changes.all_reduce;
  if (changes.all_gather) family.all_gather = changes.all_gather;
  if (changes.reduce_scatter) family.reduce_scatter = changes.reduce_scatter;
  return family;
}

}  // namespace

constinit const CollectiveFamily kWithoutReduction =
    With("without reduction",
         {.all_reduce = KeepOwn, .reduce_scatter = KeepOwnBlock});
constinit const CollectiveFamily kAveraging =
    With("averaging", {.all_reduce = Average, .reduce_scatter = AverageBlock});
constinit const CollectiveFamily kReducingPairs =
    With("reducing pairs", {.all_reduce = SumPairs});
constinit const CollectiveFamily kGatheringNothing =
    With("gathering nothing", {.all_gather = KeepOwnAmongZeros});
constinit const CollectiveFamily kGatheringBackwards =
    With("gathering backwards", {.all_gather = GatherBackwards});

}  // namespace shardproof
