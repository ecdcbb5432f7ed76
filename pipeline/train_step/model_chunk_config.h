// Which part of a language model a chunk of a pipeline is, and which parameters
// each of its actions uses.
//
// Contract: a use is one time that a block of parameters (model_memory.h) is read,
// gets a gradient, or both; with ZeRO 3 that is one gather or one scatter of it.
// UsesOf has them in the order in which ModelChunk makes them.
//
//     for (const NamedUse& use : UsesOf(config, ActionKind::kForward)) ...
#ifndef SHARDPROOF_PIPELINE_TRAIN_STEP_MODEL_CHUNK_CONFIG_H_
#define SHARDPROOF_PIPELINE_TRAIN_STEP_MODEL_CHUNK_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "attention/context_parallel/context_parallel_core.h"
#include "collectives/chunks.h"
#include "layers/transformer_block/transformer_block.h"
#include "pipeline/schedule.h"
#include "reference/trained_language_model.h"

namespace shardproof {

// The block of parameters of the output projection.
std::string HeadOf(const LanguageModelConfig& model);

struct ModelChunkConfig {
  LanguageModelConfig model;
  bool first = false, last = false;
  Chunk layers;
  int slots = 1;
  // Of each micro-batch: the sequences of each rank along ep, this one's at
  // groups.experts.rank(). None is empty.
  std::vector<std::vector<int64_t>> sequences;
  // Of this rank's tokens of a sequence, in the whole one.
  std::vector<int64_t> positions;
  ContextScheme scheme = ContextScheme::kRing;
  SequenceLayout layout = SequenceLayout::kZigzag;
  bool sequence_parallel = false;
  Recomputation recompute = Recomputation::kNone;
};

// Of each of its layers, on `sequences` of this rank's part of the tokens.
TransformerBlockConfig BlockConfigOf(const ModelChunkConfig& config,
                                     int64_t sequences);

// The blocks of a chunk, by name, in the order of the model.
std::vector<std::string> BlocksOfChunk(const ModelChunkConfig& config);

// A use of a block, by name.
struct NamedUse {
  std::string block;
  bool reads = true;
  bool gradient = false;
};
// What an action of a chunk uses, in order.
std::vector<NamedUse> UsesOf(const ModelChunkConfig& config, ActionKind kind);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_TRAIN_STEP_MODEL_CHUNK_CONFIG_H_
