// Points of ../moe.h: the way of tokens to their experts and back.
#include "layers/kernels/moe.h"

#include "layers/kernels/cuda/benchmark/families.h"

namespace shardproof::cuda {
namespace {

KernelPoint PointOf(const ModelShape& m, DType dtype, const char* name) {
  KernelPoint point = {.name = name,
                       .dtype = dtype,
                       .params = RowParams(dtype, m.tokens, m.hidden)};
  point.params.push_back(Param("k", m.experts_per_token));
  return point;
}

KernelPoint Gather(const ModelShape& m, DType dtype) {
  const int64_t rows = m.tokens * m.experts_per_token, n = rows * m.hidden;
  KernelPoint point = PointOf(m, dtype, "gather_rows");
  point.operands = {Random("source", dtype, m.tokens * m.hidden),
                    RandomIndices("index", rows, m.tokens),
                    ExactOutput("out", dtype, n)};
  point.run = [dtype, rows, width = m.hidden](void* const* at) {
    return GatherRows(Stream::Inline(), dtype,
                      {.rows = rows,
                       .width = width,
                       .source = at[0],
                       .index = static_cast<int64_t*>(at[1]),
                       .out = at[2]});
  };
  // Each token's row comes from memory once, however often it is read.
  point.kernels = {
      {.name = "GatherRows",
       .bytes = Sum((n + m.tokens * m.hidden) * SizeOf(dtype), rows * kId)}};
  return point;
}

KernelPoint Combine(const ModelShape& m, DType dtype) {
  const int64_t places = m.tokens * m.experts_per_token;
  const int64_t n = places * m.hidden, results = m.tokens * m.hidden;
  KernelPoint point = PointOf(m, dtype, "combine_rows");
  // Some rows are read twice and some not at all; as many as there are places on the whole.
  point.operands = {Random("source", dtype, n),
                    RandomIndices("place", places, places),
                    Random("weights", DType::kF32, places),
                    Output("out", dtype, results, 64, 2)};
  point.run = [dtype, m](void* const* at) {
    return CombineRows(Stream::Inline(), dtype,
                       {.tokens = m.tokens,
                        .k = m.experts_per_token,
                        .width = m.hidden,
                        .source = at[0],
                        .place = static_cast<int64_t*>(at[1]),
                        .weights = at[2],
                        .out = at[3]});
  };
  point.kernels = {
      {.name = "CombineRows",
       .bytes = Sum((n + results) * SizeOf(dtype), places * (kId + kWide))}};
  return point;
}

KernelPoint Dots(const ModelShape& m, DType dtype) {
  const int64_t places = m.tokens * m.experts_per_token;
  const int64_t n = places * m.hidden;
  KernelPoint point = PointOf(m, dtype, "row_dots");
  point.operands = {
      Random("y", dtype, m.tokens * m.hidden), Random("source", dtype, n),
      RandomIndices("place", places, places),
      Output("dots", DType::kF32, places, 8 * static_cast<double>(m.hidden))};
  point.run = [dtype, m](void* const* at) {
    return RowDots(Stream::Inline(), dtype,
                   {.tokens = m.tokens,
                    .k = m.experts_per_token,
                    .width = m.hidden,
                    .y = at[0],
                    .source = at[1],
                    .place = static_cast<int64_t*>(at[2]),
                    .dots = at[3]});
  };
  point.kernels = {{.name = "RowDots",
                    .bytes = Sum((n + m.tokens * m.hidden) * SizeOf(dtype),
                                 places * (kId + kWide))}};
  return point;
}

const KernelPoints kPoints([](const ModelShape& m,
                              std::vector<KernelPoint>& points) {
  for (const DType dtype : kMeasuredTypes) {
    points.push_back(Gather(m, dtype));
    points.push_back(Combine(m, dtype));
    points.push_back(Dots(m, dtype));
  }
});

}  // namespace
}  // namespace shardproof::cuda
