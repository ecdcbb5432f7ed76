#include "layers/overlap/overlap_schedule.h"

namespace shardproof {
namespace {

using Flow = OverlapExchange::Flow;
using Kind = OverlapStep::Kind;

// Chunk c of the tokens of `rank`, among all tokens.
Chunk ChunkOf(const OverlapPlace& place, int rank, int c) {
  const Chunk tokens = BalancedChunk(place.tokens, place.ranks, rank);
  const Chunk chunk = BalancedChunk(tokens.count, place.chunks, c);
  return {tokens.begin + chunk.begin, chunk.count};
}

// Calls f(distance, chunk) in the order of the messages.
template <class F>
void ForEachMessage(const OverlapPlace& place, F f) {
  for (int k = 1; k < place.ranks; ++k) {
    for (int c = 0; c < place.chunks; ++c) f(k, c);
  }
}

OverlapProduct ProductOf(const Chunk& rows) {
  return {.from = rows.begin, .to = rows.begin, .count = rows.count};
}

std::vector<OverlapExchange> Gathers(const OverlapPlace& place) {
  std::vector<OverlapExchange> exchanges;
  ForEachMessage(place, [&](int k, int c) {
    const int from = (place.rank - k + place.ranks) % place.ranks;
    exchanges.push_back(
        {.flow = Flow::kGather,
         .distance = k,
         .out = BalancedChunk(place.own().count, place.chunks, c),
         .in = ChunkOf(place, from, c)});
  });
  return exchanges;
}

std::vector<OverlapExchange> Scatters(const OverlapPlace& place) {
  std::vector<OverlapExchange> exchanges;
  ForEachMessage(place, [&](int k, int c) {
    const int64_t own = place.own().count;
    const Chunk in = BalancedChunk(own, place.chunks, c);
    exchanges.push_back(
        {.flow = Flow::kScatter,
         .distance = k,
         .out = ChunkOf(place, (place.rank + k) % place.ranks, c),
         .in = {(k - 1) * own + in.begin, in.count}});
  });
  return exchanges;
}

// One product for the own tokens and one for each exchange.
std::vector<OverlapProduct> ScatteredProducts(
    const OverlapPlace& place, const std::vector<OverlapExchange>& scatters) {
  std::vector<OverlapProduct> products = {ProductOf(place.own())};
  for (const OverlapExchange& e : scatters) {
    products.push_back(ProductOf(e.out));
  }
  return products;
}

std::vector<int> AllRanks(int ranks) {
  std::vector<int> all;
  for (int r = 0; r < ranks; ++r) all.push_back(r);
  return all;
}

}  // namespace

OverlapSchedule GatherSchedule(const OverlapPlace& place, bool weights) {
  OverlapSchedule s;
  s.exchanges = Gathers(place);
  s.products = {ProductOf(place.own())};
  for (const OverlapExchange& e : s.exchanges) {
    s.products.push_back(ProductOf(e.in));
  }
  const int n = static_cast<int>(s.exchanges.size());
  for (int i = 0; i < n; ++i) {
    if (place.overlap) {
      s.steps.push_back({Kind::kStart, i});
      s.steps.push_back({Kind::kMultiply, i});
    } else {
      s.steps.push_back({Kind::kMultiply, i});
      s.steps.push_back({Kind::kStart, i});
    }
    s.steps.push_back({Kind::kWait, i});
  }
  s.steps.push_back({Kind::kMultiply, n});
  if (weights) s.steps.push_back({Kind::kWeights, 0});
  return s;
}

OverlapSchedule ScatterSchedule(const OverlapPlace& place) {
  OverlapSchedule s;
  s.exchanges = Scatters(place);
  s.products = ScatteredProducts(place, s.exchanges);
  s.summed = AllRanks(place.ranks);
  const int n = static_cast<int>(s.exchanges.size());
  for (int i = 0; i < n; ++i) {
    s.steps.push_back({Kind::kMultiply, i + 1});
    if (place.overlap && i > 0) s.steps.push_back({Kind::kWait, i - 1});
    s.steps.push_back({Kind::kStart, i});
    if (!place.overlap) s.steps.push_back({Kind::kWait, i});
  }
  s.steps.push_back({Kind::kMultiply, 0});
  if (place.overlap && n > 0) s.steps.push_back({Kind::kWait, n - 1});
  s.steps.push_back({Kind::kFold, 0});
  return s;
}

OverlapSchedule ScatterAndGatherSchedule(const OverlapPlace& place) {
  OverlapSchedule s;
  s.exchanges = Gathers(place);
  const std::vector<OverlapExchange> scatters = Scatters(place);
  s.exchanges.insert(s.exchanges.end(), scatters.begin(), scatters.end());
  s.products = ScatteredProducts(place, scatters);
  s.summed = AllRanks(place.ranks);
  const int n = static_cast<int>(scatters.size());
  for (int i = 0; i < n; ++i) {
    if (place.overlap) s.steps.push_back({Kind::kStart, i});
    s.steps.push_back({Kind::kMultiply, i + 1});
    if (!place.overlap) s.steps.push_back({Kind::kStart, i});
    s.steps.push_back({Kind::kWait, i});
    if (place.overlap && i > 0) s.steps.push_back({Kind::kWait, n + i - 1});
    s.steps.push_back({Kind::kStart, n + i});
    if (!place.overlap) s.steps.push_back({Kind::kWait, n + i});
  }
  s.steps.push_back({Kind::kMultiply, 0});
  s.steps.push_back({Kind::kWeights, 0});
  if (place.overlap && n > 0) s.steps.push_back({Kind::kWait, 2 * n - 1});
  s.steps.push_back({Kind::kFold, 0});
  return s;
}

}  // namespace shardproof
