#include "pipeline/train_step/case_bugs.h"

#include <cstdint>
#include <numeric>
#include <string_view>

#include "layers/pairing/broken_collectives.h"

namespace shardproof::train_step {
namespace {

// --- Wrong groups ------------------------------------------------------------

StatusOr<ModelGroups> DenseAlongDpAlone(const Mesh& mesh) {
  SP_ASSIGN_OR_RETURN(ModelGroups groups, TrainGroups(mesh));
  groups.dense = mesh.Along("dp");
  return groups;
}
StatusOr<ModelGroups> DenseWithoutCp(const Mesh& mesh) {
  SP_ASSIGN_OR_RETURN(ModelGroups groups, TrainGroups(mesh));
  SP_ASSIGN_OR_RETURN(groups.dense, mesh.Along({"ep", "dp"}));
  return groups;
}
StatusOr<ModelGroups> ExpertsAlongEp(const Mesh& mesh) {
  SP_ASSIGN_OR_RETURN(ModelGroups groups, TrainGroups(mesh));
  SP_ASSIGN_OR_RETURN(groups.experts, mesh.Along({"cp", "ep", "dp"}));
  return groups;
}
StatusOr<ModelGroups> StagesAlone(const Mesh& mesh) {
  SP_ASSIGN_OR_RETURN(ModelGroups groups, TrainGroups(mesh));
  SP_ASSIGN_OR_RETURN(groups.pipeline,
                      groups.pipeline.Split(groups.pipeline.rank(), 0));
  return groups;
}
StatusOr<ModelGroups> NormOfAStage(const Mesh& mesh) {
  SP_ASSIGN_OR_RETURN(ModelGroups groups, TrainGroups(mesh));
  SP_ASSIGN_OR_RETURN(groups.norm, mesh.Along({"tp", "cp", "ep", "dp"}));
  return groups;
}
StatusOr<ModelGroups> NormWithoutTp(const Mesh& mesh) {
  SP_ASSIGN_OR_RETURN(ModelGroups groups, TrainGroups(mesh));
  SP_ASSIGN_OR_RETURN(groups.norm, mesh.Along({"cp", "ep", "pp", "dp"}));
  return groups;
}

// --- Wrong parts -------------------------------------------------------------

std::vector<ModelBlock> CountedEverywhere(const LanguageModelConfig& config,
                                          const ShardPlace& place) {
  std::vector<ModelBlock> blocks = ModelBlocks(config, place);
  for (ModelBlock& block : blocks) {
    for (CountedRun& run : block.counted) run.counted = true;
  }
  return blocks;
}
std::vector<ModelBlock> FirstExperts(const LanguageModelConfig& config,
                                     const ShardPlace& place) {
  ShardPlace first = place;
  first.ep_rank = 0;
  return ModelBlocks(config, first);
}

StatusOr<std::vector<int64_t>> Restarted(const LayoutShape& shape,
                                         int64_t rank) {
  SP_ASSIGN_OR_RETURN(std::vector<int64_t> positions,
                      LocalPositions(shape, rank));
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

// --- Wrong scales ------------------------------------------------------------

double OverAllTokens(const TrainStepConfig& config, int64_t /*counted*/) {
  return 1 / static_cast<double>(config.sequences * config.model.length);
}
double OverMicroBatches(const TrainStepConfig& config, int64_t counted) {
  return MeanFactor(config, counted) / config.micro_batches;
}
double OverDataRanks(const TrainStepConfig& config, int64_t counted) {
  return MeanFactor(config, counted) / config.mesh.data_ranks();
}
double TimesTensorRanks(const TrainStepConfig& config, int64_t counted) {
  return MeanFactor(config, counted) * config.mesh.tp();
}

bool Always(const P& /*p*/) { return true; }
// Gradients are summed over these.
bool Dense(const P& p) { return p.mesh.cp() * p.mesh.data_ranks() > 1; }
template <const char* Name>
bool Along(const P& p) {
  return p.mesh.Size(Name) > 1;
}
constexpr char kTp[] = "tp", kCp[] = "cp", kEp[] = "ep", kPp[] = "pp";

// Some of what stages hold is on several: a tied table, or copies of what goes
// both ways.
bool Copies(const P& p) {
  if (p.mesh.pp() == 1) return false;
  if (p.schedule == "chimera" || p.schedule == "dualpipe") return true;
  const bool folded = p.schedule == "zb_v" || p.schedule == "dualpipe_v";
  return p.model == Model::kGpt && !folded;
}

}  // namespace

std::vector<PlantedBug> BugsOf(Model model) {
  const auto with = [](auto member, auto part) {
    TrainStepParts parts;
    parts.*member = part;
    return parts;
  };
  using T = TrainStepParts;
  std::vector<PlantedBug> bugs = {
      {"gradients_averaged", with(&T::gradients, kAveraging), Dense},
      {"gradients_not_reduced", with(&T::gradients, kWithoutReduction), Dense},
      {"gradients_of_dp_alone", with(&T::groups, DenseAlongDpAlone),
       [](const P& p) { return p.mesh.cp() * p.mesh.ep() > 1; }},
      {"gradients_not_along_cp", with(&T::groups, DenseWithoutCp), Along<kCp>},
      {"copies_not_summed", with(&T::groups, StagesAlone), Copies},
      {"norm_of_a_stage", with(&T::groups, NormOfAStage), Along<kPp>},
      {"norm_without_tp", with(&T::groups, NormWithoutTp), Along<kTp>},
      {"norm_counts_copies", with(&T::blocks, CountedEverywhere), Along<kTp>},
      {"positions_restart", with(&T::positions, Restarted), Along<kCp>},
      {"mean_over_ignored_tokens", with(&T::factor, OverAllTokens), Always},
      {"scaled_by_accumulation", with(&T::factor, OverMicroBatches),
       [](const P& p) { return ConfigOf(p).micro_batches > 1; }},
      {"scaled_by_data_ranks", with(&T::factor, OverDataRanks),
       [](const P& p) { return p.mesh.data_ranks() > 1; }},
      {"scaled_by_tensor_ranks", with(&T::factor, TimesTensorRanks),
       Along<kTp>},
      {"losses_of_all_tensor_ranks",
       with(&T::reports, [](const Mesh&) { return true; }), Along<kTp>}};
  if (model == Model::kMixtral) {
    bugs.push_back({"experts_reduced_along_ep",
                    with(&T::groups, ExpertsAlongEp), Along<kEp>});
    bugs.push_back(
        {"experts_of_the_first", with(&T::blocks, FirstExperts), Along<kEp>});
  }
  return bugs;
}

}  // namespace shardproof::train_step
