// Which row of tokens goes where, once every rank knows how often every rank
// chose every expert: the bookkeeping of a mixture of experts, without data.
//
// Experts lie on ranks in contiguous parts, BalancedChunk(experts, ranks, r).
// Rows are in three orders,
//
//     sent      by (expert, token) of this rank's choices: blocks for the ranks
//     received  by (source rank, own expert, token): blocks from the ranks
//     grouped   by (own expert, source rank, token): blocks for the experts
//
// in which tokens keep their order. A choice beyond its expert's capacity is
// dropped: it has a place below 0 and is nowhere sent.
#ifndef SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_ROUTING_PLAN_H_
#define SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_ROUTING_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "reference/status.h"

namespace shardproof {

struct RoutingSizes {
  int rank = 0;
  std::vector<int64_t> tokens = {};  // Of each rank.
  int64_t experts = 0;
  int64_t top_k = 0;
  // Of each expert. None: nothing is dropped. One: for the tokens of all ranks
  // together, in their order. One for each rank: for its own tokens.
  std::vector<int64_t> capacities = {};

  int ranks() const { return static_cast<int>(tokens.size()); }
  int64_t AllTokens() const;
  int64_t LocalExperts(int of_rank) const;
  // The most rows that this rank can send, and be sent: every token has at most
  // min(top_k, local experts) choices here, and no expert keeps more than its
  // capacity.
  int64_t MostSent() const;
  int64_t MostReceived() const;
};

// kept[r * experts + e]: how many of the chosen[r * experts + e] times that the
// tokens of rank r chose expert e are within its capacity.
void KeepWithinCapacity(const RoutingSizes& sizes,
                        std::span<const int64_t> chosen,
                        std::span<int64_t> kept);

class RoutingPlan {
 public:
  RoutingPlan() = default;
  // All memory is asked for here.
  explicit RoutingPlan(RoutingSizes sizes);

  // counts[r * stride + e]: how often rank r chose expert e; chosen: this rank's
  // choices [tokens, k]. kInternal where counts are not those of a routing.
  Status Make(const double* counts, int64_t stride, const int32_t* chosen);

  // Rows that this rank sends to, and gets from, every rank.
  std::span<const int64_t> sent_to() const { return sent_to_; }
  std::span<const int64_t> received_from() const { return received_from_; }
  int64_t sent() const { return sent_; }
  int64_t received() const { return begins_.back(); }
  // The place of a choice among what is sent, or -1: [tokens, k].
  const int64_t* place() const { return place_.data(); }
  // Of each row that is sent: its token, and its choice (token * k + s).
  const int64_t* token_of_row() const { return token_.data(); }
  const int64_t* choice_of_row() const { return choice_.data(); }
  // grouped[i] = received[received_of_grouped()[i]], and the way back.
  const int64_t* received_of_grouped() const { return to_grouped_.data(); }
  const int64_t* grouped_of_received() const { return to_received_.data(); }
  // The grouped rows of own expert i are [expert_begins()[i], [i + 1]).
  std::span<const int64_t> expert_begins() const { return begins_; }
  // How often an expert was chosen, on all ranks, dropped or not.
  std::span<const int64_t> load() const { return load_; }

 private:
  Status ReadCounts(const double* counts, int64_t stride);

  RoutingSizes sizes_;
  std::vector<int64_t> chosen_, kept_;  // [ranks, experts]
  std::vector<int64_t> load_;           // [experts]
  std::vector<int64_t> next_;           // [experts], scratch
  std::vector<int64_t> sent_to_, received_from_;
  std::vector<int64_t> place_, token_, choice_;
  std::vector<int64_t> to_grouped_, to_received_;
  std::vector<int64_t> begins_;
  int64_t sent_ = 0;
};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_ROUTING_PLAN_H_
