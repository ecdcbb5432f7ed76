// Points of ../softmax.h.
#include "layers/kernels/softmax.h"

#include "layers/kernels/cuda/benchmark/families.h"

namespace shardproof::cuda {
namespace {

// Elements that are seen: all, or those on and below the diagonal.
int64_t SeenOf(const SoftmaxShape& shape) {
  return shape.causal ? shape.rows * (shape.rows + 1) / 2
                      : shape.rows * shape.columns;
}

KernelPoint PointOf(const SoftmaxShape& shape, const char* name) {
  KernelPoint point = {
      .name = name,
      .dtype = shape.dtype,
      .params = RowParams(shape.dtype, shape.rows, shape.columns)};
  point.params.emplace_back("causal", shape.causal ? "true" : "false");
  return point;
}

KernelPoint Forward(const SoftmaxShape& shape) {
  const int64_t n = shape.rows * shape.columns;
  KernelPoint point = PointOf(shape, "softmax");
  point.operands = {Random("s", DType::kF32, n, 4),
                    Output("p", shape.dtype, n, 64, 1)};
  point.run = [shape](void* const* at) {
    return Softmax(Stream::Inline(), shape, at[0], at[1]);
  };
  point.kernels = {
      {.name = "Softmax",
       .bytes = Sum(SeenOf(shape) * kWide, n * SizeOf(shape.dtype))}};
  return point;
}

KernelPoint Backward(const SoftmaxShape& shape) {
  const int64_t n = shape.rows * shape.columns;
  KernelPoint point = PointOf(shape, "softmax_backward");
  // Rows of probabilities add up to about 1, so that what is subtracted from dp is of its size.
  const double most = 2.0 / static_cast<double>(shape.columns);
  point.operands = {RandomBetween("p", shape.dtype, n, 0, most),
                    Random("dp", DType::kF32, n),
                    Output("ds", DType::kF32, n, 1024, most)};
  point.run = [shape](void* const* at) {
    return SoftmaxBackward(Stream::Inline(), shape, at[0], at[1], at[2]);
  };
  point.kernels = {
      {.name = "SoftmaxBackward",
       .bytes = Sum(SeenOf(shape) * (kWide + SizeOf(shape.dtype)), n * kWide)}};
  return point;
}

const KernelPoints kPoints([](const ModelShape& m,
                              std::vector<KernelPoint>& points) {
  for (const DType dtype : kMeasuredTypes) {
    for (const bool causal : {false, true}) {
      const SoftmaxShape shape = {.dtype = dtype,
                                  .rows = m.tokens,
                                  .columns = m.tokens,
                                  .scale = 0.5,
                                  .causal = causal};
      points.push_back(Forward(shape));
      points.push_back(Backward(shape));
    }
  }
});

}  // namespace
}  // namespace shardproof::cuda
