#include "attention/kernels/flash.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "attention/kernels/flash_block.h"
#include "attention/kernels/flash_kernels.h"
#include "collectives/rank_context.h"

namespace shardproof {
namespace {

class HostFlashAttention : public FlashAttention {
 public:
  explicit HostFlashAttention(const FlashShape& shape)
      : shape_(shape), forward_(shape) {
    if (shape.backward) backward_.emplace(shape);
  }
  Status Allocate() {
    SP_RETURN_IF_ERROR(forward_.Allocate());
    return backward_ ? backward_->Allocate() : OkStatus();
  }

  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    SP_RETURN_IF_ERROR(Check(args.block));
    const DType wide = Accumulator(shape_.dtype);
    if (args.o_type != shape_.dtype && args.o_type != wide) {
      return InvalidArgument("attention of {} gives {} or {}, not {}",
                             Name(shape_.dtype), Name(shape_.dtype), Name(wide),
                             Name(args.o_type));
    }
    return stream.Run([this, args] { return forward_.Run(args); });
  }
  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    SP_RETURN_IF_ERROR(Check(args.block));
    if (!backward_) {
      return InvalidArgument("this attention was created to go forward only");
    }
    return stream.Run([this, args] { return backward_->Run(args); });
  }
  int64_t working_bytes() const override {
    return forward_.working_bytes() +
           (backward_ ? backward_->working_bytes() : 0);
  }

 private:
  Status Check(const FlashBlock& block) const {
    if (block.visibility == nullptr) {
      return InvalidArgument("a block of attention has no visibility");
    }
    SP_RETURN_IF_ERROR(CheckRun(block.queries));
    SP_RETURN_IF_ERROR(CheckRun(block.keys));
    if (block.queries.count > shape_.queries ||
        block.keys.count > shape_.keys) {
      return InvalidArgument(
          "{} queries and {} keys, but memory was asked for {} and {}",
          block.queries.count, block.keys.count, shape_.queries, shape_.keys);
    }
    return OkStatus();
  }

  FlashShape shape_;
  kernels::FlashForward forward_;
  std::optional<kernels::FlashBackward> backward_;
};

Status CheckShape(const FlashShape& shape) {
  if (std::min({shape.sequences, shape.queries, shape.keys, shape.heads,
                shape.kv_heads, shape.head_dim, shape.first_in_group}) < 0 ||
      shape.heads_per_kv < 1) {
    return InvalidArgument("a size of an attention is negative");
  }
  const bool fits = shape.first_in_group < shape.heads_per_kv &&
                    (shape.heads == 0 ? shape.kv_heads == 0
                                      : shape.KvHeadOf(shape.heads - 1) + 1 ==
                                            shape.kv_heads);
  if (!fits) {
    return InvalidArgument(
        "{} heads, {} to a KV head and the first of them number {} of its "
        "group, do not have {} KV heads",
        shape.heads, shape.heads_per_kv, shape.first_in_group, shape.kv_heads);
  }
  // The largest score has the largest exponent only then.
  if (!(shape.scale >= 0) || std::isinf(shape.scale)) {
    return InvalidArgument("scores cannot be scaled by {}", shape.scale);
  }
  const DType dtype = shape.dtype;
  if (dtype != DType::kF64 && dtype != DType::kF32 && dtype != DType::kBF16 &&
      dtype != DType::kF16) {
    return Unsupported("attention is computed in f64, f32, bf16 or f16, not {}",
                       Name(dtype));
  }
  return OkStatus();
}

}  // namespace

StatusOr<std::unique_ptr<FlashAttention>> FlashAttention::Create(
    const FlashShape& shape) {
  SP_RETURN_IF_ERROR(CheckShape(shape));
  if (FlashKernels* const device = FindService<FlashKernels>()) {
    SP_ASSIGN_OR_RETURN(std::unique_ptr<FlashAttention> made,
                        device->Create(shape));
    if (made != nullptr) return made;
  }
  return CreateOnHost(shape);
}

StatusOr<std::unique_ptr<FlashAttention>> FlashAttention::CreateOnHost(
    const FlashShape& shape) {
  SP_RETURN_IF_ERROR(CheckShape(shape));
  auto flash = std::make_unique<HostFlashAttention>(shape);
  SP_RETURN_IF_ERROR(flash->Allocate());
  return std::unique_ptr<FlashAttention>(std::move(flash));
}

}  // namespace shardproof
