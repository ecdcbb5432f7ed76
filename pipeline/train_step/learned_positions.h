// Learned positions, added to the embedding of this rank's tokens.
//
// Contract: with p(i) the position of the i-th of these tokens,
//
//     AddPositions        y[i, :] += table[p(i), :]
//     PositionGradients   d_table[p, :] = sum of dy[i, :] over i with p(i) = p
//
// Sums run in the order of the tokens. Tokens of a rank are whole sequences that
// follow each other, or, sequence-parallel, a range of them, which may begin and
// end within a sequence.
//
//     AddPositions({.dtype = kF32, .hidden = 768, .sequence = positions,
//                   .tokens = {0, 2 * 64}}, table, y);
//
// Errors are those of AddBias. Source: Radford et al., "Language Models are
// Unsupervised Multitask Learners", 2019.
#ifndef SHARDPROOF_PIPELINE_TRAIN_STEP_LEARNED_POSITIONS_H_
#define SHARDPROOF_PIPELINE_TRAIN_STEP_LEARNED_POSITIONS_H_

#include <cstdint>
#include <span>

#include "collectives/chunks.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct TokenPositions {
  DType dtype = DType::kF32;
  int64_t hidden = 1;
  // Of the tokens of one sequence; every sequence has the same.
  std::span<const int64_t> sequence;
  // Which, of all sequences one after the other.
  Chunk tokens;

  int64_t of(int64_t i) const {
    return sequence[static_cast<size_t>(tokens.begin + i) % sequence.size()];
  }
};

// table [length, hidden]; y [tokens.count, hidden].
Status AddPositions(const TokenPositions& positions, const void* table,
                    void* y);

// dy [tokens.count, hidden]; d_table [length, hidden] is overwritten.
Status PositionGradients(const TokenPositions& positions, const void* dy,
                         int64_t length, void* d_table);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_TRAIN_STEP_LEARNED_POSITIONS_H_
