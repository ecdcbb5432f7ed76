// Kernels of attention with bugs, to plant into any scheme. For cases; nothing
// else uses them.
#ifndef SHARDPROOF_ATTENTION_PAIRING_BROKEN_KERNELS_H_
#define SHARDPROOF_ATTENTION_PAIRING_BROKEN_KERNELS_H_

#include "attention/sharded/sharded_attention.h"

namespace shardproof {

// lse is a logarithm to base 2, which the merge takes for a natural one.
extern const AttentionKernels kLogOfBaseTwo;
// Weights exp(lse) / (exp(lse) + exp(lse_b)).
extern const AttentionKernels kMergeByExponentials;
// Partial results are rounded to bf16.
extern const AttentionKernels kNarrowPartials;
// lse is [queries, heads] instead of [heads, queries].
extern const AttentionKernels kLseTransposed;
// lse is 0 of a query that sees nothing in a block.
extern const AttentionKernels kFiniteLseOfNothing;
// lse is +inf of it.
extern const AttentionKernels kInfiniteLseOfNothing;
// The mask is off by one, either way, and so is the window.
extern const AttentionKernels kSeesTheNextToken;
extern const AttentionKernels kDoesNotSeeItself;
extern const AttentionKernels kWindowTooLong;
// Positions of keys begin with 0 in every block.
extern const AttentionKernels kPositionsRestart;
// Documents are not told apart.
extern const AttentionKernels kDocumentsRunTogether;
// What these make of a block, of which `visibility` is.
void SeeTheNextToken(FlashBlock& block, Visibility& visibility);
void NotSeeItself(FlashBlock& block, Visibility& visibility);
void LengthenTheWindow(FlashBlock& block, Visibility& visibility);
void RestartPositions(FlashBlock& block, Visibility& visibility);
void RunDocumentsTogether(FlashBlock& block, Visibility& visibility);

// Query head h has KV head h mod G.
extern const AttentionKernels kKvHeadsInterleaved;
// Groups are one query head longer than they are.
extern const AttentionKernels kKvRatioOfPaddedHeads;
// Blocks of K and V are taken for [kv_heads, tokens, head_dim].
extern const AttentionKernels kKeysTransposedTwice;
// The backward pass has the lse of the last block instead of that of all.
extern const AttentionKernels kLseOfTheLastBlock;
// The backward pass has the keys and values of its first block in all that have
// as many.
extern const AttentionKernels kKeysOfTheFirstBlock;
// dk and dv of a KV head that this rank does not hold first are 0: lost, where
// several ranks hold it.
extern const AttentionKernels kSharedGradientsLost;
// dk and dv are rounded to bf16 before they are added to others.
extern const AttentionKernels kNarrowGradients;
// delta is 0.
extern const AttentionKernels kWithoutDelta;
// No scale.
extern const AttentionKernels kUnscaled;

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_PAIRING_BROKEN_KERNELS_H_
