#include "tools/cli/pipeline_mesh.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <utility>

#include "layers/models/catalog.h"
#include "layers/models/model_config.h"
#include "pipeline/train_step/case_setup.h"
#include "tools/cli/mesh_report.h"

namespace shardproof {
namespace {

constexpr int kMostRanks = 4096;

const std::map<std::string, ContextScheme> kSchemes = {
    {"ring", ContextScheme::kRing},
    {"all_gather_kv", ContextScheme::kAllGatherKv},
    {"ulysses", ContextScheme::kUlysses}};
const std::map<std::string, Recomputation> kRecomputations = {
    {"none", Recomputation::kNone},
    {"selective", Recomputation::kSelective},
    {"full", Recomputation::kFull}};

template <class T>
std::vector<std::string> NamesOf(const std::map<std::string, T>& values) {
  std::vector<std::string> names;
  for (const auto& [name, value] : values) names.push_back(name);
  return names;
}

// Its product may be any.
Status CheckRanks(const TrainMesh& mesh) {
  int64_t ranks = 1;
  for (const MeshDimension& d : mesh.dimensions) {
    ranks *= d.size;
    if (ranks <= kMostRanks) continue;
    return InvalidArgument("--mesh {} is of more than {} ranks", Describe(mesh),
                           kMostRanks);
  }
  return OkStatus();
}

StatusOr<LanguageModelConfig> ModelOf(const std::string& name) {
  SP_ASSIGN_OR_RETURN(const models::ModelConfig from,
                      models::FindOrLoadModel(name));
  if (from.is_latent() || from.shared_experts > 0 ||
      (from.is_moe() && from.first_dense_layers > 0)) {
    return InvalidArgument(
        "--model {}: a training step has no latent attention, no shared "
        "experts, and experts in every block or in none",
        name);
  }
  LanguageModelConfig m;
  m.blocks = static_cast<int>(from.layers);
  m.vocabulary = from.vocabulary;
  m.length = 4096;
  m.hidden = from.hidden;
  m.heads = from.heads;
  m.kv_heads = from.kv_heads;
  m.head_dim = from.head_dim;
  m.intermediate = from.is_moe() ? from.moe_intermediate : from.intermediate;
  m.norm = from.norm == models::Norm::kLayerNorm ? NormKind::kLayerNorm
                                                 : NormKind::kRmsNorm;
  m.activation = from.activation == models::Activation::kSwiGlu
                     ? Activation::kSwiGlu
                     : Activation::kGeluTanh;
  m.rope_theta = from.rope_theta;
  m.bias = from.mlp_bias;
  m.tied = from.tied_embeddings;
  m.learned_positions = from.family == models::Family::kGpt2;
  if (from.max_positions > 0) m.length = std::min(m.length, from.max_positions);
  m.experts = from.experts;
  m.top_k = from.experts_per_token;
  m.dtype = DType::kBF16;
  m.optimizer.max_norm = 1;
  return m;
}

StatusOr<TrainStepConfig> ComesWith(const PipelineMeshOptions& options,
                                    const TrainMesh& mesh) {
  train_step::P p = {.mesh = mesh,
                     .schedule = options.schedule,
                     .zero = options.zero,
                     .sequence_parallel = options.sequence_parallel,
                     .ranks = mesh.ranks()};
  if (ParseAxisValue(options.model, &p.model).ok()) {
    return train_step::ConfigOf(p);
  }
  SP_ASSIGN_OR_RETURN(const LanguageModelConfig model, ModelOf(options.model));
  return TrainStepConfig{.model = model,
                         .mesh = mesh,
                         .schedule = options.schedule,
                         .micro_batches = std::max(8, 2 * mesh.pp()),
                         .zero_stage = options.zero,
                         .sequence_parallel = options.sequence_parallel};
}

Status Print(const PipelineMeshOptions& options) {
  SP_ASSIGN_OR_RETURN(const TrainStepConfig config, StepOf(options));
  const int ranks = config.mesh.ranks();
  const int node =
      options.ranks_per_node > 0 ? options.ranks_per_node : NodeOf(ranks);
  SP_ASSIGN_OR_RETURN(const std::string report, MeshReport(config, node));
  fmt::print("{} on {}, {} ranks: {}", options.model, Describe(config.mesh),
             ranks, report);
  return OkStatus();
}

}  // namespace

StatusOr<TrainStepConfig> StepOf(const PipelineMeshOptions& options) {
  SP_ASSIGN_OR_RETURN(const TrainMesh mesh, ParseTrainMesh(options.mesh));
  SP_RETURN_IF_ERROR(CheckRanks(mesh));
  SP_ASSIGN_OR_RETURN(TrainStepConfig config, ComesWith(options, mesh));
  if (options.chunks > 0) config.chunks = options.chunks;
  if (options.micro_batches > 0) config.micro_batches = options.micro_batches;
  if (options.sequence > 0) config.model.length = options.sequence;
  if (options.micro_batch > 0 || config.sequences == 0) {
    config.sequences = std::max<int64_t>(1, options.micro_batch) *
                       config.micro_batches * mesh.data_ranks();
  }
  if (!options.attention.empty()) {
    config.scheme = kSchemes.at(options.attention);
  }
  if (!options.recompute.empty()) {
    config.recompute = kRecomputations.at(options.recompute);
  }
  return config;
}

void AddPipelineMesh(CLI::App& app, PipelineMeshOptions& options,
                     std::function<void(const Status&)> done) {
  CLI::App* mesh = app.add_subcommand(
      "mesh",
      "What a training step sends along each dimension of its mesh, what of it "
      "leaves a node, and what would in the usual order");
  mesh->add_option("--mesh", options.mesh,
                   "tp=4,pp=2, innermost first: ranks along tp, cp, ep, pp and "
                   "dp, in any order")
      ->required();
  mesh->add_option("--nodes-of", options.ranks_per_node,
                   "Consecutive ranks of a node (half of all, at most 8)")
      ->check(CLI::Range(1, kMostRanks));
  mesh->add_option("--model", options.model,
                   "A built-in name, a Hugging Face config.json, or gpt, llama "
                   "or mixtral: the small ones of the train_step cases "
                   "(default llama-3.1-8b)");
  mesh->add_option("--schedule", options.schedule,
                   "Of the stages (see pipeline list; default one_f_one_b)");
  const auto count = [&](const char* flag, auto& value, int most,
                         const char* what) {
    mesh->add_option(flag, value, what)->check(CLI::Range(1, most));
  };
  count("--chunks", options.chunks, 1024, "Of each rank (1)");
  count("--microbatches", options.micro_batches, 65536,
        "Of a step, on each rank along dp and ep (8, or two for each stage)");
  count("--micro-batch", options.micro_batch, 65536,
        "Sequences of a micro-batch (1)");
  count("--sequence", options.sequence, 1 << 24,
        "Tokens of a sequence (4096, or what the model has positions for)");
  mesh->add_option("--zero", options.zero, "Stage of ZeRO (0)")
      ->check(CLI::Range(0, 3));
  mesh->add_flag("--sequence-parallel", options.sequence_parallel,
                 "Activations between layers are cut along tp");
  mesh->add_option("--attention", options.attention,
                   "Along cp: ring (default), all_gather_kv or ulysses")
      ->check(CLI::IsMember(NamesOf(kSchemes)));
  mesh->add_option("--recompute", options.recompute,
                   "none (default), selective or full")
      ->check(CLI::IsMember(NamesOf(kRecomputations)));
  mesh->callback([&options, done = std::move(done)] { done(Print(options)); });
}

}  // namespace shardproof
