// Points of ../embedding.h.
#include "layers/kernels/embedding.h"

#include "layers/kernels/cuda/benchmark/families.h"

namespace shardproof::cuda {
namespace {

KernelPoint Lookup(const EmbeddingShape& shape) {
  const int64_t n = shape.tokens * shape.hidden;
  KernelPoint point = {
      .name = "embedding_lookup",
      .dtype = shape.dtype,
      .params = RowParams(shape.dtype, shape.tokens, shape.hidden)};
  point.params.push_back(Param("vocabulary", shape.rows));
  point.operands = {RandomIndices("ids", shape.tokens, shape.rows),
                    Random("table", shape.dtype, shape.rows * shape.hidden),
                    ExactOutput("y", shape.dtype, n)};
  point.run = [shape](void* const* at) {
    return EmbeddingLookup(Stream::Inline(), shape,
                           static_cast<int64_t*>(at[0]), at[1], at[2]);
  };
  point.kernels = {
      {.name = "EmbeddingLookup",
       .bytes = Sum(2 * n * SizeOf(shape.dtype), shape.tokens * kId)}};
  return point;
}

// Five kernels, of which four sort. Where they count and place, they leave behind what the next of them needs.
KernelPoint Gradient(const EmbeddingShape& shape) {
  const int64_t tokens = shape.tokens, rows = shape.rows;
  const int64_t e = SizeOf(shape.dtype);
  KernelPoint point = {.name = "embedding_gradient",
                       .dtype = shape.dtype,
                       .params = RowParams(shape.dtype, tokens, shape.hidden)};
  point.params.push_back(Param("vocabulary", rows));
  point.operands = {RandomIndices("ids", tokens, rows),
                    Random("dy", shape.dtype, tokens * shape.hidden),
                    ExactOutput("dtable", shape.dtype, rows * shape.hidden)};
  point.run = [shape](void* const* at) {
    std::vector<int64_t> order(static_cast<size_t>(shape.tokens)),
        starts(static_cast<size_t>(shape.rows) + 1);
    return EmbeddingGradient(Stream::Inline(), shape,
                             static_cast<int64_t*>(at[0]), at[1], false,
                             {.order = order, .starts = starts}, at[2]);
  };
  point.kernels = {
      {.name = "EmbeddingCount",
       .bytes = Sum(tokens * kId, 2 * rows * kId),
       .repeats = false},
      {.name = "EmbeddingStarts", .bytes = Sum(2 * rows * kId)},
      {.name = "EmbeddingPlace",
       .bytes = Sum(2 * tokens * kId, 3 * rows * kId),
       .repeats = false},
      {.name = "EmbeddingOrder", .bytes = Sum(2 * tokens * kId, rows * kId)},
      {.name = "EmbeddingGradient",
       .bytes =
           Sum((tokens + rows) * shape.hidden * e, (tokens + rows) * kId)}};
  return point;
}

const KernelPoints kPoints([](const ModelShape& m,
                              std::vector<KernelPoint>& points) {
  for (const DType dtype : kMeasuredTypes) {
    const EmbeddingShape shape = {.dtype = dtype,
                                  .tokens = m.tokens,
                                  .hidden = m.hidden,
                                  .rows = m.vocabulary};
    points.push_back(Lookup(shape));
    points.push_back(Gradient(shape));
  }
});

}  // namespace
}  // namespace shardproof::cuda
