#include "layers/data_parallel/linear_stack.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "layers/kernels/activation.h"
#include "layers/kernels/gemm.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {

Shape LinearStackConfig::ShapeOf(int parameter) const {
  if (parameter == kPrefix) return {widths[0]};
  const auto layer = static_cast<size_t>((parameter - 1) / 2);
  if (parameter == Bias(static_cast<int>(layer))) return {widths[layer + 1]};
  return {widths[layer + 1], widths[layer]};
}

std::vector<int64_t> LinearStackConfig::Counts() const {
  std::vector<int64_t> counts;
  for (int i = 0; i < parameters(); ++i) {
    counts.push_back(ShapeOf(i).NumElements());
  }
  return counts;
}

GradientSink SinkOf(DataParallel& gradients) {
  return {.open = [&gradients](int i) { return gradients.Open(i); },
          .close = [&gradients](int i) { return gradients.Close(i); }};
}

StatusOr<LinearStack> LinearStack::Create(const LinearStackConfig& config) {
  SP_RETURN_IF_ERROR(CheckLayerType(config.dtype));
  if (config.widths.size() < 2 || config.tokens < 0 ||
      *std::min_element(config.widths.begin(), config.widths.end()) < 0) {
    return InvalidArgument("a stack of linear layers of widths {}, {} tokens",
                           fmt::join(config.widths, " "), config.tokens);
  }
  return LinearStack(config);
}

LinearStack::LinearStack(const LinearStackConfig& config)
    : config_(config), ones_(config.dtype, {1, config.tokens}) {
  for (const int64_t width : config.widths) {
    h_.emplace_back(config.dtype, Shape{config.tokens, width});
  }
  const int64_t widest =
      *std::max_element(config.widths.begin(), config.widths.end());
  d_ = Tensor(config.dtype, {config.tokens, widest});
  next_d_ = Tensor(config.dtype, {config.tokens, widest});
  const std::vector<double> ones(static_cast<size_t>(config.tokens), 1.0);
  FromDouble(config.dtype, ones.data(), config.tokens, ones_.raw());
}

Status LinearStack::Forward(const LinearStackBatch& batch,
                            const std::vector<const void*>& weights) {
  batch_ = batch;
  const DType dtype = config_.dtype;
  const int64_t tokens = batch.tokens;
  const int64_t bytes = tokens * config_.widths[0] * SizeOf(dtype);
  if (bytes > 0) {
    std::memcpy(h_[0].raw(), batch.x, static_cast<size_t>(bytes));
  }
  SP_RETURN_IF_ERROR(AddBias(Stream::Inline(), dtype, batch.prefixed,
                             config_.widths[0],
                             weights[LinearStackConfig::kPrefix], h_[0].raw()));
  for (int l = 0; l < config_.layers(); ++l) {
    const auto at = static_cast<size_t>(l);
    const int64_t in = config_.widths[at], out = config_.widths[at + 1];
    SP_RETURN_IF_ERROR(
        Gemm(Stream::Inline(),
             {.a = {dtype, {tokens, in}, h_[at].raw()},
              .b = {dtype, {out, in}, weights[LinearStackConfig::Weight(l)]},
              .transpose_b = true,
              .c = {dtype, {tokens, out}, h_[at + 1].raw()},
              .bias = weights[LinearStackConfig::Bias(l)]}));
  }
  return OkStatus();
}

// A product with ones, which can be added to what is there.
Status LinearStack::BiasGradient(const void* d, int64_t tokens, int parameter,
                                 const GradientSink& gradients) {
  const int64_t width = config_.ShapeOf(parameter)[0];
  SP_ASSIGN_OR_RETURN(const DataParallel::Target to, gradients.open(parameter));
  SP_RETURN_IF_ERROR(
      Gemm(Stream::Inline(), {.a = {config_.dtype, {1, tokens}, ones_.raw()},
                              .b = {config_.dtype, {tokens, width}, d},
                              .c = {config_.dtype, {1, width}, to.data},
                              .accumulate = to.accumulate}));
  return gradients.close(parameter);
}

Status LinearStack::Backward(const void* dy,
                             const std::vector<const void*>& weights,
                             const GradientSink& gradients) {
  const DType dtype = config_.dtype;
  const int64_t tokens = batch_.tokens;
  const void* d = dy;
  for (int l = config_.layers() - 1; l >= 0; --l) {
    const auto at = static_cast<size_t>(l);
    const int64_t in = config_.widths[at], out = config_.widths[at + 1];
    SP_RETURN_IF_ERROR(
        BiasGradient(d, tokens, LinearStackConfig::Bias(l), gradients));
    SP_ASSIGN_OR_RETURN(const DataParallel::Target to,
                        gradients.open(LinearStackConfig::Weight(l)));
    SP_RETURN_IF_ERROR(
        Gemm(Stream::Inline(), {.a = {dtype, {tokens, out}, d},
                                .transpose_a = true,
                                .b = {dtype, {tokens, in}, h_[at].raw()},
                                .c = {dtype, {out, in}, to.data},
                                .accumulate = to.accumulate}));
    SP_RETURN_IF_ERROR(gradients.close(LinearStackConfig::Weight(l)));
    // Below the first layer only the prefix is left, and few tokens have it.
    const int64_t needed = l > 0 ? tokens : batch_.prefixed;
    SP_RETURN_IF_ERROR(
        Gemm(Stream::Inline(),
             {.a = {dtype, {needed, out}, d},
              .b = {dtype, {out, in}, weights[LinearStackConfig::Weight(l)]},
              .c = {dtype, {needed, in}, next_d_.raw()}}));
    std::swap(d_, next_d_);
    d = d_.raw();
  }
  if (batch_.prefixed == 0) return OkStatus();
  return BiasGradient(d, batch_.prefixed, LinearStackConfig::kPrefix,
                      gradients);
}

}  // namespace shardproof
