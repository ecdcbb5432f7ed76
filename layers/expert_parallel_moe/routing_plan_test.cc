// The bookkeeping against a plain walk over all tokens of all ranks.
#include "layers/expert_parallel_moe/routing_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "collectives/chunks.h"
#include "layers/expert_parallel_moe/planned_routing.h"

namespace shardproof {
namespace {

// One kept choice.
struct Row {
  int source, destination;
  int64_t expert, token, choice;  // Token and choice of the source.
};

// In the order of ranks, tokens and choices, as one device would see them.
std::vector<Row> Kept(const RoutingSizes& sizes,
                      const std::vector<int32_t>& chosen) {
  std::vector<Row> rows;
  std::vector<int64_t> held(static_cast<size_t>(sizes.experts));
  size_t next = 0;
  for (int r = 0; r < sizes.ranks(); ++r) {
    const bool own = sizes.capacities.size() > 1;
    if (own) std::fill(held.begin(), held.end(), 0);
    const int64_t choices = sizes.tokens[static_cast<size_t>(r)] * sizes.top_k;
    for (int64_t i = 0; i < choices; ++i) {
      const int64_t e = chosen[next++];
      if (!sizes.capacities.empty() &&
          held[static_cast<size_t>(e)]++ >=
              sizes.capacities[own ? static_cast<size_t>(r) : 0]) {
        continue;
      }
      int there = 0;
      while (e >=
             BalancedChunk(sizes.experts, sizes.ranks(), there).begin +
                 BalancedChunk(sizes.experts, sizes.ranks(), there).count) {
        ++there;
      }
      rows.push_back({r, there, e, i / sizes.top_k, i});
    }
  }
  return rows;
}

void CheckRank(RoutingSizes sizes, const std::vector<int32_t>& chosen) {
  const int64_t before =
      std::accumulate(sizes.tokens.begin(), sizes.tokens.begin() + sizes.rank,
                      int64_t{0}) *
      sizes.top_k;
  const std::vector<int64_t> counts =
      ChoicesPerRank(chosen, sizes.tokens, sizes.experts, sizes.top_k);
  // One number per expert and one that is something else.
  const int64_t stride = sizes.experts + 1;
  std::vector<double> gathered(static_cast<size_t>(stride * sizes.ranks()),
                               -1.0);
  for (size_t i = 0; i < counts.size(); ++i) {
    gathered[i / sizes.experts * stride + i % sizes.experts] =
        static_cast<double>(counts[i]);
  }
  RoutingPlan plan(sizes);
  ASSERT_TRUE(plan.Make(gathered.data(), stride, chosen.data() + before).ok());

  std::vector<Row> sent, received, grouped;
  std::vector<int64_t> sent_to(sizes.tokens.size()), from(sizes.tokens.size());
  for (const Row& row : Kept(sizes, chosen)) {
    if (row.source == sizes.rank) sent.push_back(row);
    if (row.destination == sizes.rank) received.push_back(row);
  }
  grouped = received;
  const auto by_expert = [](const Row& a, const Row& b) {
    return a.expert < b.expert;
  };
  std::stable_sort(sent.begin(), sent.end(), by_expert);
  std::stable_sort(grouped.begin(), grouped.end(), by_expert);
  std::stable_sort(
      received.begin(), received.end(), [](const Row& a, const Row& b) {
        return a.source != b.source ? a.source < b.source : a.expert < b.expert;
      });
  for (const Row& row : sent) ++sent_to[static_cast<size_t>(row.destination)];
  for (const Row& row : received) ++from[static_cast<size_t>(row.source)];
  EXPECT_TRUE(
      std::equal(sent_to.begin(), sent_to.end(), plan.sent_to().begin()));
  EXPECT_TRUE(
      std::equal(from.begin(), from.end(), plan.received_from().begin()));
  ASSERT_EQ(plan.sent(), static_cast<int64_t>(sent.size()));
  ASSERT_EQ(plan.received(), static_cast<int64_t>(received.size()));
  ASSERT_LE(plan.sent(), sizes.MostSent());
  ASSERT_LE(plan.received(), sizes.MostReceived());
  std::vector<int64_t> place(static_cast<size_t>(sizes.MostSent()), -1);
  for (size_t i = 0; i < sent.size(); ++i) {
    place[static_cast<size_t>(sent[i].choice)] = static_cast<int64_t>(i);
    EXPECT_EQ(plan.token_of_row()[i], sent[i].token);
    EXPECT_EQ(plan.choice_of_row()[i], sent[i].choice);
  }
  EXPECT_TRUE(std::equal(place.begin(), place.end(), plan.place()));
  for (size_t i = 0; i < grouped.size(); ++i) {
    const Row& there = received[plan.received_of_grouped()[i]];
    EXPECT_EQ(there.expert, grouped[i].expert);
    EXPECT_EQ(there.source, grouped[i].source);
    EXPECT_EQ(there.token, grouped[i].token);
    EXPECT_EQ(plan.grouped_of_received()[plan.received_of_grouped()[i]],
              static_cast<int64_t>(i));
  }
  const Chunk own = BalancedChunk(sizes.experts, sizes.ranks(), sizes.rank);
  for (int64_t i = 0; i < own.count; ++i) {
    EXPECT_EQ(plan.expert_begins()[i + 1] - plan.expert_begins()[i],
              std::count_if(grouped.begin(), grouped.end(), [&](const Row& r) {
                return r.expert == own.begin + i;
              }));
  }
  for (int64_t e = 0; e < sizes.experts; ++e) {
    EXPECT_EQ(plan.load()[e], std::count(chosen.begin(), chosen.end(), e));
  }
}

TEST(RoutingPlan, IsThatOfAWalkOverAllTokens) {
  const std::vector<std::vector<int64_t>> all_tokens = {
      {7}, {5, 0}, {3, 9, 1}, {0, 0, 4, 2, 8}};
  for (const auto& tokens : all_tokens) {
    const int64_t all =
        std::accumulate(tokens.begin(), tokens.end(), int64_t{0});
    for (const int64_t experts : {2, 3, 8}) {
      for (const int64_t k : {1, 2}) {
        for (const Load load : {Load::kSpread, Load::kOneExpert}) {
          std::vector<std::vector<int64_t>> capacities = {{}, {0}, {1}, {3}};
          std::vector<int64_t> own;
          for (const int64_t n : tokens) own.push_back((n + 1) / 2);
          capacities.push_back(own);
          for (const auto& capacity : capacities) {
            SCOPED_TRACE(fmt::format("[{}] tokens, {} of {}, capacity [{}]",
                                     fmt::join(tokens, ","), k, experts,
                                     fmt::join(capacity, ",")));
            const auto chosen = PlannedChoices(load, all, experts, k);
            for (int r = 0; r < static_cast<int>(tokens.size()); ++r) {
              CheckRank({.rank = r,
                         .tokens = tokens,
                         .experts = experts,
                         .top_k = k,
                         .capacities = capacity},
                        chosen);
            }
          }
        }
      }
    }
  }
}

TEST(RoutingPlan, RefusesCountsThatAreNoRouting) {
  const RoutingSizes sizes = {.tokens = {2, 1}, .experts = 2, .top_k = 1};
  const std::vector<int32_t> chosen = {0, 1};
  const std::vector<std::vector<double>> wrong = {
      {1, 1, 1, 1},   // Rank 1 chose twice.
      {1, 1, 0, 0},   // And here not at all.
      {3, -1, 1, 0},  // More often than it has tokens.
      {1, 1, 0.0 / 0.0, 1}};
  for (const auto& counts : wrong) {
    RoutingPlan plan(sizes);
    EXPECT_EQ(plan.Make(counts.data(), 2, chosen.data()).code(),
              StatusCode::kInternal);
  }
  const std::vector<double> right = {1, 1, 0, 1};
  EXPECT_TRUE(RoutingPlan(sizes).Make(right.data(), 2, chosen.data()).ok());
}

TEST(PlannedRouting, LoadsAreAsTheySay) {
  const auto count = [](const std::vector<int32_t>& chosen, int32_t e) {
    return std::count(chosen.begin(), chosen.end(), e);
  };
  const auto balanced = PlannedChoices(Load::kBalanced, 16, 8, 2);
  for (int32_t e = 0; e < 8; ++e) EXPECT_EQ(count(balanced, e), 4);
  const auto spread = PlannedChoices(Load::kSpread, 64, 8, 2);
  EXPECT_EQ(count(spread, 6), 0);
  EXPECT_GT(count(spread, 7), 0);
  EXPECT_GT(count(spread, 1), count(spread, 7));
  const auto one = PlannedChoices(Load::kOneExpert, 64, 8, 2);
  EXPECT_EQ(count(one, 7), 64);
  for (const auto* plan : {&balanced, &spread, &one}) {
    for (size_t i = 0; i < plan->size(); i += 2) {
      EXPECT_NE((*plan)[i], (*plan)[i + 1]);
    }
  }
}

}  // namespace
}  // namespace shardproof
