// Points of ../dropout.h.
#include "layers/kernels/dropout.h"

#include "layers/kernels/cuda/benchmark/families.h"

namespace shardproof::cuda {
namespace {

KernelPoint PointOf(const ModelShape& m, DType dtype) {
  const int64_t n = m.tokens * m.hidden;
  KernelPoint point = {.name = "dropout",
                       .dtype = dtype,
                       .params = RowParams(dtype, m.tokens, m.hidden)};
  point.operands = {Random("x", dtype, n), ExactOutput("y", dtype, n)};
  const DropoutArgs args = {.dtype = dtype,
                            .rows = m.tokens,
                            .columns = m.hidden,
                            .row_stride = m.hidden,
                            .probability = 0.1,
                            .seed = 1};
  point.run = [args](void* const* at) {
    DropoutArgs here = args;
    here.x = at[0];
    here.y = at[1];
    return Dropout(Stream::Inline(), here);
  };
  point.kernels = {{.name = "Dropout", .bytes = Sum(2 * n * SizeOf(dtype))}};
  return point;
}

const KernelPoints kPoints([](const ModelShape& m,
                              std::vector<KernelPoint>& points) {
  for (const DType dtype : kMeasuredTypes) points.push_back(PointOf(m, dtype));
});

}  // namespace
}  // namespace shardproof::cuda
