// Activations, norms, softmax, rotations, dropout and the steps of optimizers.
#include "layers/kernels/cuda/device/layer_kernels_on_gpu.h"

#include "layers/kernels/cuda/activation.h"
#include "layers/kernels/cuda/norm.h"
#include "layers/kernels/cuda/optimizer.h"
#include "layers/kernels/cuda/partial_sums.h"
#include "layers/kernels/cuda/rope.h"

namespace shardproof::cuda {
namespace {

constexpr int64_t kMostColumns = int64_t{1} << 30;
constexpr int64_t kWide = sizeof(float);  // Of what is accumulated.

using Done = LayerKernels::Done;

}  // namespace

bool LayerKernelsOnGpu::Takes(DType dtype, int64_t columns) {
  const bool takes =
      (dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16) &&
      columns <= kMostColumns;
  if (!takes) ++shared_->left;
  return takes;
}

void LayerKernelsOnGpu::SumParts(GpuCall& call, int64_t parts, int64_t columns,
                                 const float* partials, float* out,
                                 float* more) {
  Launch(call, LayerKernel::kSumPartials, DType::kF32,
         PartialSumLaunch(parts, (more == nullptr ? 1 : 2) * columns),
         PartialSums{.parts = parts,
                     .columns = columns,
                     .partials = partials,
                     .out = out,
                     .more = more});
}

// --- activation.h -----------------------------------------------------------

Done LayerKernelsOnGpu::Gelu(DType dtype, int64_t n, const void* z, void* a) {
  if (n == 0 || !Takes(dtype)) return kLeftToHost;
  const int64_t e = SizeOf(dtype);
  GpuCall call(shared_->lanes, &health_);
  const ActivationArgs args = {
      .n = n, .x = call.In(z, n * e), .out = call.Out(a, n * e)};
  Launch(call, LayerKernel::kGelu, dtype, ShapeOf(n, e), args);
  return call.Finish();
}

Done LayerKernelsOnGpu::GeluBackward(DType dtype, int64_t n, const void* z,
                                     const void* da, void* dz) {
  if (n == 0 || !Takes(dtype)) return kLeftToHost;
  const int64_t e = SizeOf(dtype);
  GpuCall call(shared_->lanes, &health_);
  const ActivationArgs args = {.n = n,
                               .x = call.In(z, n * e),
                               .da = call.In(da, n * e),
                               .out = call.Out(dz, n * e)};
  Launch(call, LayerKernel::kGeluBackward, dtype, ShapeOf(n, e), args);
  return call.Finish();
}

Done LayerKernelsOnGpu::SwiGlu(DType dtype, int64_t n, const void* gate,
                               const void* up, void* a) {
  if (n == 0 || !Takes(dtype)) return kLeftToHost;
  const int64_t e = SizeOf(dtype);
  GpuCall call(shared_->lanes, &health_);
  const ActivationArgs args = {.n = n,
                               .x = call.In(gate, n * e),
                               .up = call.In(up, n * e),
                               .out = call.Out(a, n * e)};
  Launch(call, LayerKernel::kSwiGlu, dtype, ShapeOf(n, e), args);
  return call.Finish();
}

Done LayerKernelsOnGpu::SwiGluBackward(DType dtype, int64_t n, const void* gate,
                                       const void* up, const void* da,
                                       void* dgate, void* dup) {
  if (n == 0 || !Takes(dtype)) return kLeftToHost;
  const int64_t e = SizeOf(dtype);
  GpuCall call(shared_->lanes, &health_);
  const ActivationArgs args = {.n = n,
                               .x = call.In(gate, n * e),
                               .up = call.In(up, n * e),
                               .da = call.In(da, n * e),
                               .out = call.Out(dgate, n * e),
                               .dup = call.Out(dup, n * e)};
  Launch(call, LayerKernel::kSwiGluBackward, dtype, ShapeOf(n, e), args);
  return call.Finish();
}

Done LayerKernelsOnGpu::ColumnSum(DType dtype, int64_t rows, int64_t columns,
                                  const void* x, void* out) {
  if (rows == 0 || columns == 0 || !Takes(dtype, columns)) return kLeftToHost;
  const int64_t e = SizeOf(dtype);
  const LaunchShape shape = shared_->lanes.Limited(
      RowSumLaunch(rows, columns, SizeOf(dtype), multiprocessors()));
  GpuCall call(shared_->lanes, &health_);
  float* const partials = call.Make<float>(shape.blocks * columns);
  const ActivationArgs sums = {.n = columns,
                               .rows = rows,
                               .x = call.In(x, rows * columns * e),
                               .out = partials};
  void* const rounded = call.Out(out, columns * e);
  Launch(call, LayerKernel::kColumnSums, dtype, shape, sums);
  if (dtype == DType::kF32) {
    SumParts(call, shape.blocks, columns, partials,
             static_cast<float*>(rounded), nullptr);
    return call.Finish();
  }
  float* const wide = call.Make<float>(columns);
  SumParts(call, shape.blocks, columns, partials, wide, nullptr);
  const ActivationArgs rounding = {.n = columns, .x = wide, .out = rounded};
  Launch(call, LayerKernel::kRoundSums, dtype, ShapeOf(columns, e), rounding);
  return call.Finish();
}

Done LayerKernelsOnGpu::AddBias(DType dtype, int64_t rows, int64_t columns,
                                const void* b, void* y) {
  if (rows == 0 || columns == 0) return kLeftToHost;
  if (!Takes(dtype, columns)) return kLeftToHost;
  const int64_t e = SizeOf(dtype);
  GpuCall call(shared_->lanes, &health_);
  const ActivationArgs args = {.n = columns,
                               .rows = rows,
                               .up = call.In(b, columns * e),
                               .out = call.InOut(y, rows * columns * e)};
  Launch(call, LayerKernel::kAddBias, dtype,
         RowLaunch(rows, columns, SizeOf(dtype)), args);
  return call.Finish();
}

// --- norm.h -----------------------------------------------------------------

Done LayerKernelsOnGpu::Normalize(const NormRows& rows,
                                  const NormalizeArgs& args) {
  if (rows.rows == 0 || rows.columns == 0) return kLeftToHost;
  if (!Takes(rows.dtype, rows.columns)) return kLeftToHost;
  const int64_t row = rows.columns * SizeOf(rows.dtype), all = rows.rows * row;
  GpuCall call(shared_->lanes, &health_);
  // z is written where there is a residual, and the mean where it is taken.
  const NormalizeArgs there = {
      .x = call.In(args.x, all),
      .residual = call.In(args.residual, all),
      .weight = call.In(args.weight, row),
      .bias = call.In(args.bias, row),
      .z = args.residual == nullptr ? nullptr : call.Out(args.z, all),
      .y = call.Out(args.y, all),
      .mean = rows.centred ? call.Out(args.mean, rows.rows * kWide) : nullptr,
      .inverse = call.Out(args.inverse, rows.rows * kWide)};
  Launch(call, LayerKernel::kNormalize, rows.dtype,
         RowLaunch(rows.rows, rows.columns, SizeOf(rows.dtype)), rows, there);
  return call.Finish();
}

Done LayerKernelsOnGpu::NormalizeBackward(const NormRows& rows,
                                          const NormalizeBackwardArgs& args) {
  if (rows.rows == 0 || rows.columns == 0) return kLeftToHost;
  if (!Takes(rows.dtype, rows.columns)) return kLeftToHost;
  const int64_t row = rows.columns * SizeOf(rows.dtype), all = rows.rows * row;
  const LaunchShape shape = shared_->lanes.Limited(RowSumLaunch(
      rows.rows, rows.columns, SizeOf(rows.dtype), multiprocessors()));
  GpuCall call(shared_->lanes, &health_);
  const NormalizeBackwardArgs there = {
      .z = call.In(args.z, all),
      .weight = call.In(args.weight, row),
      .dy = call.In(args.dy, all),
      .dz = call.In(args.dz, all),
      .mean = rows.centred ? call.In(args.mean, rows.rows * kWide) : nullptr,
      .inverse = call.In(args.inverse, rows.rows * kWide),
      .dx = call.Out(args.dx, all),
      .dweight = call.Out(args.dweight, rows.columns * kWide),
      .dbias = call.Out(args.dbias, rows.columns * kWide)};
  float* const partials = call.Make<float>(shape.blocks * rows.columns *
                                           (args.dbias == nullptr ? 1 : 2));
  Launch(call, LayerKernel::kNormalizeBackward, rows.dtype, shape, rows, there,
         partials);
  SumParts(call, shape.blocks, rows.columns, partials,
           static_cast<float*>(there.dweight),
           static_cast<float*>(there.dbias));
  return call.Finish();
}

Done LayerKernelsOnGpu::RoundSums(DType dtype, int64_t n, const void* sums,
                                  void* out) {
  if (n == 0 || !Takes(dtype)) return kLeftToHost;
  // In place they would move through one another.
  if (sums == out && dtype != DType::kF32) {
    ++shared_->left;
    return kLeftToHost;
  }
  const int64_t e = SizeOf(dtype);
  GpuCall call(shared_->lanes, &health_);
  const ActivationArgs args = {
      .n = n, .x = call.In(sums, n * kWide), .out = call.Out(out, n * e)};
  Launch(call, LayerKernel::kRoundSums, dtype, ShapeOf(n, e), args);
  return call.Finish();
}

// --- softmax.h, rope.h, dropout.h -------------------------------------------

Done LayerKernelsOnGpu::Softmax(const SoftmaxShape& shape, void* s, void* p) {
  const int64_t n = shape.rows * shape.columns;
  if (n == 0 || !Takes(shape.dtype, shape.columns)) return kLeftToHost;
  GpuCall call(shared_->lanes, &health_);
  const void* const scores = call.In(static_cast<const void*>(s), n * kWide);
  void* const out = call.Out(p, n * SizeOf(shape.dtype));
  Launch(call, LayerKernel::kSoftmax, shape.dtype,
         RowLaunch(shape.rows, shape.columns, SizeOf(shape.dtype)), shape,
         scores, out);
  return call.Finish();
}

Done LayerKernelsOnGpu::SoftmaxBackward(const SoftmaxShape& shape,
                                        const void* p, const void* dp,
                                        void* ds) {
  const int64_t n = shape.rows * shape.columns;
  if (n == 0 || !Takes(shape.dtype, shape.columns)) return kLeftToHost;
  GpuCall call(shared_->lanes, &health_);
  const void* const there_p = call.In(p, n * SizeOf(shape.dtype));
  const void* const there_dp = call.In(dp, n * kWide);
  void* const there_ds = call.Out(ds, n * kWide);
  Launch(call, LayerKernel::kSoftmaxBackward, shape.dtype,
         RowLaunch(shape.rows, shape.columns, SizeOf(shape.dtype)), shape,
         there_p, there_dp, there_ds);
  return call.Finish();
}

Done LayerKernelsOnGpu::Rope(const RopeTable& table, RopeDirection direction,
                             const RopeArgs& args) {
  const int64_t head_dim = table.config().head_dim;
  const int64_t width = args.heads * head_dim;
  const DType dtype = table.config().dtype;
  if (args.tokens == 0 || width == 0) return kLeftToHost;
  if (!Takes(dtype, width)) return kLeftToHost;
  const int64_t e = SizeOf(dtype);
  const int64_t angles = table.rows() * (head_dim / 2) * kWide;
  GpuCall call(shared_->lanes, &health_);
  const RopeRows rows = {
      .rows = table.rows(),
      .head_dim = head_dim,
      .cosines = static_cast<const float*>(call.In(table.cosines(), angles)),
      .sines = static_cast<const float*>(call.In(table.sines(), angles)),
      .direction = direction};
  const GpuCall::Staged x = call.InOutRows(
      args.x,
      {.count = args.tokens, .bytes = width * e, .stride = args.stride * e});
  const RopeArgs there = {.tokens = args.tokens,
                          .heads = args.heads,
                          .stride = x.stride / e,
                          .x = x.data};
  // A thread for each pair.
  Launch(call, LayerKernel::kRope, dtype,
         RowLaunch(args.tokens, width / 2, SizeOf(dtype)), rows, there);
  return call.Finish();
}

Done LayerKernelsOnGpu::Dropout(const DropoutArgs& args) {
  const int64_t n = args.rows * args.columns;
  if (n == 0 || !Takes(args.dtype)) return kLeftToHost;
  const int64_t e = SizeOf(args.dtype);
  GpuCall call(shared_->lanes, &health_);
  DropoutArgs there = args;
  there.x = call.In(args.x, n * e);
  there.y = call.Out(args.y, n * e);
  Launch(call, LayerKernel::kDropout, args.dtype, ShapeOf(n, e), there);
  return call.Finish();
}

// --- optimizer.h ------------------------------------------------------------

namespace {

// f32 parameters are the weights; narrower ones are only written.
UpdateTensors Placed(GpuCall& call, const UpdateTensors& t, bool second) {
  const bool narrow = t.dtype != DType::kF32;
  const int64_t bytes = t.n * SizeOf(t.dtype);
  UpdateTensors there = t;
  there.parameter =
      narrow ? call.Out(t.parameter, bytes) : call.InOut(t.parameter, bytes);
  there.gradient = call.In(t.gradient, t.n * SizeOf(t.gradient_dtype));
  there.master = narrow ? call.InOut(t.master, t.n * kWide) : nullptr;
  there.first = call.InOut(t.first, t.n * kWide);
  there.second = second ? call.InOut(t.second, t.n * kWide) : nullptr;
  return there;
}

}  // namespace

Done LayerKernelsOnGpu::AddSquares(DType dtype, int64_t n, const void* x,
                                   SquareSum* total) {
  if (n == 0 || !Takes(dtype)) return kLeftToHost;
  const int64_t e = SizeOf(dtype);
  const LaunchShape shape = shared_->lanes.Limited(ShapeOf(n, e));
  GpuCall call(shared_->lanes, &health_);
  auto* const partials = call.Make<Squares>(shape.blocks);
  const SquareArgs first = {
      .n = n, .x = call.In(x, n * e), .partials = partials};
  const SquareArgs second = {.n = shape.blocks,
                             .partials = partials,
                             .total = call.InOut(total, sizeof(SquareSum))};
  Launch(call, LayerKernel::kAddSquares, dtype, shape, first);
  Launch(call, LayerKernel::kFinishSquares, dtype,
         LaunchShape{1, RowThreads(shape.blocks, sizeof(Squares), 1)}, second);
  return call.Finish();
}

Done LayerKernelsOnGpu::SgdStep(const SgdArgs& args) {
  const UpdateTensors& t = args.tensors;
  if (t.n == 0 || !Takes(t.dtype)) return kLeftToHost;
  GpuCall call(shared_->lanes, &health_);
  SgdArgs there = args;
  there.tensors = Placed(call, t, false);
  Launch(call,
         t.gradient_dtype == t.dtype ? LayerKernel::kSgdStep
                                     : LayerKernel::kSgdStepOfWideGradients,
         t.dtype, ShapeOf(t.n, SizeOf(t.dtype)), there);
  return call.Finish();
}

Done LayerKernelsOnGpu::AdamStep(const AdamArgs& args) {
  const UpdateTensors& t = args.tensors;
  if (t.n == 0 || !Takes(t.dtype)) return kLeftToHost;
  GpuCall call(shared_->lanes, &health_);
  AdamArgs there = args;
  there.tensors = Placed(call, t, true);
  Launch(call,
         t.gradient_dtype == t.dtype ? LayerKernel::kAdamStep
                                     : LayerKernel::kAdamStepOfWideGradients,
         t.dtype, ShapeOf(t.n, SizeOf(t.dtype)), there);
  return call.Finish();
}

Done LayerKernelsOnGpu::WidenParameters(DType dtype, int64_t n,
                                        const void* parameter, void* master) {
  if (n == 0 || !Takes(dtype)) return kLeftToHost;
  const int64_t e = SizeOf(dtype);
  GpuCall call(shared_->lanes, &health_);
  const WidenArgs args = {
      .n = n,
      .parameter = call.In(parameter, n * e),
      .master = static_cast<float*>(call.Out(master, n * kWide))};
  Launch(call, LayerKernel::kWidenParameters, dtype, ShapeOf(n, e), args);
  return call.Finish();
}

}  // namespace shardproof::cuda
