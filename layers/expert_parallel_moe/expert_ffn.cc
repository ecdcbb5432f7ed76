#include "layers/expert_parallel_moe/expert_ffn.h"

#include <utility>

#include "collectives/chunks.h"
#include "collectives/device.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/gemm.h"

namespace shardproof {
StatusOr<ExpertFfn> ExpertFfn::Create(const Sizes& sizes) {
  ExpertFfn ffn;
  ffn.sizes_ = sizes;
  const Shape shape = {sizes.most_rows, sizes.features};
  for (Tensor* tensor :
       {&ffn.gate_, &ffn.up_, &ffn.activated_, &ffn.d_activated_}) {
    if (tensor == &ffn.gate_ && !ffn.gated()) continue;
    SP_ASSIGN_OR_RETURN(*tensor, Tensor::Create(sizes.dtype, shape));
  }
  return ffn;
}

ConstTensorView ExpertFfn::RowsOf(const void* data, Rows rows,
                                  int64_t width) const {
  return {sizes_.dtype,
          {rows.count, width},
          At(data, sizes_.dtype, rows.begin * width)};
}

TensorView ExpertFfn::RowsOf(void* data, Rows rows, int64_t width) const {
  return {sizes_.dtype,
          {rows.count, width},
          At(data, sizes_.dtype, rows.begin * width)};
}

ConstTensorView ExpertFfn::Layer(const void* stack, int64_t i,
                                 int64_t rows) const {
  const int64_t all = sizes_.features * sizes_.hidden;
  return {sizes_.dtype,
          {rows, rows == 0 ? 0 : all / rows},
          At(stack, sizes_.dtype, i * all)};
}

TensorView ExpertFfn::Layer(void* stack, int64_t i, int64_t rows) const {
  const int64_t all = sizes_.features * sizes_.hidden;
  return {sizes_.dtype,
          {rows, rows == 0 ? 0 : all / rows},
          At(stack, sizes_.dtype, i * all)};
}

Status ExpertFfn::Forward(std::span<const int64_t> begins, const void* x,
                          const FfnParts<const void>& weights, void* y) {
  const int64_t h = sizes_.hidden, f = sizes_.features;
  const auto networks = static_cast<int64_t>(begins.size()) - 1;
  for (int64_t i = 0; i < networks; ++i) {
    const Rows rows = {begins[i], begins[i + 1] - begins[i]};
    if (rows.count == 0) continue;
    SP_RETURN_IF_ERROR(
        Gemm(Stream::Inline(), {.a = RowsOf(x, rows, h),
                                .b = Layer(weights.up, i, f),
                                .transpose_b = true,
                                .c = RowsOf(up_.raw(), rows, f)}));
    if (!gated()) continue;
    SP_RETURN_IF_ERROR(
        Gemm(Stream::Inline(), {.a = RowsOf(x, rows, h),
                                .b = Layer(weights.gate, i, f),
                                .transpose_b = true,
                                .c = RowsOf(gate_.raw(), rows, f)}));
  }
  const int64_t n = begins.back() * f;
  SP_RETURN_IF_ERROR(gated() ? SwiGlu(Stream::Inline(), sizes_.dtype, n,
                                      gate_.raw(), up_.raw(), activated_.raw())
                             : Gelu(Stream::Inline(), sizes_.dtype, n,
                                    up_.raw(), activated_.raw()));
  for (int64_t i = 0; i < networks; ++i) {
    const Rows rows = {begins[i], begins[i + 1] - begins[i]};
    if (rows.count == 0) continue;
    SP_RETURN_IF_ERROR(
        Gemm(Stream::Inline(), {.a = RowsOf(activated_.raw(), rows, f),
                                .b = Layer(weights.down, i, h),
                                .transpose_b = true,
                                .c = RowsOf(y, rows, h)}));
  }
  return OkStatus();
}

Status ExpertFfn::BackwardOf(int64_t i, Rows rows, const void* x,
                             const void* dy,
                             const FfnParts<const void>& weights,
                             const FfnParts<void>& gradients) {
  const DType dtype = sizes_.dtype;
  const int64_t h = sizes_.hidden, f = sizes_.features, n = rows.count * f;
  const ConstTensorView d_rows = RowsOf(dy, rows, h);
  const TensorView a = RowsOf(activated_.raw(), rows, f);
  const TensorView da = RowsOf(d_activated_.raw(), rows, f);
  const TensorView z = RowsOf(up_.raw(), rows, f);
  SP_RETURN_IF_ERROR(
      Gemm(Stream::Inline(),
           {.a = d_rows, .b = Layer(weights.down, i, h), .c = da}));
  SP_RETURN_IF_ERROR(
      Gemm(Stream::Inline(), {.a = d_rows,
                              .transpose_a = true,
                              .b = a,
                              .c = Layer(gradients.down, i, h)}));
  const auto through = [&](const TensorView& d, void* gradient) {
    return Gemm(Stream::Inline(), {.a = d,
                                   .transpose_a = true,
                                   .b = RowsOf(x, rows, h),
                                   .c = Layer(gradient, i, f)});
  };
  if (!gated()) {
    SP_RETURN_IF_ERROR(
        GeluBackward(Stream::Inline(), dtype, n, z.data, da.data, z.data));
    return through(z, gradients.up);
  }
  const TensorView g = RowsOf(gate_.raw(), rows, f);
  SP_RETURN_IF_ERROR(SwiGluBackward(Stream::Inline(), dtype, n, g.data, z.data,
                                    da.data, g.data, z.data));
  SP_RETURN_IF_ERROR(through(z, gradients.up));
  return through(g, gradients.gate);
}

Status ExpertFfn::Backward(std::span<const int64_t> begins, const void* x,
                           const FfnParts<const void>& weights, const void* dy,
                           void* dx, const FfnParts<void>& gradients) {
  const int64_t h = sizes_.hidden, f = sizes_.features;
  const auto networks = static_cast<int64_t>(begins.size()) - 1;
  for (int64_t i = 0; i < networks; ++i) {
    const Rows rows = {begins[i], begins[i + 1] - begins[i]};
    SP_RETURN_IF_ERROR(BackwardOf(i, rows, x, dy, weights, gradients));
    SP_RETURN_IF_ERROR(
        Gemm(Stream::Inline(), {.a = RowsOf(std::as_const(up_).raw(), rows, f),
                                .b = Layer(weights.up, i, f),
                                .c = RowsOf(dx, rows, h)}));
    if (!gated()) continue;
    SP_RETURN_IF_ERROR(Gemm(Stream::Inline(),
                            {.a = RowsOf(std::as_const(gate_).raw(), rows, f),
                             .b = Layer(weights.gate, i, f),
                             .c = RowsOf(dx, rows, h),
                             .accumulate = true}));
  }
  return OkStatus();
}

}  // namespace shardproof
