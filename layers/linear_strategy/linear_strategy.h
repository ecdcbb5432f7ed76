// A linear layer between tensors that are both cut by feature: gather the inputs
// or scatter the outputs, whichever sends less.
//
// Contract, for rank r of t, i_r and o_r its BalancedChunk of the inputs and
// outputs, x_r = x[:, i_r]:
//
//                forward                             backward
//     gather     X = all_gather x_r                  dw_r = dy_r^T X    [o_r, in]
//                y_r = X w[o_r]^T + b[o_r]           dx_r = reduce_scatter of
//                                                           dy_r w[o_r]
//     scatter    y_r = reduce_scatter of             DY = all_gather dy_r
//                      x_r w[:, i_r]^T, + b[o_r]     dw_r = DY^T x_r    [out, i_r]
//                                                    dx_r = DY w[:, i_r]
//
// and db_r = sum over tokens of dy_r either way. A rank holds the rows w[o_r] to
// gather, the columns w[:, i_r] to scatter.
//
// What is sent, forward: gather rho tokens in e bytes per rank, scatter rho tokens
// out e, rho = (t - 1)/t; backward the same again. So to gather is right where
// the inputs are SHORTER than the outputs, and to scatter where they are longer.
// With beta seconds per byte sent and gamma per byte added up, the times are
//
//     forward          beta in                against   (beta + gamma) out
//     both passes      (2 beta + gamma) in    against   (2 beta + gamma) out
//
// which cross at in = (1 + gamma/beta) out for inference, and at in = out for
// training. (X is kept from forward to backward; gathered again, as sequence
// parallelism does, gather would cost beta in more.)
//
//     const LinearStrategy s = ChooseLinearStrategy(in, out, {});
//     SP_ASSIGN_OR_RETURN(StrategyLinear layer,
//         StrategyLinear::Create(comm, {.tokens = 512, .in = 4096,
//                                       .out = 14336, .strategy = s}));
//
// Sources: the two strategies are column- and row-parallel products (Shoeybi et
// al., arXiv:1909.08053, section 3) with ends that are both cut; the cost model
// is that of Thakur, Rabenseifner and Gropp, IJHPCA 19(1), 2005.
#ifndef SHARDPROOF_LAYERS_LINEAR_STRATEGY_LINEAR_STRATEGY_H_
#define SHARDPROOF_LAYERS_LINEAR_STRATEGY_LINEAR_STRATEGY_H_

#include <cstdint>
#include <utility>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/tensor_parallel/feature_split.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

enum class LinearStrategy : uint8_t { kGather, kScatter };

// Seconds, in any unit: only their ratio counts.
struct LinearRates {
  double beta = 1;   // For a byte sent; more than 0.
  double gamma = 0;  // For a byte added to another.
  bool training = true;
};

// How many times as many inputs as outputs make both take equally long.
double LinearCrossover(const LinearRates& rates);
// Gather up to the crossover, scatter beyond. Without outputs and inputs,
// gather.
LinearStrategy ChooseLinearStrategy(int64_t in, int64_t out,
                                    const LinearRates& rates);

// Sizes of the whole layer, equal on all ranks. Parts may be empty.
struct StrategyLinearConfig {
  int64_t tokens = 0;
  int64_t in = 0;
  int64_t out = 0;
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  bool bias = false;
  LinearStrategy strategy = LinearStrategy::kGather;
};

class StrategyLinear {
 public:
  // This rank's parts, row-major. Empty parts may be null; so may the bias in a
  // layer without. Nothing may overlap.
  struct ForwardArgs {
    const void* x = nullptr;  // [tokens, i_r]
    const void* w = nullptr;  // [o_r, in], or [out, i_r]
    const void* b = nullptr;  // [o_r]
    void* y = nullptr;        // [tokens, o_r]
  };
  struct BackwardArgs {
    const void* x = nullptr;
    const void* w = nullptr;
    const void* dy = nullptr;  // [tokens, o_r]
    void* dx = nullptr;        // [tokens, i_r]
    void* dw = nullptr;        // as w
    void* db = nullptr;        // [o_r]
  };

  // Collective; the same error on every rank: kInvalidArgument for a negative
  // size or where ranks differ, kUnsupported for the type, kOutOfMemory. Asks
  // for two workspaces of tokens x in (gather) or tokens x out, on one rank for
  // one.
  static StatusOr<StrategyLinear> Create(
      const Communicator& comm, const StrategyLinearConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Collective. Errors are those of the transport.
  Status Forward(const ForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  // Of the last Forward, once: the gathered x is used up. kInvalidArgument for
  // another, with either strategy.
  Status Backward(const BackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  // |i_r| and |o_r|.
  int64_t local_in() const { return local_in_; }
  int64_t local_out() const { return local_out_; }

 private:
  StrategyLinear() = default;
  Status RunForward(const ForwardArgs& args, const Stream& stream) const;
  bool gathers() const { return config_.strategy == LinearStrategy::kGather; }

  StrategyLinearConfig config_;
  int64_t local_in_ = 0, local_out_ = 0;
  FeatureSplit split_;  // Of the inputs (gather) or the outputs.
  Buffer whole_;        // X, DY, or this rank's term of either's gradient.
  // There is what a Backward needs, as in whole_.
  mutable bool forward_done_ = false;
};

// What one pass sends. The family must have costs.
Cost StrategyLinearForwardCost(int ranks, const StrategyLinearConfig& config,
                               const CollectiveFamily& collectives);
Cost StrategyLinearBackwardCost(int ranks, const StrategyLinearConfig& config,
                                const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_LINEAR_STRATEGY_LINEAR_STRATEGY_H_
