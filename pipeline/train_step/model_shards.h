// Which parameters of a language model (reference/trained_language_model.h) a
// rank of a mesh has, and how they lie in its memory.
//
// Parameters come in blocks, which are gathered and reduced as one:
//
//     table       the embedding; where it is tied, also the head
//     positions   learned ones
//     blockN      norms, attention and mlp of block N
//     expertsN    in place of the mlp: router and experts
//     norm        the last one
//     head
//
// A rank of tp has of each what the layers say: rows of the table and the head
// by VocabPartition, heads by HeadShare, features by BalancedChunk, and all of
// what is not cut: norms, biases that are added once, positions, router and
// experts. A rank of ep has BalancedChunk of the experts.
//
// An element that several ranks of tp, or router's of ep, hold counts in norms on
// the first of them: `counted`.
//
//     const std::vector<ModelBlock> blocks = ModelBlocks(config, {.tp = 2});
#ifndef SHARDPROOF_PIPELINE_TRAIN_STEP_MODEL_SHARDS_H_
#define SHARDPROOF_PIPELINE_TRAIN_STEP_MODEL_SHARDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "collectives/chunks.h"
#include "reference/tensor.h"
#include "reference/trained_language_model.h"

namespace shardproof {

// A rank among those that cut parameters.
struct ShardPlace {
  int tp = 1;
  int tp_rank = 0;
  int ep = 1;
  int ep_rank = 0;
};

struct ParameterShard {
  std::string name;   // "w_qkv", "table": without the number of its block.
  Shape shape;        // What the rank has.
  int64_t begin = 0;  // In its block.
  // Where its elements are among those of the whole model, one run after the
  // other. Padding comes last and is nowhere.
  std::vector<Chunk> runs;
};

// Consecutive elements of a block.
struct CountedRun {
  int64_t begin = 0;
  int64_t count = 0;
  bool counted = true;
};

struct ModelBlock {
  std::string name;  // "block3"
  bool experts = false;
  int64_t count = 0;  // Elements of this rank.
  std::vector<ParameterShard> parameters;
  std::vector<CountedRun> counted;

  // Of each element, its place in the whole model; -1 for padding.
  std::vector<int64_t> Places() const;
};

// All blocks, in the order of their parameters.
std::vector<ModelBlock> ModelBlocks(const LanguageModelConfig& config,
                                    const ShardPlace& place);
// The same without `runs` and `counted`, which take time and memory for each
// element: of models too large to be held.
std::vector<ModelBlock> ModelBlockSizes(const LanguageModelConfig& config,
                                        const ShardPlace& place);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_TRAIN_STEP_MODEL_SHARDS_H_
