#include "layers/expert_parallel_moe/planned_routing.h"

#include <algorithm>

#include "reference/random.h"

namespace shardproof {
namespace {

constexpr StreamKey kKey = {.seed = 1, .tensor = TensorId("routing")};

// Small numbers are likelier, since every other token takes the lesser of two.
int64_t Unequal(int64_t token, int64_t below) {
  const uint64_t bits = RandomBits(kKey, static_cast<uint64_t>(token));
  const auto one = static_cast<int64_t>((bits & 0xffffffffu) % below);
  const auto other = static_cast<int64_t>((bits >> 32) % below);
  return token % 2 == 0 ? std::min(one, other) : one;
}

int64_t Choice(Load load, int64_t token, int64_t s, int64_t experts,
               int64_t k) {
  switch (load) {
    case Load::kBalanced:
      return (token * k + s) % experts;
    case Load::kSpread: {
      if (experts <= k) return (Unequal(token, experts) + s) % experts;
      const int64_t e = (Unequal(token, experts - 1) + s) % (experts - 1);
      return e == experts - 2 ? experts - 1 : e;
    }
    case Load::kOneExpert:
      if (s == 0) return experts - 1;
      return (Unequal(token, experts - 1) + s) % (experts - 1);
  }
  return 0;
}

}  // namespace

std::vector<int32_t> PlannedChoices(Load load, int64_t tokens, int64_t experts,
                                    int64_t k) {
  std::vector<int32_t> chosen;
  for (int64_t i = 0; i < tokens * k; ++i) {
    chosen.push_back(
        static_cast<int32_t>(Choice(load, i / k, i % k, experts, k)));
  }
  return chosen;
}

std::vector<int64_t> ChoicesPerRank(std::span<const int32_t> chosen,
                                    std::span<const int64_t> tokens,
                                    int64_t experts, int64_t k) {
  std::vector<int64_t> counts(tokens.size() * static_cast<size_t>(experts));
  size_t i = 0;
  for (size_t r = 0; r < tokens.size(); ++r) {
    for (int64_t n = 0; n < tokens[r] * k; ++n, ++i) {
      ++counts[r * static_cast<size_t>(experts) +
               static_cast<size_t>(chosen[i])];
    }
  }
  return counts;
}

Tensor NoiseFor(std::span<const int32_t> chosen, int64_t tokens,
                int64_t experts, int64_t k, DType dtype) {
  std::vector<double> noise(static_cast<size_t>(tokens * experts));
  for (int64_t i = 0; i < tokens * k; ++i) {
    noise[static_cast<size_t>(i / k * experts + chosen[i])] =
        kNoiseStep * static_cast<double>(k - i % k);
  }
  Tensor tensor(dtype, {tokens, experts});
  FromDouble(dtype, noise.data(), tensor.num_elements(), tensor.raw());
  return tensor;
}

}  // namespace shardproof
