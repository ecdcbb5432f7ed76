#include "pipeline/execution/linear_stage.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "collectives/chunks.h"
#include "layers/kernels/gemm.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {

StatusOr<LinearStage> LinearStage::Create(const LinearStageConfig& config,
                                          std::vector<LinearStageLayer> layers,
                                          const LinearStageEnds& ends) {
  SP_RETURN_IF_ERROR(CheckLayerType(config.dtype));
  const bool negative = std::any_of(config.tokens.begin(), config.tokens.end(),
                                    [](int64_t n) { return n < 0; });
  if (negative || config.width < 0 || config.slots < 0) {
    return InvalidArgument("linear layers of width {}, {} slots, {} tokens",
                           config.width, config.slots,
                           fmt::join(config.tokens, " "));
  }
  return LinearStage(config, std::move(layers), ends);
}

LinearStage::LinearStage(const LinearStageConfig& config,
                         std::vector<LinearStageLayer> layers,
                         const LinearStageEnds& ends)
    : config_(config), layers_(std::move(layers)), ends_(ends) {
  int64_t begin = 0, most = 0;
  for (const int64_t n : config_.tokens) {
    begins_.push_back(begin);
    begin += n;
    most = std::max(most, n);
  }
  const int64_t between = std::max(0, this->layers() - 1);
  const int64_t sets = config_.recompute ? 1 : config_.slots;
  activations_ = Tensor(config_.dtype, {sets, between, most, config_.width});
  gradients_ =
      Tensor(config_.dtype, {config_.slots, between, most, config_.width});
  ones_ = Tensor(config_.dtype, {1, most});
  const std::vector<double> ones(static_cast<size_t>(most), 1.0);
  FromDouble(config_.dtype, ones.data(), most, ones_.raw());
}

void LinearStage::BeginStep() {
  const auto row = static_cast<size_t>(config_.width * SizeOf(config_.dtype));
  for (const LinearStageLayer& layer : layers_) {
    std::memset(layer.dw, 0, row * static_cast<size_t>(config_.width));
    std::memset(layer.db, 0, row);
  }
}

const void* LinearStage::Of(const StageVisit& visit, const void* end) const {
  return At(end, config_.dtype,
            begins_[static_cast<size_t>(visit.micro_batch)] * config_.width);
}
void* LinearStage::Of(const StageVisit& visit, void* end) const {
  return At(end, config_.dtype,
            begins_[static_cast<size_t>(visit.micro_batch)] * config_.width);
}

void* LinearStage::Activation(const StageVisit& visit, int l) {
  const Shape& s = activations_.shape();
  const int64_t set = config_.recompute ? 0 : visit.slot;
  return At(activations_.raw(), config_.dtype,
            (set * s[1] + l - 1) * s[2] * s[3]);
}
void* LinearStage::Gradient(const StageVisit& visit, int l) {
  const Shape& s = gradients_.shape();
  return At(gradients_.raw(), config_.dtype,
            (visit.slot * s[1] + l - 1) * s[2] * s[3]);
}

// h_(l+1) of h_l.
Status LinearStage::Apply(const StageVisit& visit, int l, const void* h,
                          void* out) {
  const int64_t n = TokensOf(visit), w = config_.width;
  const LinearStageLayer& layer = layers_[static_cast<size_t>(l)];
  return Gemm(Stream::Inline(), {.a = {config_.dtype, {n, w}, h},
                                 .b = {config_.dtype, {w, w}, layer.w},
                                 .transpose_b = true,
                                 .c = {config_.dtype, {n, w}, out},
                                 .bias = layer.b});
}

void LinearStage::PassOn(const StageVisit& visit, const void* from,
                         void* to) const {
  const int64_t bytes = TokensOf(visit) * config_.width * SizeOf(config_.dtype);
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

Status LinearStage::Forward(const StageVisit& visit, const void* x, void* y) {
  const void* h = x != nullptr ? x : Of(visit, ends_.x);
  void* const last = y != nullptr ? y : Of(visit, ends_.y);
  if (layers() == 0) PassOn(visit, h, last);
  for (int l = 0; l < layers(); ++l) {
    void* const out = l + 1 < layers() ? Activation(visit, l + 1) : last;
    SP_RETURN_IF_ERROR(Apply(visit, l, h, out));
    h = out;
  }
  return OkStatus();
}

Status LinearStage::BackwardInput(const StageVisit& visit, const void* /*x*/,
                                  const void* dy, void* dx) {
  const int64_t n = TokensOf(visit), w = config_.width;
  const void* d = dy != nullptr ? dy : Of(visit, ends_.dy);
  void* const last = dx != nullptr ? dx : Of(visit, ends_.dx);
  if (layers() == 0) PassOn(visit, d, last);
  for (int l = layers() - 1; l >= 0; --l) {
    void* const out = l > 0 ? Gradient(visit, l) : last;
    SP_RETURN_IF_ERROR(
        Gemm(Stream::Inline(),
             {.a = {config_.dtype, {n, w}, d},
              .b = {config_.dtype, {w, w}, layers_[static_cast<size_t>(l)].w},
              .c = {config_.dtype, {n, w}, out}}));
    d = out;
  }
  return OkStatus();
}

Status LinearStage::BackwardWeight(const StageVisit& visit, const void* x,
                                   const void* dy) {
  const int64_t n = TokensOf(visit), w = config_.width;
  const void* const first = x != nullptr ? x : Of(visit, ends_.x);
  const void* const last = dy != nullptr ? dy : Of(visit, ends_.dy);
  for (int l = 1; config_.recompute && l < layers(); ++l) {
    SP_RETURN_IF_ERROR(Apply(visit, l - 1,
                             l > 1 ? Activation(visit, l - 1) : first,
                             Activation(visit, l)));
  }
  for (int l = layers() - 1; l >= 0; --l) {
    const LinearStageLayer& layer = layers_[static_cast<size_t>(l)];
    const void* const h = l > 0 ? Activation(visit, l) : first;
    const void* const d = l + 1 < layers() ? Gradient(visit, l + 1) : last;
    SP_RETURN_IF_ERROR(
        Gemm(Stream::Inline(), {.a = {config_.dtype, {n, w}, d},
                                .transpose_a = true,
                                .b = {config_.dtype, {n, w}, h},
                                .c = {config_.dtype, {w, w}, layer.dw},
                                .accumulate = true}));
    // A product with ones, which can be added to what is there.
    SP_RETURN_IF_ERROR(
        Gemm(Stream::Inline(), {.a = {config_.dtype, {1, n}, ones_.raw()},
                                .b = {config_.dtype, {n, w}, d},
                                .c = {config_.dtype, {1, w}, layer.db},
                                .accumulate = true}));
  }
  return OkStatus();
}

Status LinearStage::Backward(const StageVisit& visit, const void* x,
                             const void* dy, void* dx) {
  SP_RETURN_IF_ERROR(BackwardInput(visit, x, dy, dx));
  return BackwardWeight(visit, x, dy);
}

}  // namespace shardproof
