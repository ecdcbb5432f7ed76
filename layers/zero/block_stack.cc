#include "layers/zero/block_stack.h"

#include <algorithm>
#include <utility>

#include "collectives/chunks.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/gemm.h"

namespace shardproof {

BlockStack::BlockStack(std::vector<int64_t> widths, DType dtype)
    : widths_(std::move(widths)), dtype_(dtype) {
  bias_gradient_ =
      Tensor(dtype, {*std::max_element(widths_.begin(), widths_.end())});
}

std::vector<int64_t> BlockStack::blocks() const {
  std::vector<int64_t> sizes;
  for (size_t l = 0; l < layers(); ++l) {
    sizes.push_back((widths_[l] + 1) * widths_[l + 1]);
  }
  return sizes;
}

void BlockStack::SetBatch(const Batch& batch, int micro_batches) {
  batch_ = batch;
  micro_batches_ = micro_batches;
  const int64_t tokens = Tokens(0).count;
  if (!activations_.empty() && activations_[0].shape()[0] >= tokens) return;
  activations_.clear();
  gradients_.clear();
  for (size_t l = 0; l + 1 < layers(); ++l) {
    activations_.emplace_back(dtype_, Shape{tokens, widths_[l + 1]});
    gradients_.emplace_back(dtype_, Shape{tokens, widths_[l + 1]});
  }
}

Chunk BlockStack::Tokens(int micro) const {
  return BalancedChunk(batch_.tokens, micro_batches_, micro);
}

const void* BlockStack::Input(int micro, size_t layer) const {
  if (layer > 0) return activations_[layer - 1].raw();
  return At(batch_.x, dtype_, Tokens(micro).begin * widths_.front());
}
void* BlockStack::Output(int micro, size_t layer) {
  if (layer + 1 < layers()) return activations_[layer].raw();
  return At(batch_.y, dtype_, Tokens(micro).begin * widths_.back());
}
const void* BlockStack::OutputGradient(int micro, size_t layer) const {
  if (layer + 1 < layers()) return gradients_[layer].raw();
  return At(batch_.dy, dtype_, Tokens(micro).begin * widths_.back());
}
void* BlockStack::InputGradient(int micro, size_t layer) {
  if (layer > 0) return gradients_[layer - 1].raw();
  return At(batch_.dx, dtype_, Tokens(micro).begin * widths_.front());
}

Status BlockStack::Forward(int micro, size_t layer, const void* parameters) {
  const int64_t tokens = Tokens(micro).count;
  const int64_t in = widths_[layer], out = widths_[layer + 1];
  return Gemm(Stream::Inline(),
              {.a = {dtype_, {tokens, in}, Input(micro, layer)},
               .b = {dtype_, {out, in}, parameters},
               .transpose_b = true,
               .c = {dtype_, {tokens, out}, Output(micro, layer)},
               .bias = At(parameters, dtype_, out * in)});
}

Status BlockStack::Backward(int micro, size_t layer, const void* parameters,
                            void* gradients, bool accumulate) {
  const Stream stream;
  const int64_t tokens = Tokens(micro).count;
  const int64_t in = widths_[layer], out = widths_[layer + 1];
  const ConstTensorView dy(dtype_, {tokens, out}, OutputGradient(micro, layer));
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dy,
                    .transpose_a = true,
                    .b = {dtype_, {tokens, in}, Input(micro, layer)},
                    .c = {dtype_, {out, in}, gradients},
                    .accumulate = accumulate}));
  void* const bias = At(gradients, dtype_, out * in);
  SP_RETURN_IF_ERROR(ColumnSum(stream, dtype_, tokens, out, dy.data,
                               accumulate ? bias_gradient_.raw() : bias));
  if (accumulate) {
    SP_RETURN_IF_ERROR(
        AddBias(stream, dtype_, 1, out, bias_gradient_.raw(), bias));
  }
  return Gemm(stream,
              {.a = dy,
               .b = {dtype_, {out, in}, parameters},
               .c = {dtype_, {tokens, in}, InputGradient(micro, layer)}});
}

}  // namespace shardproof
