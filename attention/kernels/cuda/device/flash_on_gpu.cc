#include "attention/kernels/cuda/device/flash_on_gpu.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "attention/kernels/cuda/device/flash_gpu.h"
#include "attention/kernels/cuda/device/flash_operands.h"
#include "attention/kernels/cuda/device/flash_work.h"

namespace shardproof::cuda {
namespace {

class FlashOnGpu final : public FlashAttention {
 public:
  FlashOnGpu(const FlashShape& shape, std::shared_ptr<FlashGpu> gpu,
             WorldHealth health)
      : shape_(shape), gpu_(std::move(gpu)), health_(std::move(health)) {}

  Status Allocate() {
    SP_ASSIGN_OR_RETURN(host_, FlashAttention::CreateOnHost(shape_));
    SP_ASSIGN_OR_RETURN(FlashScratch made,
                        FlashScratch::Create(gpu_->gpu(), ScratchBytes()));
    scratch_ = std::make_shared<FlashScratch>(std::move(made));
    return OkStatus();
  }

  // What the GPU does not do is the host's, and so is saying what is wrong.
  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    const std::optional<FlashWork> work = FlashWorkOf(shape_, args.block);
    const bool takes_o =
        args.o_type == shape_.dtype || args.o_type == DType::kF32;
    if (!work || !takes_o) return ByHost(host_->Forward(stream, args));
    return stream.Run(
        [this, args, work = *work] { return ForwardByGpu(args, work); });
  }
  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    const std::optional<FlashWork> work = FlashWorkOf(shape_, args.block);
    if (!work || !shape_.backward) {
      return ByHost(host_->Backward(stream, args));
    }
    return stream.Run(
        [this, args, work = *work] { return BackwardByGpu(args, work); });
  }
  int64_t working_bytes() const override {
    return host_->working_bytes() + static_cast<int64_t>(scratch_->bytes());
  }

 private:
  int64_t q_width() const { return shape_.heads * shape_.head_dim; }
  int64_t k_width() const { return shape_.kv_heads * shape_.head_dim; }

  Status ByHost(Status status) {
    if (status.ok()) gpu_->CountHostCall();
    return status;
  }
  // Copies of all tensors of the larger of the two calls.
  size_t ScratchBytes() const;
  Status ForwardByGpu(const ForwardArgs& args, const FlashWork& work);
  Status BackwardByGpu(const BackwardArgs& args, const FlashWork& work);

  const FlashShape shape_;
  const std::shared_ptr<FlashGpu> gpu_;
  const WorldHealth health_;
  std::unique_ptr<FlashAttention> host_;
  std::shared_ptr<FlashScratch> scratch_;
};

size_t FlashOnGpu::ScratchBytes() const {
  constexpr int64_t kNarrow = 2, kWide = 4;
  const int64_t q = shape_.sequences * shape_.queries * q_width();
  const int64_t k = shape_.sequences * shape_.keys * k_width();
  const int64_t numbers = shape_.sequences * shape_.heads * shape_.queries;
  const size_t forward = FlashScratch::Sum(
      {q * kNarrow, k * kNarrow, k * kNarrow, q * kWide, numbers * kWide});
  if (!shape_.backward) return forward;
  return std::max(
      forward, FlashScratch::Sum({q * kNarrow, k * kNarrow, k * kNarrow,
                                  q * kNarrow, numbers * kWide, numbers * kWide,
                                  q * kWide, k * kWide, k * kWide}));
}

Status FlashOnGpu::ForwardByGpu(const ForwardArgs& args,
                                const FlashWork& work) {
  const int64_t queries = args.block.queries.count;
  const int64_t keys = args.block.keys.count;
  FlashOperands operands(*gpu_, *scratch_, shape_.sequences, shape_.heads);
  FlashForwardArgs mine;
  mine.work = work;
  mine.q = operands.Read(args.q, shape_.dtype, queries, q_width());
  mine.k = operands.Read(args.k, shape_.dtype, keys, k_width());
  mine.v = operands.Read(args.v, shape_.dtype, keys, k_width());
  mine.o = operands.Write(args.o, args.o_type, queries, q_width(), false);
  mine.o_is_wide = args.o_type == DType::kF32;
  const FlashOperands::Numbers lse = operands.Write(args.lse, queries);
  mine.lse = lse.data;
  mine.lse_stride = lse.stride;

  FlashLaunches launches(*gpu_, shape_.dtype, shape_.head_dim);
  launches.AddForward(mine);
  SP_RETURN_IF_ERROR(gpu_->Run(launches.all(), health_, scratch_));
  operands.CopyBack();
  gpu_->CountGpuCall();
  return OkStatus();
}

Status FlashOnGpu::BackwardByGpu(const BackwardArgs& args,
                                 const FlashWork& work) {
  const int64_t queries = args.block.queries.count;
  const int64_t keys = args.block.keys.count;
  const bool adds = !args.overwrite;
  FlashOperands operands(*gpu_, *scratch_, shape_.sequences, shape_.heads);
  FlashBackwardArgs mine;
  mine.work = work;
  mine.q = operands.Read(args.q, shape_.dtype, queries, q_width());
  mine.k = operands.Read(args.k, shape_.dtype, keys, k_width());
  mine.v = operands.Read(args.v, shape_.dtype, keys, k_width());
  mine.d_o = operands.Read(args.d_o, shape_.dtype, queries, q_width());
  const FlashOperands::Numbers lse = operands.Read(args.lse, queries);
  mine.lse = lse.data;
  mine.lse_stride = lse.stride;
  const FlashOperands::Numbers delta = operands.Read(args.delta, queries);
  mine.delta = delta.data;
  mine.delta_stride = delta.stride;
  mine.dq = operands.Write(args.dq, DType::kF32, queries, q_width(), adds);
  mine.dk = operands.Write(args.dk, DType::kF32, keys, k_width(), adds);
  mine.dv = operands.Write(args.dv, DType::kF32, keys, k_width(), adds);
  mine.overwrite = args.overwrite;

  FlashLaunches launches(*gpu_, shape_.dtype, shape_.head_dim);
  launches.Add(FlashKernel::kKeyGradients, mine);
  launches.Add(FlashKernel::kQueryGradients, mine);
  SP_RETURN_IF_ERROR(gpu_->Run(launches.all(), health_, scratch_));
  operands.CopyBack();
  gpu_->CountGpuCall();
  return OkStatus();
}

}  // namespace

FlashKernelsOnGpu::FlashKernelsOnGpu(const FlashGpuOptions& options)
    : FlashKernelsOnGpu(std::make_shared<FlashGpu>(options), nullptr) {}

FlashKernelsOnGpu::FlashKernelsOnGpu(std::shared_ptr<FlashGpu> gpu,
                                     WorldHealth health)
    : gpu_(std::move(gpu)), health_(std::move(health)) {}

std::shared_ptr<FlashKernelsOnGpu> FlashKernelsOnGpu::ForWorld(
    WorldHealth health) const {
  return std::shared_ptr<FlashKernelsOnGpu>(
      new FlashKernelsOnGpu(gpu_, std::move(health)));
}

FlashGpuCounts FlashKernelsOnGpu::counts() const { return gpu_->counts(); }

StatusOr<std::unique_ptr<FlashAttention>> FlashKernelsOnGpu::Create(
    const FlashShape& shape) {
  if (!gpu_->Has(shape.dtype, shape.head_dim)) {
    gpu_->CountHostShape();
    return std::unique_ptr<FlashAttention>();
  }
  SP_RETURN_IF_ERROR(gpu_->Open());
  auto made = std::make_unique<FlashOnGpu>(shape, gpu_, health_);
  SP_RETURN_IF_ERROR(made->Allocate());
  return std::unique_ptr<FlashAttention>(std::move(made));
}

}  // namespace shardproof::cuda
