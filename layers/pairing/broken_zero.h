// Bugs to plant into Zero: collectives that do not do all that they should, and
// models that see what a broken Zero would show them. For the case of zero;
// nothing else uses them.
#ifndef SHARDPROOF_LAYERS_PAIRING_BROKEN_ZERO_H_
#define SHARDPROOF_LAYERS_PAIRING_BROKEN_ZERO_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/pairing/broken_collectives.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/zero/block_stack.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// The smallest block's gradients stay those of the rank.
inline Status ReduceAllButTheSmallest(const Communicator& comm,
                                      const ReduceScatterVArgs& args) {
  const Blocks blocks = Blocks::Listed(args.counts);
  return blocks.Total() > 3 ? ReduceScatterV(comm, args)
                            : kWithoutReduction.reduce_scatter(comm, args);
}

// After the step, the parts of the others are what they were.
inline Status KeepStale(const Communicator& comm, const AllGatherVArgs& args) {
  // The optimizer's own gather is of two numbers.
  if (args.dtype == DType::kF64 && args.counts[0] == 2) {
    return AllGatherV(comm, args);
  }
  return OkStatus();
}

// As much as two neighbouring parts both have: for a sum over ranks that do not
// hold the same part.
inline Status ReduceCommonPart(const Communicator& comm,
                               const AllReduceArgs& args) {
  AllReduceArgs common = args;
  common.count = (args.count - 1) | 1;
  return AllReduce(comm, common);
}

inline Status ReduceLate(const Communicator& comm,
                         const ReduceScatterVArgs& args) {
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return ReduceScatterV(comm, args);
}

class BrokenBlockStack : public BlockStack {
 public:
  // Of one operation.
  struct Passes {
    int64_t steps = 1;
    int micro_batches = 1;
  };
  BrokenBlockStack(std::vector<int64_t> widths, DType dtype,
                   const Passes& passes)
      : BlockStack(std::move(widths), dtype),
        sizes_(blocks()),
        dtype_(dtype),
        passes_(passes) {}

 protected:
  size_t Bytes(size_t layer) const {
    return static_cast<size_t>(sizes_[layer] * SizeOf(dtype_));
  }
  const std::vector<int64_t> sizes_;
  const DType dtype_;
  const Passes passes_;
};

// Gradients of a block are written where those of the block before still wait
// for their reduction.
class WritesTooEarly final : public BrokenBlockStack {
 public:
  using BrokenBlockStack::BrokenBlockStack;
  Status Backward(int micro, size_t layer, const void* parameters,
                  void* gradients, bool accumulate) override {
    SP_RETURN_IF_ERROR(
        BlockStack::Backward(micro, layer, parameters, gradients, accumulate));
    if (last_ != nullptr && last_ != gradients) {
      std::memcpy(last_, gradients, Bytes(layer));
    }
    last_ = layer == 0 ? nullptr : gradients;
    return OkStatus();
  }

 private:
  void* last_ = nullptr;
};

// The backward pass looks for parameters where the forward pass had them.
class KeepsForwardAddresses final : public BrokenBlockStack {
 public:
  using BrokenBlockStack::BrokenBlockStack;
  Status Forward(int micro, size_t layer, const void* parameters) override {
    seen_[layer] = parameters;
    return BlockStack::Forward(micro, layer, parameters);
  }
  Status Backward(int micro, size_t layer, const void* /*parameters*/,
                  void* gradients, bool accumulate) override {
    return BlockStack::Backward(micro, layer, seen_[layer], gradients,
                                accumulate);
  }

 private:
  std::vector<const void*> seen_ = std::vector<const void*>(sizes_.size());
};

// Each micro-batch's gradients take the place of those before.
class LosesAccumulated final : public BrokenBlockStack {
 public:
  using BrokenBlockStack::BrokenBlockStack;
  Status Backward(int micro, size_t layer, const void* parameters,
                  void* gradients, bool /*accumulate*/) override {
    SP_RETURN_IF_ERROR(
        BlockStack::Backward(micro, layer, parameters, gradients, false));
    if (micro + 1 < passes_.micro_batches) {
      std::memset(gradients, 0, Bytes(layer));
    }
    return OkStatus();
  }
};

// Computes with the parameters of the first step for good.
class KeepsFirstParameters final : public BrokenBlockStack {
 public:
  using BrokenBlockStack::BrokenBlockStack;
  Status Forward(int micro, size_t layer, const void* parameters) override {
    // An operation begins every p.steps steps.
    if (calls_ % (passes_.steps * passes_.micro_batches *
                  static_cast<int64_t>(sizes_.size())) <
        static_cast<int64_t>(sizes_.size())) {
      const auto* const bytes = static_cast<const std::byte*>(parameters);
      kept_[layer].assign(bytes, bytes + Bytes(layer));
    }
    ++calls_;
    return BlockStack::Forward(micro, layer, kept_[layer].data());
  }

 private:
  std::vector<std::vector<std::byte>> kept_ =
      std::vector<std::vector<std::byte>>(sizes_.size());
  int64_t calls_ = 0;
};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_PAIRING_BROKEN_ZERO_H_
