// Points of ../rope.h.
#include "layers/kernels/rope.h"

#include <numeric>

#include "layers/kernels/cuda/benchmark/families.h"

namespace shardproof::cuda {
namespace {

KernelPoint PointOf(const ModelShape& m, DType dtype) {
  const int64_t width = m.heads * m.head_dim, n = m.tokens * width;
  KernelPoint point = {.name = "rope",
                       .dtype = dtype,
                       .params = RowParams(dtype, m.tokens, width)};
  point.params.push_back(Param("head_dim", m.head_dim));
  // The table of angles is staged, in scratch of the GPU that stays with the launches.
  point.operands = {
      InPlace(Random("x", dtype, n), Output("", dtype, 0, 64, 2))};
  const RopeConfig config = {
      .dtype = dtype, .head_dim = m.head_dim, .theta = 500000};
  point.run = [config, tokens = m.tokens, heads = m.heads,
               width](void* const* at) -> Status {
    std::vector<int64_t> positions(static_cast<size_t>(tokens));
    std::iota(positions.begin(), positions.end(), 0);
    SP_ASSIGN_OR_RETURN(const RopeTable table,
                        RopeTable::Create(config, positions));
    return Rope(
        Stream::Inline(), table, RopeDirection::kForward,
        {.tokens = tokens, .heads = heads, .stride = width, .x = at[0]});
  };
  point.kernels = {
      {.name = "Rope",
       .bytes = Sum(2 * n * SizeOf(dtype), m.tokens * m.head_dim * kWide)}};
  return point;
}

const KernelPoints kPoints([](const ModelShape& m,
                              std::vector<KernelPoint>& points) {
  for (const DType dtype : kMeasuredTypes) points.push_back(PointOf(m, dtype));
});

}  // namespace
}  // namespace shardproof::cuda
