#include "layers/tensor_parallel/feature_split.h"

#include <cstring>

#include "collectives/direct/queue.h"

namespace shardproof {
namespace {

std::vector<int64_t> CountsOf(int ranks, const FeatureShape& shape) {
  std::vector<int64_t> counts;
  for (int r = 0; r < ranks; ++r) {
    counts.push_back(shape.tokens * BalancedChunk(shape.width, ranks, r).count);
  }
  return counts;
}

// Rows of `row` bytes at distances of `from_row` and `to_row` bytes.
void CopyRows(int64_t rows, int64_t row, const std::byte* from,
              int64_t from_row, std::byte* to, int64_t to_row) {
  if (row == 0) return;
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(to + i * to_row, from + i * from_row, static_cast<size_t>(row));
  }
}

}  // namespace

StatusOr<FeatureSplit> FeatureSplit::Create(const Communicator& comm,
                                            const FeatureShape& shape,
                                            const CollectiveFamily& collectives,
                                            Parts parts) {
  FeatureSplit split;
  split.comm_ = comm;
  split.shape_ = shape;
  split.collectives_ = collectives;
  split.ranks_ = comm.size();
  if (split.ranks_ == 1) return split;
  split.counts_ = CountsOf(comm.size(), shape);
  const auto bytes = [&](int64_t elements) {
    return static_cast<size_t>(elements * SizeOf(shape.dtype));
  };
  if (parts == Parts::kWorkspace) {
    SP_ASSIGN_OR_RETURN(
        split.part_,
        comm.Allocate(bytes(split.counts_[static_cast<size_t>(comm.rank())])));
  }
  SP_ASSIGN_OR_RETURN(split.gathered_,
                      comm.Allocate(bytes(shape.tokens * shape.width)));
  return split;
}

StatusOr<const void*> FeatureSplit::Slice(const Stream& stream,
                                          const void* whole) const {
  if (ranks_ == 1) return whole;
  const Chunk own = BalancedChunk(shape_.width, ranks_, comm_.rank());
  SP_RETURN_IF_ERROR(stream.Run([whole, own, shape = shape_,
                                 part = part_.data()] {
    const int64_t size = SizeOf(shape.dtype);
    CopyRows(shape.tokens, own.count * size, At(whole, shape.dtype, own.begin),
             shape.width * size, part, own.count * size);
    return OkStatus();
  }));
  return static_cast<const void*>(part_.data());
}

Status FeatureSplit::Gather(const Stream& stream, void* whole) const {
  return GatherFrom(stream, Part(whole), whole);
}

// The blocks of all ranks one after another, then each row from all of them.
Status FeatureSplit::GatherFrom(const Stream& stream, const void* part,
                                void* whole) const {
  if (ranks_ == 1) {
    if (part == whole) return OkStatus();
    return stream.Run([part, whole, shape = shape_] {
      const int64_t row = shape.width * SizeOf(shape.dtype);
      CopyRows(shape.tokens, row, static_cast<const std::byte*>(part), row,
               static_cast<std::byte*>(whole), row);
      return OkStatus();
    });
  }
  SP_RETURN_IF_ERROR(direct::Enqueue<AllGatherVArgs>(stream, comm_,
                                                     {.send = part,
                                                      .recv = gathered_.data(),
                                                      .counts = counts_,
                                                      .dtype = shape_.dtype},
                                                     collectives_.all_gather));
  return stream.Run(
      [whole, shape = shape_, ranks = ranks_, gathered = gathered_.data()] {
        const int64_t size = SizeOf(shape.dtype);
        for (int r = 0; r < ranks; ++r) {
          const Chunk c = BalancedChunk(shape.width, ranks, r);
          CopyRows(shape.tokens, c.count * size,
                   At(static_cast<const void*>(gathered), shape.dtype,
                      shape.tokens * c.begin),
                   c.count * size, At(whole, shape.dtype, c.begin),
                   shape.width * size);
        }
        return OkStatus();
      });
}

Status FeatureSplit::Scatter(const Stream& stream, const void* whole,
                             void* part) const {
  if (ranks_ == 1) {
    if (part == whole) return OkStatus();
    return stream.Run([part, whole, shape = shape_] {
      const int64_t row = shape.width * SizeOf(shape.dtype);
      CopyRows(shape.tokens, row, static_cast<const std::byte*>(whole), row,
               static_cast<std::byte*>(part), row);
      return OkStatus();
    });
  }
  SP_RETURN_IF_ERROR(stream.Run([whole, shape = shape_, ranks = ranks_,
                                 gathered = gathered_.data()] {
    const int64_t size = SizeOf(shape.dtype);
    for (int r = 0; r < ranks; ++r) {
      const Chunk c = BalancedChunk(shape.width, ranks, r);
      CopyRows(
          shape.tokens, c.count * size, At(whole, shape.dtype, c.begin),
          shape.width * size,
          At(static_cast<void*>(gathered), shape.dtype, shape.tokens * c.begin),
          c.count * size);
    }
    return OkStatus();
  }));
  return direct::Enqueue<ReduceScatterVArgs>(stream, comm_,
                                             {.send = gathered_.data(),
                                              .recv = part,
                                              .counts = counts_,
                                              .dtype = shape_.dtype},
                                             collectives_.reduce_scatter);
}

Cost GatherCost(int ranks, const FeatureShape& shape,
                const CollectiveFamily& collectives) {
  if (ranks == 1) return {};
  return collectives.all_gather_cost(CountsOf(ranks, shape), shape.dtype,
                                     collectives.memory);
}

Cost ScatterCost(int ranks, const FeatureShape& shape,
                 const CollectiveFamily& collectives) {
  if (ranks == 1) return {};
  return collectives.reduce_scatter_cost(CountsOf(ranks, shape), shape.dtype,
                                         collectives.memory);
}

}  // namespace shardproof
