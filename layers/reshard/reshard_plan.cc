#include "layers/reshard/reshard_plan.h"

#include <algorithm>

namespace shardproof {
namespace {

// A shard of the saved stage that holds an interval, and where in its own rows
// (columns).
struct Holder {
  int rank = 0;
  int64_t begin = 0;
};

// Between two cuts.
struct HeldInterval {
  int64_t begin = 0;
  int64_t end = 0;
  std::vector<Holder> holders;
};

// Every interval that any rank of a saved stage holds, ascending. Stages are cut
// alike.
std::vector<HeldInterval> HeldIntervals(const ReshardConfig& config,
                                        ShardParts parts) {
  std::vector<std::vector<Piece>> pieces;
  std::vector<int64_t> cuts;
  for (int r = 0; r < config.from.tensor; ++r) {
    pieces.push_back(parts(config.parameter, config.from, r).pieces);
    for (const Piece& piece : pieces.back()) {
      if (piece.begin == kPadding || piece.count == 0) continue;
      cuts.push_back(piece.begin);
      cuts.push_back(piece.begin + piece.count);
    }
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<HeldInterval> intervals;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    intervals.push_back({cuts[i], cuts[i + 1], {}});
  }
  const auto at = [&](int64_t begin) {
    return std::lower_bound(cuts.begin(), cuts.end(), begin) - cuts.begin();
  };
  for (int r = 0; r < config.from.tensor; ++r) {
    int64_t local = 0;
    for (const Piece& piece : pieces[static_cast<size_t>(r)]) {
      if (piece.begin != kPadding && piece.count > 0) {
        const int64_t end = piece.begin + piece.count;
        for (auto i = static_cast<size_t>(at(piece.begin));
             i < intervals.size() && intervals[i].begin < end; ++i) {
          intervals[i].holders.push_back(
              {r, local + intervals[i].begin - piece.begin});
        }
      }
      local += piece.count;
    }
  }
  return intervals;
}

class Planner {
 public:
  Planner(const ReshardConfig& config, std::span<const int> owners, int ranks,
          const ReshardRules& rules)
      : config_(config),
        owners_(owners),
        ranks_(ranks),
        rules_(rules),
        intervals_(HeldIntervals(config, rules.from)) {
    for (int n = 0; n < config.from.shards(); ++n) {
      saved_.push_back(rules.from(config.parameter, config.from, n));
      saved_extents_.push_back(saved_.back().extent());
    }
  }

  StatusOr<ReshardPlan> Plan() {
    plan_.counts.assign(static_cast<size_t>(ranks_) * ranks_, 0);
    for (int n = 0; n < config_.to.shards(); ++n) {
      SP_RETURN_IF_ERROR(Fill(n));
    }
    for (const ReshardMove& move : plan_.moves) {
      if (move.from_shard < 0) continue;
      const int from = owners_[static_cast<size_t>(move.from_shard)];
      if (from == move.to_shard) continue;
      plan_.counts[static_cast<size_t>(from * ranks_ + move.to_shard)] +=
          move.elements();
    }
    return std::move(plan_);
  }

 private:
  // The strides of a shard with `extent` rows (columns), from its `index`-th in
  // layer `layer`.
  StridedRuns RunsOf(int64_t extent, int64_t layer, int64_t index) const {
    const ReshardedParameter& p = config_.parameter;
    if (p.cuts_columns()) {
      return {layer * p.rows * extent + index, p.rows * extent, extent};
    }
    return {(layer * extent + index) * p.columns, extent * p.columns, 0};
  }

  // Appends a move of `count` rows (columns); joins it to the last one where it
  // goes on.
  void Append(ReshardMove move, int64_t count) {
    const ReshardedParameter& p = config_.parameter;
    move.rows = p.cuts_columns() ? p.rows : 1;
    move.length = count * (p.cuts_columns() ? 1 : p.columns);
    if (move.elements() == 0) return;
    if (!plan_.moves.empty()) {
      ReshardMove& last = plan_.moves.back();
      if (last.from_shard == move.from_shard &&
          last.to_shard == move.to_shard && last.layers == move.layers &&
          last.to.begin + last.length == move.to.begin &&
          (move.from_shard < 0 ||
           last.from.begin + last.length == move.from.begin)) {
        last.length += move.length;
        return;
      }
    }
    plan_.moves.push_back(move);
  }

  // All of new shard `n`.
  Status Fill(int n) {
    const ShardPart part = rules_.to(config_.parameter, config_.to, n);
    const int64_t extent = part.extent();
    if (part.layers.count == 0) return OkStatus();
    int64_t zeros_at = 0;
    for (const Piece& piece : part.pieces) {
      if (piece.begin == kPadding) {
        Append({.to_shard = n,
                .layers = part.layers.count,
                .from = {},
                .to = RunsOf(extent, 0, zeros_at)},
               piece.count);
      }
      zeros_at += piece.count;
    }
    int64_t filled = 0;
    for (int stage = 0; stage < config_.from.pipeline; ++stage) {
      const Chunk saved =
          saved_[static_cast<size_t>(stage * config_.from.tensor)].layers;
      const int64_t begin = std::max(saved.begin, part.layers.begin);
      const int64_t end = std::min(saved.begin + saved.count,
                                   part.layers.begin + part.layers.count);
      if (begin >= end) continue;
      filled += end - begin;
      SP_RETURN_IF_ERROR(FillLayers(n, part, stage, {begin, end - begin}));
    }
    if (filled == part.layers.count) return OkStatus();
    return Internal("no saved stage holds some of the layers of {}",
                    ShardName(config_.to, n));
  }

  // Layers [layers.begin, + layers.count) of new shard `n`, from saved stage
  // `stage`.
  Status FillLayers(int n, const ShardPart& part, int stage,
                    const Chunk& layers) {
    const int64_t extent = part.extent();
    int64_t local = 0;
    for (const Piece& piece : part.pieces) {
      if (piece.begin == kPadding || piece.count == 0) {
        local += piece.count;
        continue;
      }
      const int64_t end = piece.begin + piece.count;
      int64_t at = piece.begin;
      auto held = std::upper_bound(
          intervals_.begin(), intervals_.end(), at,
          [](int64_t x, const HeldInterval& i) { return x < i.end; });
      for (; at < end; ++held) {
        if (held == intervals_.end() || held->begin > at ||
            held->holders.empty()) {
          return Internal("no saved shard holds row {} of {}", at,
                          ShardName(config_.to, n));
        }
        const int64_t count = std::min(end, held->end) - at;
        const Holder& holder = Choose(*held, stage, n);
        const int shard = stage * config_.from.tensor + holder.rank;
        const int64_t first =
            layers.begin - saved_[static_cast<size_t>(shard)].layers.begin;
        Append({.from_shard = shard,
                .to_shard = n,
                .layers = layers.count,
                .from = RunsOf(saved_extents_[static_cast<size_t>(shard)],
                               first, holder.begin + at - held->begin),
                .to = RunsOf(extent, layers.begin - part.layers.begin, local)},
               count);
        local += count;
        at += count;
      }
    }
    return OkStatus();
  }

  const Holder& Choose(const HeldInterval& held, int stage, int n) const {
    for (const Holder& holder : held.holders) {
      const int shard = stage * config_.from.tensor + holder.rank;
      if (owners_[static_cast<size_t>(shard)] == n) return holder;
    }
    return held.holders[static_cast<size_t>(n) % held.holders.size()];
  }

  const ReshardConfig& config_;
  const std::span<const int> owners_;
  const int ranks_;
  const ReshardRules& rules_;
  const std::vector<HeldInterval> intervals_;
  std::vector<ShardPart> saved_;
  std::vector<int64_t> saved_extents_;
  ReshardPlan plan_;
};

}  // namespace

StatusOr<ReshardPlan> PlanReshard(const ReshardConfig& config,
                                  std::span<const int> owners, int ranks,
                                  const ReshardRules& rules) {
  SP_RETURN_IF_ERROR(CheckLayout(config.parameter, config.from)
                         .WithContext("the saved layout"));
  SP_RETURN_IF_ERROR(
      CheckLayout(config.parameter, config.to).WithContext("the new layout"));
  if (config.to.shards() > ranks) {
    return InvalidArgument("the new layout has {} shards for {} ranks",
                           config.to.shards(), ranks);
  }
  if (std::ssize(owners) != config.from.shards()) {
    return InvalidArgument("{} owners for {} saved shards", owners.size(),
                           config.from.shards());
  }
  for (size_t n = 0; n < owners.size(); ++n) {
    if (owners[n] < 0 || owners[n] >= ranks) {
      return InvalidArgument("{} is on rank {}, and there are {}",
                             ShardName(config.from, static_cast<int>(n)),
                             owners[n], ranks);
    }
  }
  return Planner(config, owners, ranks, rules).Plan();
}

Cost ReshardCost(const ReshardPlan& plan, int ranks, DType dtype,
                 const CollectiveFamily& collectives) {
  // The workspaces are such as every peer can address.
  return collectives.all_to_all_cost(ranks, plan.counts, dtype,
                                     Memory::kShared);
}

}  // namespace shardproof
