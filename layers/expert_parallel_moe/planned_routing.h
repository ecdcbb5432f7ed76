// Routings that are known beforehand, and the noise that makes tokens take
// them: for tests, and for measuring with a load of one's choice.
//
// Noise of kStep between one choice and the next decides, where the products of
// tokens with the router stay below kStep / 2 in magnitude:
//
//     std::vector<int32_t> chosen = PlannedChoices(Load::kSpread, 64, 8, 2);
//     Tensor noise = NoiseFor(chosen, 64, 8, 2, DType::kF32);
#ifndef SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_PLANNED_ROUTING_H_
#define SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_PLANNED_ROUTING_H_

#include <cstdint>
#include <span>
#include <vector>

#include "reference/dtype.h"
#include "reference/tensor.h"

namespace shardproof {

enum class Load : uint8_t {
  kBalanced,   // Every expert in turn.
  kSpread,     // Unequal, and the last but one expert is never chosen.
  kOneExpert,  // The last expert is every token's first choice.
};

inline constexpr double kNoiseStep = 0.75;

// [tokens, k], different experts for each token. `k` of kSpread is at most
// experts - 1, unless there are no more than k experts.
std::vector<int32_t> PlannedChoices(Load load, int64_t tokens, int64_t experts,
                                    int64_t k);
// counts[r * experts + e]: how often the tokens of rank r choose e.
std::vector<int64_t> ChoicesPerRank(std::span<const int32_t> chosen,
                                    std::span<const int64_t> tokens,
                                    int64_t experts, int64_t k);
// [tokens, experts]: kNoiseStep (k - s) for the s-th choice, 0 elsewhere.
Tensor NoiseFor(std::span<const int32_t> chosen, int64_t tokens,
                int64_t experts, int64_t k, DType dtype);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_PLANNED_ROUTING_H_
