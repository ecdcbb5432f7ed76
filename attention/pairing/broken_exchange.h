// An exchange of heads for tokens (sharded/head_exchange.h) with bugs, to plant
// into schemes that have one. For cases; nothing else uses it.
#ifndef SHARDPROOF_ATTENTION_PAIRING_BROKEN_EXCHANGE_H_
#define SHARDPROOF_ATTENTION_PAIRING_BROKEN_EXCHANGE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "attention/pairing/attention_case.h"
#include "layers/pairing/layer_case.h"

namespace shardproof {

// A scheme over groups of neighbours, which exchange heads for tokens.
struct ExchangingScheme {
  AttentionBind bind;
  LayerBind<AttentionPoint> over;  // Another all_to_all.
  // Ranks of a group; 1 where there is none.
  std::function<int64_t(const AttentionPoint&)> group;
  // Of all ranks.
  AttentionRunsOf runs;
};

// In one of the four all_to_all of both passes, inputs, outputs and the gradients
// of each, what comes from the first two ranks of a group changes places; a KV
// head's gradient is that of its first holder; partial gradients are rounded.
std::vector<Mutant<AttentionPoint>> ExchangeMutants(
    const ExchangingScheme& scheme);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_PAIRING_BROKEN_EXCHANGE_H_
