// A mixture of experts, expert-parallel: every rank has tokens of its own and
// some of the experts; rows of tokens travel to the experts that they choose,
// and back.
//
// Contract, for rank r of t with T_r tokens x_r [T_r, hidden], T = sum T_r, E
// experts of which E_r = BalancedChunk(E, t, r) lie here, and k choices:
//
//     z = x router^T + noise      p = softmax(z), in f32 (f64 for f64)
//     c_is = the k experts of largest z_i, of equal ones the lower index first
//     w_is = p_i[c_is]            renormalised: over the sum of the k of them
//     y_i  = sum over kept (i, s) of w_is ffn_c(x_i)  + ffn_shared(x_i)
//
//     auxiliary = a E sum_e n_e / (k T) sum_i p_ie / T,  n_e chosen how often
//     z_loss    = b sum_i lse(z_i)^2 / T
//
// The sums of both losses are over ALL tokens of ALL ranks; n_e counts dropped
// choices too, and is a constant in the gradient. Every rank has the same bits
// of both, and of the gradients of the router and the shared expert, which are
// sums over all tokens too; gradients of experts are those of all tokens that
// chose them, and need no sum over ranks.
//
// Capacity: with a factor c > 0, an expert keeps its first C = ceil(c T k / E)
// choices in the order of tokens, those of rank 0 first, as one device would;
// with CapacityScope::kPerRank its first ceil(c T_r k / E) of each rank r, as
// Megatron-LM counts, which depends on how tokens are spread. What is dropped
// adds 0 to y_i and weights are not renormalised after it.
//
// What is sent, on R rows in all that are kept and whose expert lies on another
// rank (on balanced routing k T (t - 1) / t):
//
//     forward    all_gather of 2 E + 1 doubles: how often each expert is chosen,
//                the sums of p and of lse^2. all_to_all of R hidden there and
//                of R hidden back
//     backward   all_to_all of w dy, R hidden, there, and of dx, R hidden, back;
//                all_reduce of the router's gradient, and of the shared
//                expert's three (two with GELU)
//
//     SP_ASSIGN_OR_RETURN(ExpertParallelMoe moe, ExpertParallelMoe::Create(
//         comm, {.tokens = {512, 512}, .hidden = 4096, .intermediate = 14336,
//                .experts = 8, .top_k = 2, .renormalise = true,
//                .auxiliary_coefficient = 0.01, .dtype = DType::kBF16}));
//     SP_RETURN_IF_ERROR(moe.Forward({.x = x, .weights = w, .y = y, ...}));
//     SP_RETURN_IF_ERROR(moe.Backward({.x = x, .weights = w, .dy = dy, ...}));
//
// Sources: Shazeer et al., arXiv:1701.06538; Lepikhin et al., GShard,
// arXiv:2006.16668, section 2.2; Fedus et al., Switch Transformer,
// arXiv:2101.03961, section 2.2 (n_e here over k T, so that a balanced load
// gives `a` for every k); Zoph et al., ST-MoE, arXiv:2202.08906, section 2.1;
// DeepSeek-AI, arXiv:2401.06066, section 3.2 (shared experts).
#ifndef SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_EXPERT_PARALLEL_MOE_H_
#define SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_EXPERT_PARALLEL_MOE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/expert_parallel_moe/expert_ffn.h"
#include "layers/expert_parallel_moe/routing_plan.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/dtype.h"
#include "reference/moe.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

enum class CapacityScope : uint8_t { kAllTokens, kPerRank };

// Equal on all ranks. Experts need not be divisible by the ranks, and there may
// be fewer: a rank then has none, and only its tokens take part.
struct ExpertParallelMoeConfig {
  std::vector<int64_t> tokens = {};  // Of each rank; any may be 0.
  int64_t hidden = 0;
  int64_t intermediate = 0;  // Width of one expert.
  int64_t experts = 0;
  int64_t top_k = 1;
  bool renormalise = false;
  double capacity_factor = 0;  // 0: dropless.
  CapacityScope capacity_scope = CapacityScope::kAllTokens;
  double auxiliary_coefficient = 0;
  double z_coefficient = 0;
  // Width of the shared experts, taken as one that every token passes through
  // where it lies; its weights are replicated. 0: none.
  int64_t shared_intermediate = 0;
  Activation activation = Activation::kSwiGlu;
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.

  // The type of the router: f32, or f64 for f64.
  DType lane() const { return Accumulator(dtype); }
};

// Of the router's type: router [experts, hidden]. Of the layer's type: those of
// the rank's experts, stacked, and of the shared expert, a stack of one.
template <class Void>
struct MoeParts {
  Void* router = nullptr;
  FfnParts<Void> experts = {};
  FfnParts<Void> shared = {};
};
using MoeWeights = MoeParts<const void>;
using MoeGradients = MoeParts<void>;

class ExpertParallelMoe {
 public:
  // Row-major, of this rank's tokens. Empty parts may be null. "lane" is the
  // router's type.
  struct ForwardArgs {
    const void* x = nullptr;  // [tokens, hidden]
    MoeWeights weights = {};
    // Added to the logits, [tokens, experts] lane, or none: noise of noisy
    // top-k gating, a mask, or a routing to be replayed.
    const void* noise = nullptr;
    void* y = nullptr;                // [tokens, hidden]
    int32_t* chosen = nullptr;        // [tokens, top_k], the likeliest first
    void* combine_weights = nullptr;  // [tokens, top_k] lane
    void* losses = nullptr;           // [2] lane: auxiliary, z
  };
  struct BackwardArgs {
    const void* x = nullptr;
    MoeWeights weights = {};
    const int32_t* chosen = nullptr;  // As Forward gave them.
    const void* combine_weights = nullptr;
    const void* dy = nullptr;
    const void* d_losses = nullptr;  // [2] lane, the same on all ranks
    void* dx = nullptr;              // [tokens, hidden]
    MoeGradients gradients = {};
    void* d_combine_weights = nullptr;  // [tokens, top_k] lane; dropped: 0
  };

  // Collective; the same error on every rank: kInvalidArgument for sizes that
  // make no sense or where ranks differ, kUnsupported for the type,
  // kOutOfMemory. All memory that the layer ever asks for is asked for here, for
  // the worst routing. With S = T_r k rows sent and M received, at most the
  // smaller of T min(k, E_r) and E_r C (kPerRank: E_r times all ranks'
  // capacities):
  //
  //     layer's type   (2 S + 3 M) hidden, 4 M intermediate (GELU: 3), 4 T_r
  //                    shared_intermediate (GELU: 3)
  //     lane           T_r (hidden + 2 experts + 1) + S + experts
  //     8 bytes        (t + 1)(2 E + 1) + 3 S + 2 M, and smaller ones
  static StatusOr<ExpertParallelMoe> Create(
      const Communicator& comm, const ExpertParallelMoeConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Collective. Keeps what Backward needs, but for what that is given again.
  // Errors are those of the transport; kInternal where what ranks say of their
  // choices makes no routing. The layer must outlive what is queued on `stream`.
  Status Forward(const ForwardArgs& args,
                 const Stream& stream = Stream::Inline());
  // Collective. The gradients of the last Forward, whose activations it uses
  // up: once for each Forward.
  Status Backward(const BackwardArgs& args,
                  const Stream& stream = Stream::Inline());

  int64_t local_tokens() const { return tokens_; }
  int64_t local_experts() const { return local_experts_; }

 private:
  ExpertParallelMoe(const Communicator& comm,
                    const ExpertParallelMoeConfig& config,
                    const CollectiveFamily& collectives);
  Status Allocate();
  Status RunForward(const ForwardArgs& args);
  Status RunBackward(const BackwardArgs& args);
  // Logits, choices and weights of this rank's tokens; then what all ranks
  // chose, and the losses.
  Status Route(const ForwardArgs& args);
  Status Agree(const ForwardArgs& args);
  // x in the router's type.
  const void* Widened(const void* x);
  // The rows in sent_ to the experts, into grouped rows; and grouped rows back
  // into `returned`, in the order of what was sent.
  Status Dispatch(void* grouped);
  Status Collect(const void* grouped, void* returned);
  Status RouterGradient(const BackwardArgs& args);
  Status SumOverRanks(void* data, int64_t count, DType dtype) const;

  Communicator comm_;
  ExpertParallelMoeConfig config_;
  CollectiveFamily collectives_;
  int64_t tokens_, all_tokens_, local_experts_;
  RoutingPlan plan_;
  ExpertFfn experts_, shared_;
  Tensor wide_;  // x, then the router's dx; [tokens, hidden] lane
  Tensor logits_, probabilities_, lse_;
  Tensor d_probability_;  // [experts] lane
  Tensor row_weights_;    // [rows sent] lane
  Tensor grouped_;        // x of the rows of own experts, kept for Backward
  // Peers read and write these: rows that are sent, that came back, that came
  // here and that go back from here.
  Buffer sent_, returned_, received_, outgoing_;
  Buffer sums_;  // Of this rank, then of every rank.
  std::vector<int64_t> sums_counts_;
  std::vector<int64_t> sent_counts_, received_counts_;  // Elements.
};

// What one pass sends, for chosen[r * experts + e], how often the tokens of rank
// r choose expert e. The family must have costs.
Cost ExpertParallelMoeForwardCost(const ExpertParallelMoeConfig& config,
                                  std::span<const int64_t> chosen,
                                  const CollectiveFamily& collectives);
Cost ExpertParallelMoeBackwardCost(const ExpertParallelMoeConfig& config,
                                   std::span<const int64_t> chosen,
                                   const CollectiveFamily& collectives);
// The capacity of an expert: none without a factor, one for all tokens, or one
// for each rank's.
std::vector<int64_t> ExpertCapacities(const ExpertParallelMoeConfig& config);
// How it rounds where sums over ranks round as `summed` says.
MoeArithmetic ExpertParallelMoeArithmetic(const ExpertParallelMoeConfig& config,
                                          const Arithmetic& summed);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_EXPERT_PARALLEL_MOE_H_
