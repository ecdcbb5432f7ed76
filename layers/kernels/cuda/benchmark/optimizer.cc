// Points of ../optimizer.h: a matrix of the feed-forward network.
#include "layers/kernels/optimizer.h"

#include "layers/kernels/cuda/benchmark/families.h"

namespace shardproof::cuda {
namespace {

// Gradients of the parameters' type, or of f32.
struct Types {
  DType parameter, gradient;
  bool wide() const { return gradient != parameter; }
  bool has_master() const { return parameter != DType::kF32; }
};
constexpr Types kTypes[] = {{DType::kBF16, DType::kBF16},
                            {DType::kBF16, DType::kF32},
                            {DType::kF32, DType::kF32}};

// parameter, gradient, master, first, second
std::vector<Operand> OperandsOf(const Types& types, int64_t n, bool second) {
  const Operand changed = Output("", DType::kF32, 0, 64, 2);
  Operand parameter =
      types.has_master()
          ? Output("parameter", types.parameter, n, 64, 2)
          : InPlace(Random("parameter", DType::kF32, n), changed);
  const int64_t masters = types.has_master() ? n : 0;
  return {std::move(parameter), Random("gradient", types.gradient, n),
          InPlace(Random("master", DType::kF32, masters), changed),
          InPlace(Random("first", DType::kF32, n), changed),
          InPlace(RandomBetween("second", DType::kF32, second ? n : 0, 0.5, 1),
                  changed)};
}
UpdateTensors TensorsOf(const Types& types, int64_t n, void* const* at) {
  return {.n = n,
          .dtype = types.parameter,
          .gradient_dtype = types.gradient,
          .parameter = at[0],
          .gradient = at[1],
          .master = at[2],
          .first = at[3],
          .second = at[4]};
}

KernelPoint PointOf(const char* name, const Types& types, int64_t n) {
  KernelPoint point = {.name = name,
                       .dtype = types.parameter,
                       .params = ElementParams(types.parameter, n)};
  point.params.emplace_back("gradient", Name(types.gradient));
  return point;
}

KernelPoint Sgd(const Types& types, int64_t n) {
  const int64_t e = SizeOf(types.parameter), g = SizeOf(types.gradient);
  KernelPoint point = PointOf("sgd_step", types, n);
  point.operands = OperandsOf(types, n, false);
  point.run = [types, n](void* const* at) {
    return SgdStep(Stream::Inline(), {.tensors = TensorsOf(types, n, at),
                                      .learning_rate = 1e-3,
                                      .momentum = 0.9});
  };
  point.kernels = {
      {.name = types.wide() ? "SgdStepOfWideGradients" : "SgdStep",
       .bytes = Sum(n * (g + 8), n * (types.has_master() ? e + 8 : 8))}};
  return point;
}

KernelPoint Adam(const Types& types, int64_t n) {
  const int64_t e = SizeOf(types.parameter), g = SizeOf(types.gradient);
  KernelPoint point = PointOf("adam_step", types, n);
  point.operands = OperandsOf(types, n, true);
  point.run = [types, n](void* const* at) {
    return AdamStep(Stream::Inline(), {.tensors = TensorsOf(types, n, at),
                                       .beta1 = 0.9,
                                       .beta2 = 0.95,
                                       .epsilon = 1e-8,
                                       .step_size = 1e-3,
                                       .shrink = 0.9999});
  };
  point.kernels = {
      {.name = types.wide() ? "AdamStepOfWideGradients" : "AdamStep",
       .bytes = Sum(n * (g + 12), n * (types.has_master() ? e + 12 : 12))}};
  return point;
}

KernelPoint Widen(DType dtype, int64_t n) {
  KernelPoint point = {.name = "widen_parameters",
                       .dtype = dtype,
                       .params = ElementParams(dtype, n)};
  point.operands = {Random("parameter", dtype, n),
                    ExactOutput("master", DType::kF32, n)};
  point.run = [=](void* const* at) {
    return WidenParameters(Stream::Inline(), dtype, n, at[0], at[1]);
  };
  point.kernels = {
      {.name = "WidenParameters", .bytes = Sum(n * (SizeOf(dtype) + kWide))}};
  return point;
}

KernelPoint Squares(DType dtype, int64_t n) {
  KernelPoint point = {
      .name = "add_squares", .dtype = dtype, .params = ElementParams(dtype, n)};
  // A SquareSum, whose flag is all zeros too. Squares of numbers of one sign, in f64: the order does not show in f32.
  static_assert(sizeof(SquareSum) == 2 * sizeof(double));
  Operand total =
      InPlace(Zeros("total", DType::kF64, 2), Output("", DType::kF32, 0, 0));
  total.ranges = {{0, 1}};
  point.operands = {Random("x", dtype, n), total};
  point.run = [=](void* const* at) {
    return AddSquares(Stream::Inline(), dtype, n, at[0],
                      static_cast<SquareSum*>(at[1]));
  };
  point.kernels = {{.name = "AddSquares", .bytes = Sum(n * SizeOf(dtype))},
                   {.name = "FinishSquares",
                    .bytes = Sum(2 * static_cast<int64_t>(sizeof(SquareSum)))}};
  return point;
}

const KernelPoints kPoints([](const ModelShape& m,
                              std::vector<KernelPoint>& points) {
  const int64_t n = m.hidden * m.intermediate;
  for (const Types& types : kTypes) {
    points.push_back(Sgd(types, n));
    points.push_back(Adam(types, n));
  }
  for (const DType dtype : kMeasuredTypes) {
    points.push_back(Widen(dtype, n));
    points.push_back(Squares(dtype, n));
  }
});

}  // namespace
}  // namespace shardproof::cuda
