// Cores of attention with bugs, to plant into layers that have one. For cases;
// nothing else uses them.
#ifndef SHARDPROOF_LAYERS_PAIRING_BROKEN_ATTENTION_H_
#define SHARDPROOF_LAYERS_PAIRING_BROKEN_ATTENTION_H_

#include <memory>

#include "layers/kernels/attention_core.h"
#include "reference/status.h"

namespace shardproof {

// The causal mask is off by one, either way.
StatusOr<std::unique_ptr<AttentionCore>> SeesTheNextToken(
    const AttentionShape& shape);
StatusOr<std::unique_ptr<AttentionCore>> DoesNotSeeItself(
    const AttentionShape& shape);
// All sequences are taken for one.
StatusOr<std::unique_ptr<AttentionCore>> RunsSequencesTogether(
    const AttentionShape& shape);
// Query head h takes KV head h mod G instead of h / (H / G): repeat in the place
// of repeat_interleave.
StatusOr<std::unique_ptr<AttentionCore>> InterleavesKvHeads(
    const AttentionShape& shape);
// Gradients of queries and keys are not turned back: they leave the core turned
// by the angles (of theta 10000) that the layer then takes away.
StatusOr<std::unique_ptr<AttentionCore>> LeavesGradientsTurned(
    const AttentionShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_PAIRING_BROKEN_ATTENTION_H_
