// For the tests: a problem of tile_problem.h computed by FlashKernelsOnGpu on an emulated GPU, with its tensors in memory
// of malloc, which that cannot address, or in the GPU's.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_GPU_PROBLEM_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_GPU_PROBLEM_H_

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "attention/kernels/cuda/device/flash_on_gpu.h"
#include "attention/kernels/cuda/kernel_table.h"
#include "attention/kernels/cuda/testing/tile_problem.h"
#include "collectives/backend/cuda/device/emulated_gpu.h"

namespace shardproof::cuda::testing {

enum class Where : uint8_t { kHost, kGpu };

struct GpuProblem : TileProblem {
  using TileProblem::TileProblem;

  // Poisoned results with room for so many elements after each row.
  void SetRoom(int64_t room) {
    for (const auto& [name, width] :
         {std::pair<const char*, int64_t>{"o", q_width},
          {"dq", q_width},
          {"dk", k_width},
          {"dv", k_width}}) {
      Tensor& tensor = t[name];
      tensor = Poisoned(tensor.dtype(), {tensor.shape()[0], width + room});
    }
  }

  // Runs f(the problem) with all tensors where the GPU addresses them, `off` bytes from where its allocator puts them.
  template <class F>
  Status With(Gpu& gpu, int64_t off, const F& f) {
    std::map<std::string, Buffer> buffers;
    for (auto& [name, tensor] : t) {
      const auto bytes = static_cast<size_t>(tensor.num_bytes());
      SP_ASSIGN_OR_RETURN(Buffer buffer,
                          gpu.Allocate(bytes + static_cast<size_t>(off)));
      std::memcpy(buffer.data() + off, tensor.raw(), bytes);
      at_[name] = buffer.data() + off;
      buffers[name] = std::move(buffer);
    }
    const Status status = f();
    for (auto& [name, tensor] : t) {
      std::memcpy(tensor.raw(), at_[name],
                  static_cast<size_t>(tensor.num_bytes()));
    }
    at_.clear();
    return status;
  }

  void* At(const char* name) {
    const auto at = at_.find(name);
    return at == at_.end() ? t.at(name).raw() : at->second;
  }
  ConstTokens From(const char* name) {
    return {At(name), t.at(name).shape()[1]};
  }
  Tokens To(const char* name) { return {At(name), t.at(name).shape()[1]}; }

  FlashAttention::ForwardArgs ForwardOnGpu() {
    return {.block = block(),
            .q = From("q"),
            .k = From("k"),
            .v = From("v"),
            .o = To("o"),
            .o_type = t.at("o").dtype(),
            .lse = {At("lse")}};
  }
  FlashAttention::BackwardArgs BackwardOnGpu(bool overwrite) {
    return {.block = block(),
            .q = From("q"),
            .k = From("k"),
            .v = From("v"),
            .d_o = From("do"),
            .lse = {At("lse")},
            .delta = {At("delta")},
            .dq = To("dq"),
            .dk = To("dk"),
            .dv = To("dv"),
            .overwrite = overwrite};
  }
  Status DeltaOfHost() {
    return AttentionDelta(Stream::Inline(), {.dtype = shape.dtype,
                                             .o_type = t.at("o").dtype(),
                                             .sequences = shape.sequences,
                                             .queries = queries.count,
                                             .heads = shape.heads,
                                             .head_dim = shape.head_dim,
                                             .d_o = From("do"),
                                             .o = From("o"),
                                             .delta = {At("delta")}});
  }
  Status RunOnGpu(FlashAttention& flash, const Stream& stream = {}) {
    SP_RETURN_IF_ERROR(flash.Forward(stream, ForwardOnGpu()));
    SP_RETURN_IF_ERROR(stream.Synchronize());
    SP_RETURN_IF_ERROR(DeltaOfHost());
    SP_RETURN_IF_ERROR(flash.Backward(stream, BackwardOnGpu(true)));
    return stream.Synchronize();
  }

 private:
  std::map<std::string, std::byte*> at_;
};

// An emulated GPU and its kernels of attention.
struct EmulatedFlash {
  explicit EmulatedFlash(
      const EmulatedGpuOptions& options = {},
      std::chrono::milliseconds timeout = std::chrono::minutes(10),
      std::chrono::milliseconds grace = std::chrono::seconds(5)) {
    auto opened = OpenEmulatedGpus(options);
    EXPECT_TRUE(opened.ok()) << opened.status().ToString();
    gpus = *std::move(opened);
    kernels = std::make_shared<FlashKernelsOnGpu>(
        FlashGpuOptions{.gpus = gpus,
                        .find = &FindFlashKernel,
                        .timeout = timeout,
                        .grace = grace});
  }
  Gpu& gpu() const { return gpus->gpu(0); }

  std::unique_ptr<FlashAttention> Create(const FlashShape& shape) const {
    auto made = kernels->Create(shape);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    return made.ok() ? *std::move(made) : nullptr;
  }

  std::shared_ptr<GpuSystem> gpus;
  std::shared_ptr<FlashKernelsOnGpu> kernels;
};

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_GPU_PROBLEM_H_
