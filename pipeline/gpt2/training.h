// GPT-2 124M trained on real text, on a mesh of ranks.
//
//     blocks 12, hidden 768, 12 heads of 64, intermediate 3072, LayerNorm, GELU
//     (tanh), biases, learned positions, a tied table of 50257 rows, all in f32
//
// Positions are `length` and not 1024: those behind it would never be used. Tokens
// are the text's bytes, 0..255, so that most rows of the table are targets of no
// token and still part of every loss. A step takes `sequences` sequences, each
// with the next byte as the target of every byte, and AdamW's step, clipped.
//
// Parameters start from functions of their names and places, the same for every
// layout: products and the table normal with deviation 0.02, positions with 0.01,
// weights of norms 1, biases 0. Unlike in GPT-2, products before a sum with the
// residual are no smaller than others, and there is no dropout.
//
//     std::vector<float> initial = InitialParameters(options);
//     SP_ASSIGN_OR_RETURN(const Layout layout, ParseLayout("dp=4,zero=3"));
//     SP_ASSIGN_OR_RETURN(Curve curve, Train(options, layout, initial));
//
// Sources: Radford et al., Language models are unsupervised multitask learners
// (2019), for the shapes and deviations; Brown et al., arXiv:2005.14165, appendix
// B, for the betas, the clipping and the decay.
#ifndef SHARDPROOF_PIPELINE_GPT2_TRAINING_H_
#define SHARDPROOF_PIPELINE_GPT2_TRAINING_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "layers/tensor_parallel/collective_family.h"
#include "pipeline/train_step/train_step.h"
#include "reference/status.h"

namespace shardproof::gpt2 {

// The text, of sample.txt.
std::string_view SampleText();

struct TrainingOptions {
  int blocks = 12;
  int64_t hidden = 768;  // Intermediate is 4 times it.
  int64_t heads = 12;
  int64_t vocabulary = 50257;  // At least 256.
  int64_t length = 32;         // Bytes of a sequence.
  int64_t sequences = 4;       // Of a step.
  int steps = 20;
};

LanguageModelConfig ModelOf(const TrainingOptions& options);

// A mesh, and ZeRO's stage in it.
struct Layout {
  TrainMesh mesh;
  int zero = 0;
};
// "tp=2,pp=2,zero=1": ParseTrainMesh's, and the stage, 0 unless it is named.
StatusOr<Layout> ParseLayout(std::string_view text);
std::string Describe(const Layout& layout);

// Of a pipeline, micro-batches of one sequence; else one micro-batch.
TrainStepConfig ConfigOf(const TrainingOptions& options, const Layout& layout);

// In the order of LanguageModelParameters.
std::vector<float> InitialParameters(const TrainingOptions& options);
// Moves every parameter but zeros to a neighbour, the next float above or below,
// at random: by a relative error of one to two unit roundoffs (2^-24).
void MoveToNeighbours(uint64_t seed, std::span<float> parameters);

// [sequences, length], of one step. The text starts again at its end.
struct Batch {
  std::vector<int64_t> ids, targets;
};
Batch BatchOf(const TrainingOptions& options, int step);

// Of each step: the loss before it, and the norm of the gradient before clipping.
struct Curve {
  std::vector<double> losses, norms;
  // Of all steps but the first, which meets cold memory; 0 of a single one.
  double tokens_per_second = 0;
};

// With ranks as threads. kInvalidArgument where the text is shorter than a
// sequence, and for what CheckTrainStep refuses; those of TrainStep.
StatusOr<Curve> Train(const TrainingOptions& options, const Layout& layout,
                      std::span<const float> initial,
                      const CollectiveFamily& collectives = kAutoCollectives);

}  // namespace shardproof::gpt2

#endif  // SHARDPROOF_PIPELINE_GPT2_TRAINING_H_
