// Points of ../activation.h.
#include "layers/kernels/activation.h"

#include "layers/kernels/cuda/benchmark/families.h"

namespace shardproof::cuda {
namespace {

// Element by element: so many inputs, so many results, all of one shape.
KernelPoint Elements(const ModelShape& m, DType dtype, const char* name,
                     const char* kernel, int inputs, int outputs,
                     Status (*run)(DType dtype, int64_t n, void* const* at)) {
  const int64_t n = m.tokens * m.intermediate;
  KernelPoint point = {.name = name,
                       .dtype = dtype,
                       .params = RowParams(dtype, m.tokens, m.intermediate)};
  for (int i = 0; i < inputs; ++i) {
    point.operands.push_back(Random("in" + std::to_string(i), dtype, n, 4));
  }
  for (int i = 0; i < outputs; ++i) {
    point.operands.push_back(
        Output("out" + std::to_string(i), dtype, n, 64, 16));
  }
  point.run = [=](void* const* at) { return run(dtype, n, at); };
  point.kernels = {
      {.name = kernel, .bytes = Sum((inputs + outputs) * n * SizeOf(dtype))}};
  return point;
}

KernelPoint AddsBias(const ModelShape& m, DType dtype) {
  const int64_t rows = m.tokens, columns = m.intermediate, n = rows * columns;
  KernelPoint point = {.name = "add_bias",
                       .dtype = dtype,
                       .params = RowParams(dtype, rows, columns)};
  point.operands = {Random("b", dtype, columns),
                    InPlace(Random("y", dtype, n), Output("", dtype, 0, 4))};
  point.run = [=](void* const* at) {
    return AddBias(Stream::Inline(), dtype, rows, columns, at[0], at[1]);
  };
  point.kernels = {
      {.name = "AddBias", .bytes = Sum((2 * n + columns) * SizeOf(dtype))}};
  return point;
}

KernelPoint SumsColumns(const ModelShape& m, DType dtype) {
  const int64_t rows = m.tokens, columns = m.intermediate, e = SizeOf(dtype);
  KernelPoint point = {.name = "column_sum",
                       .dtype = dtype,
                       .params = RowParams(dtype, rows, columns)};
  point.operands = {
      Random("x", dtype, rows * columns),
      Output("sums", dtype, columns, 8 * static_cast<double>(rows))};
  point.run = [=](void* const* at) {
    return ColumnSum(Stream::Inline(), dtype, rows, columns, at[0], at[1]);
  };
  const int64_t sums = columns * kWide;
  point.kernels = {
      {.name = "ColumnSums", .bytes = Sum(rows * columns * e, sums)},
      {.name = "SumPartials", .bytes = Sum(2 * sums)}};
  if (dtype != DType::kF32) {
    point.kernels.push_back(
        {.name = "RoundSums", .bytes = Sum(sums, columns * e)});
  }
  return point;
}

const KernelPoints kPoints([](const ModelShape& m,
                              std::vector<KernelPoint>& points) {
  for (const DType dtype : kMeasuredTypes) {
    points.push_back(Elements(m, dtype, "gelu", "Gelu", 1, 1,
                              [](DType t, int64_t n, void* const* at) {
                                return Gelu(Stream::Inline(), t, n, at[0],
                                            at[1]);
                              }));
    points.push_back(Elements(m, dtype, "gelu_backward", "GeluBackward", 2, 1,
                              [](DType t, int64_t n, void* const* at) {
                                return GeluBackward(Stream::Inline(), t, n,
                                                    at[0], at[1], at[2]);
                              }));
    points.push_back(Elements(m, dtype, "swiglu", "SwiGlu", 2, 1,
                              [](DType t, int64_t n, void* const* at) {
                                return SwiGlu(Stream::Inline(), t, n, at[0],
                                              at[1], at[2]);
                              }));
    points.push_back(Elements(m, dtype, "swiglu_backward", "SwiGluBackward", 3,
                              2, [](DType t, int64_t n, void* const* at) {
                                return SwiGluBackward(Stream::Inline(), t, n,
                                                      at[0], at[1], at[2],
                                                      at[3], at[4]);
                              }));
    points.push_back(AddsBias(m, dtype));
    points.push_back(SumsColumns(m, dtype));
  }
});

}  // namespace
}  // namespace shardproof::cuda
