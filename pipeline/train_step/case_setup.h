// The pairing of train_step, but for its planted bugs (case.cc): which models,
// meshes and schedules, the tensors and the reference.
#ifndef SHARDPROOF_PIPELINE_TRAIN_STEP_CASE_SETUP_H_
#define SHARDPROOF_PIPELINE_TRAIN_STEP_CASE_SETUP_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipeline/train_step/train_step.h"
#include "reference/dtype.h"
#include "tools/harness/case.h"

namespace shardproof {

// "tp2xpp4", or as ParseTrainMesh takes it. For the axis, found by
// argument-dependent lookup.
std::string FormatAxisValue(const TrainMesh& mesh);
Status ParseAxisValue(std::string_view text, TrainMesh* mesh);

}  // namespace shardproof

namespace shardproof::train_step {

// LayerNorm, GELU, biases, learned positions, tied; RMSNorm, SwiGLU, rotary
// embeddings, half as many KV heads as heads, untied; the same with 4 experts.
enum class Model : uint8_t { kGpt, kLlama, kMixtral };
std::string FormatAxisValue(Model model);
Status ParseAxisValue(std::string_view text, Model* model);

// Which of all combinations there are: one for each model and mesh; each ZeRO
// stage with and without sequence parallelism on each, in schedules that take
// turns; or all.
enum class Matrix : uint8_t { kSample, kLayouts, kAll };
std::string FormatAxisValue(Matrix matrix);
Status ParseAxisValue(std::string_view text, Matrix* matrix);

struct P {
  DType dtype = DType::kF32;
  Model model = Model::kLlama;
  TrainMesh mesh;
  std::string schedule = "one_f_one_b";
  int zero = 0;
  bool sequence_parallel = false;
  int64_t steps = 5;
  Matrix matrix = Matrix::kSample;
  int ranks = 1;
};

// All that axes can be.
std::vector<std::string> MeshValues();
std::vector<std::string> ScheduleValues();

LanguageModelConfig ModelOf(const P& p);
TrainStepConfig ConfigOf(const P& p);
// A reason why there is no such instance.
std::optional<std::string> Skip(const P& p);

Tensors TensorsOf(const P& p);
// A target of the vocabulary's size or more does not count.
inline int64_t TargetOf(const P& p, int64_t drawn) {
  return drawn < ModelOf(p).vocabulary ? drawn : kIgnoredTarget;
}
StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample);

}  // namespace shardproof::train_step

#endif  // SHARDPROOF_PIPELINE_TRAIN_STEP_CASE_SETUP_H_
