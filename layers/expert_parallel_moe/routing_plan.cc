#include "layers/expert_parallel_moe/routing_plan.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "collectives/chunks.h"

namespace shardproof {
namespace {

size_t Size(int64_t n) { return static_cast<size_t>(n); }

}  // namespace

int64_t RoutingSizes::AllTokens() const {
  return std::accumulate(tokens.begin(), tokens.end(), int64_t{0});
}

int64_t RoutingSizes::LocalExperts(int of_rank) const {
  return BalancedChunk(experts, ranks(), of_rank).count;
}

int64_t RoutingSizes::MostSent() const { return tokens[Size(rank)] * top_k; }

int64_t RoutingSizes::MostReceived() const {
  const int64_t local = LocalExperts(rank);
  const int64_t chosen = AllTokens() * std::min(top_k, local);
  if (capacities.empty()) return chosen;
  const int64_t kept =
      local * std::accumulate(capacities.begin(), capacities.end(), int64_t{0});
  return std::min(chosen, kept);
}

void KeepWithinCapacity(const RoutingSizes& sizes,
                        std::span<const int64_t> chosen,
                        std::span<int64_t> kept) {
  const bool own = sizes.capacities.size() > 1;
  for (int64_t e = 0; e < sizes.experts; ++e) {
    int64_t earlier = 0;
    for (int r = 0; r < sizes.ranks(); ++r) {
      const int64_t n = chosen[Size(r * sizes.experts + e)];
      int64_t& k = kept[Size(r * sizes.experts + e)];
      k = n;
      if (sizes.capacities.empty()) continue;
      const int64_t capacity = sizes.capacities[own ? Size(r) : 0];
      k = std::clamp<int64_t>(capacity - (own ? 0 : earlier), 0, n);
      earlier += n;
    }
  }
}

RoutingPlan::RoutingPlan(RoutingSizes sizes)
    : sizes_(std::move(sizes)),
      chosen_(Size(sizes_.ranks() * sizes_.experts)),
      kept_(chosen_.size()),
      load_(Size(sizes_.experts)),
      next_(Size(sizes_.experts)),
      sent_to_(Size(sizes_.ranks())),
      received_from_(Size(sizes_.ranks())),
      place_(Size(sizes_.MostSent())),
      token_(place_.size()),
      choice_(place_.size()),
      to_grouped_(Size(sizes_.MostReceived())),
      to_received_(to_grouped_.size()),
      begins_(Size(sizes_.LocalExperts(sizes_.rank) + 1)) {}

Status RoutingPlan::ReadCounts(const double* counts, int64_t stride) {
  std::fill(load_.begin(), load_.end(), 0);
  for (int r = 0; r < sizes_.ranks(); ++r) {
    const int64_t tokens = sizes_.tokens[Size(r)];
    int64_t all = 0;
    for (int64_t e = 0; e < sizes_.experts; ++e) {
      const double n = counts[r * stride + e];
      if (!(n >= 0 && n <= static_cast<double>(tokens))) {
        return Internal("rank {} with {} tokens chose expert {} {} times", r,
                        tokens, e, n);
      }
      const auto times = static_cast<int64_t>(n);
      chosen_[Size(r * sizes_.experts + e)] = times;
      load_[Size(e)] += times;
      all += times;
    }
    if (all != tokens * sizes_.top_k) {
      return Internal("rank {} with {} tokens made {} choices, not {} for each",
                      r, tokens, all, sizes_.top_k);
    }
  }
  return OkStatus();
}

Status RoutingPlan::Make(const double* counts, int64_t stride,
                         const int32_t* chosen) {
  SP_RETURN_IF_ERROR(ReadCounts(counts, stride));
  KeepWithinCapacity(sizes_, chosen_, kept_);
  const int ranks = sizes_.ranks();
  const int64_t experts = sizes_.experts;
  const auto kept = [&](int r, int64_t e) {
    return kept_[Size(r * experts + e)];
  };
  // What is sent: an expert's rows begin where those before it end.
  sent_ = 0;
  for (int r = 0; r < ranks; ++r) {
    const Chunk there = BalancedChunk(experts, ranks, r);
    sent_to_[Size(r)] = 0;
    for (int64_t e = there.begin; e < there.begin + there.count; ++e) {
      next_[Size(e)] = sent_;
      sent_ += kept(sizes_.rank, e);
      sent_to_[Size(r)] += kept(sizes_.rank, e);
    }
  }
  // The first choices of an expert are kept, in the order of tokens: next_ runs
  // from where its rows begin, and what does not fit is dropped.
  for (int64_t e = 0; e < experts; ++e) {
    chosen_[Size(sizes_.rank * experts + e)] =
        next_[Size(e)] + kept(sizes_.rank, e);  // The end of its rows.
  }
  for (int64_t i = 0; i < sizes_.MostSent(); ++i) {
    const auto e = Size(chosen[i]);
    int64_t& place = place_[Size(i)];
    place = -1;
    if (next_[e] == chosen_[Size(sizes_.rank * experts) + e]) continue;
    place = next_[e]++;
    token_[Size(place)] = i / sizes_.top_k;
    choice_[Size(place)] = i;
  }
  // What is received: for each own expert, its rows from every rank.
  const Chunk own = BalancedChunk(experts, ranks, sizes_.rank);
  std::fill(received_from_.begin(), received_from_.end(), 0);
  int64_t grouped = 0;
  for (int64_t i = 0; i < own.count; ++i) {
    begins_[Size(i)] = grouped;
    int64_t block = 0;  // Of rank r, where it begins among what is received.
    for (int r = 0; r < ranks; ++r) {
      for (int64_t j = 0; j < kept(r, own.begin + i); ++j, ++grouped) {
        const int64_t at = block + received_from_[Size(r)] + j;
        to_grouped_[Size(grouped)] = at;
        to_received_[Size(at)] = grouped;
      }
      received_from_[Size(r)] += kept(r, own.begin + i);
      for (int64_t j = 0; j < own.count; ++j) block += kept(r, own.begin + j);
    }
  }
  begins_.back() = grouped;
  return OkStatus();
}

}  // namespace shardproof
