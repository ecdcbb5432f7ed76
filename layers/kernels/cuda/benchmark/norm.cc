// Points of ../norm.h and ../partial_sums.h.
#include "layers/kernels/norm.h"

#include "layers/kernels/cuda/benchmark/families.h"

namespace shardproof::cuda {
namespace {

struct Kind {
  const char* name;
  bool centred;   // And with a bias.
  bool residual;  // The gradient of what is added to is dz.
};
constexpr Kind kKinds[] = {{"rms", false, false},
                           {"rms_residual", false, true},
                           {"layer", true, false}};

KernelPoint Forward(const ModelShape& m, DType dtype, const Kind& kind) {
  const int64_t columns = m.hidden, n = m.tokens * columns, e = SizeOf(dtype);
  const NormRows rows = {.dtype = dtype,
                         .rows = m.tokens,
                         .columns = columns,
                         .centred = kind.centred};
  const int64_t statistics = (kind.centred ? 2 : 1) * m.tokens * kWide;
  const int64_t weights = (kind.centred ? 2 : 1) * columns * e;
  const int64_t passes = kind.residual ? 4 : 2;
  KernelPoint point = {.name = "normalize",
                       .dtype = dtype,
                       .params = RowParams(dtype, m.tokens, columns)};
  point.params.emplace_back("kind", kind.name);
  point.operands = {Random("x", dtype, n),
                    Random("residual", dtype, kind.residual ? n : 0),
                    Random("weight", dtype, columns),
                    Random("bias", dtype, kind.centred ? columns : 0),
                    Output("z", dtype, kind.residual ? n : 0),
                    Output("y", dtype, n, 64, 4),
                    Output("mean", DType::kF32, kind.centred ? m.tokens : 0),
                    Output("inverse", DType::kF32, m.tokens, 64, 2)};
  point.run = [rows](void* const* at) {
    return Normalize(Stream::Inline(), rows,
                     {.x = at[0],
                      .residual = at[1],
                      .weight = at[2],
                      .bias = at[3],
                      .z = at[4],
                      .y = at[5],
                      .mean = at[6],
                      .inverse = at[7]});
  };
  point.kernels = {
      {.name = "Normalize", .bytes = Sum(passes * n * e, weights, statistics)}};
  return point;
}

KernelPoint Backward(const ModelShape& m, DType dtype, const Kind& kind) {
  const int64_t columns = m.hidden, n = m.tokens * columns, e = SizeOf(dtype);
  const int64_t biases = kind.centred ? columns : 0;
  const NormRows rows = {.dtype = dtype,
                         .rows = m.tokens,
                         .columns = columns,
                         .centred = kind.centred};
  // Rows of random signs are added up: errors and sums grow alike.
  const double roundings = 8 * static_cast<double>(m.tokens);
  KernelPoint point = {.name = "normalize_backward",
                       .dtype = dtype,
                       .params = RowParams(dtype, m.tokens, columns)};
  point.params.emplace_back("kind", kind.name);
  point.operands = {
      Random("z", dtype, n),
      Random("weight", dtype, columns),
      Random("dy", dtype, n),
      Random("dz", dtype, kind.residual ? n : 0),
      Random("mean", DType::kF32, kind.centred ? m.tokens : 0, 0.1),
      RandomBetween("inverse", DType::kF32, m.tokens, 1.5, 2),
      Output("dx", dtype, n, 64, 8),
      Output("dweight", DType::kF32, columns, roundings, 4),
      Output("dbias", DType::kF32, biases, roundings)};
  point.run = [rows](void* const* at) {
    return NormalizeBackward(Stream::Inline(), rows,
                             {.z = at[0],
                              .weight = at[1],
                              .dy = at[2],
                              .dz = at[3],
                              .mean = at[4],
                              .inverse = at[5],
                              .dx = at[6],
                              .dweight = at[7],
                              .dbias = at[8]});
  };
  // Partial sums are the grid's affair: what the gradients cannot do without is one row of them.
  const int64_t sums = (columns + biases) * kWide;
  point.kernels = {
      {.name = "NormalizeBackward",
       .bytes = Sum((kind.residual ? 4 : 3) * n * e, columns * e,
                    (kind.centred ? 2 : 1) * m.tokens * kWide, sums)},
      {.name = "SumPartials", .bytes = Sum(2 * sums)}};
  return point;
}

const KernelPoints kPoints([](const ModelShape& m,
                              std::vector<KernelPoint>& points) {
  for (const DType dtype : kMeasuredTypes) {
    for (const Kind& kind : kKinds) {
      points.push_back(Forward(m, dtype, kind));
      points.push_back(Backward(m, dtype, kind));
    }
  }
});

}  // namespace
}  // namespace shardproof::cuda
