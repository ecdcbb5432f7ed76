#include "pipeline/train_step/mesh_cost.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "attention/all_gather_kv/all_gather_kv.h"
#include "attention/ring/ring.h"
#include "attention/ulysses/ulysses.h"
#include "layers/attention_block/head_share.h"
#include "layers/expert_parallel_moe/expert_parallel_moe.h"
#include "pipeline/registry.h"
#include "pipeline/train_step/model_shards.h"

namespace shardproof {
namespace {

using Names = std::vector<std::string>;

// A visit of a micro-batch to a stage on a rank of pp.
struct Visit {
  int micro = 0;
  ModelChunkConfig chunk;  // Without what differs between ranks.
};

// How often the actions of a rank of pp use a block.
struct Uses {
  int64_t reads = 0;
  int64_t gradients = 0;
};

class Predictor {
 public:
  Predictor(const TrainStepConfig& config, const CollectiveFamily& collectives,
            Schedule schedule)
      : config_(config),
        model_(config.model),
        mesh_(config.mesh),
        family_(collectives),
        schedule_(std::move(schedule)) {}

  StatusOr<MeshCost> Run() {
    for (int rank = 0; rank < mesh_.ranks(); ++rank) {
      for (const Visit& visit : VisitsOf(Coordinate("pp", rank))) {
        if (IsFirst({"tp"}, rank)) SP_RETURN_IF_ERROR(Tensor(visit, rank));
        if (IsFirst({"cp"}, rank)) Context(visit, rank);
        if (IsFirst({"ep"}, rank) && model_.experts > 0) {
          SP_RETURN_IF_ERROR(Experts(visit, rank));
        }
      }
      if (Coordinate("pp", rank) == 0) SP_RETURN_IF_ERROR(Stages(rank));
      Gradients(kDense, false, rank);
      Gradients(kExperts, true, rank);
    }
    const std::vector<int64_t> ones(static_cast<size_t>(mesh_.ranks()), 1);
    Names all;
    for (const MeshDimension& d : mesh_.dimensions) all.push_back(d.name);
    Add(all, 0,
        ParallelOptimizerCost(mesh_.ranks(), model_.optimizer, family_) +
            family_.all_gather_cost(ones, DType::kF64, Memory::kShared),
        true, "all");
    return std::move(cost_);
  }

 private:
  inline static const Names kDense = {"cp", "ep", "dp"};
  inline static const Names kExperts = {"cp", "dp"};

  int Stride(std::string_view name) const {
    int stride = 1;
    for (const MeshDimension& d : mesh_.dimensions) {
      if (d.name == name) break;
      stride *= d.size;
    }
    return stride;
  }
  int Coordinate(std::string_view name, int rank) const {
    return rank / Stride(name) % mesh_.Size(name);
  }
  bool IsFirst(const Names& names, int rank) const {
    return std::all_of(names.begin(), names.end(), [&](const std::string& n) {
      return Coordinate(n, rank) == 0;
    });
  }
  // The ranks that differ from this one along these only, ascending.
  std::vector<int> GroupOf(const Names& names, int rank) const {
    std::vector<int> group = {rank};
    for (const std::string& n : names) {
      const int first = Coordinate(n, rank);
      std::vector<int> wider;
      for (const int r : group) {
        for (int c = 0; c < mesh_.Size(n); ++c) {
          wider.push_back(r + (c - first) * Stride(n));
        }
      }
      group = std::move(wider);
    }
    std::sort(group.begin(), group.end());
    return group;
  }
  int SizeOfGroup(const Names& names) const {
    int size = 1;
    for (const std::string& n : names) size *= mesh_.Size(n);
    return size;
  }

  DimensionCost& RowOf(const Names& names, std::string name) {
    int stride = mesh_.ranks();
    std::string several;
    for (const std::string& n : names) {
      if (mesh_.Size(n) == 1) continue;
      several += fmt::format("{}{}", several.empty() ? "" : ",", n);
      stride = std::min(stride, Stride(n));
    }
    if (name.empty()) name = several;
    for (DimensionCost& row : cost_.dimensions) {
      if (row.name == name) return row;
    }
    return cost_.dimensions.emplace_back(
        DimensionCost{.name = std::move(name),
                      .size = SizeOfGroup(names),
                      .stride = stride,
                      .bytes = 0,
                      .messages = 0,
                      .groups = {}});
  }
  void AddTo(DimensionCost& row, std::vector<int> ranks, const Traffic& sent,
             bool around) {
    row.bytes += sent.bytes;
    row.messages += sent.messages;
    cost_.total += sent;
    for (GroupTraffic& group : row.groups) {
      if (group.ranks != ranks || group.around != around) continue;
      group.sent += sent;
      return;
    }
    row.groups.push_back({std::move(ranks), around, sent});
  }
  void Add(const Names& names, int rank, const Cost& cost, bool around = true,
           std::string name = {}) {
    if (SizeOfGroup(names) == 1) return;
    AddTo(RowOf(names, std::move(name)), GroupOf(names, rank), cost.total,
          around);
  }

  // --- The model of a rank ---------------------------------------------------

  ModelChunkConfig ChunkOf(int stage) const {
    const int stages = schedule_.stages();
    ModelChunkConfig chunk;
    chunk.model = model_;
    chunk.first = stage == 0;
    chunk.last = stage + 1 == stages;
    chunk.layers = BalancedChunk(model_.blocks, stages, stage);
    return chunk;
  }
  std::vector<Visit> VisitsOf(int stage_rank) const {
    std::vector<Visit> visits;
    for (int m = 0; m < config_.micro_batches; ++m) {
      for (int s = 0; s < schedule_.stages(); ++s) {
        if (schedule_.PlaceOf(m, s).rank != stage_rank) continue;
        visits.push_back({m, ChunkOf(s)});
      }
    }
    return visits;
  }
  int64_t SequencesOf(int rank, int micro) const {
    const int data_rank =
        Coordinate("dp", rank) * mesh_.ep() + Coordinate("ep", rank);
    const int64_t own =
        BalancedChunk(config_.sequences, mesh_.data_ranks(), data_rank).count;
    return BalancedChunk(own, config_.micro_batches, micro).count;
  }
  StatusOr<int64_t> LengthOf(int rank) const {
    SP_ASSIGN_OR_RETURN(const std::vector<int64_t> positions,
                        LocalPositions({.layout = config_.layout,
                                        .tokens = model_.length,
                                        .ranks = mesh_.cp()},
                                       Coordinate("cp", rank)));
    return static_cast<int64_t>(positions.size());
  }
  // As ModelChunk has it.
  StatusOr<TransformerBlockConfig> BlockOf(int rank, int micro) const {
    SP_ASSIGN_OR_RETURN(const int64_t length, LengthOf(rank));
    return TransformerBlockConfig{
        .sequences = SequencesOf(rank, micro),
        .length = length,
        .hidden = model_.hidden,
        .heads = model_.heads,
        .kv_heads = model_.kv_heads,
        .head_dim = model_.head_dim,
        .intermediate = model_.intermediate,
        .norm = model_.norm,
        .activation = model_.activation,
        .rope_theta = model_.rope_theta,
        .dtype = model_.dtype,
        .bias = model_.bias,
        .sequence_parallel = config_.sequence_parallel,
        .recompute = config_.recompute};
  }
  const std::vector<ModelBlock>& ModelBlocksOf(int rank) {
    const ShardPlace place = {.tp = mesh_.tp(),
                              .tp_rank = Coordinate("tp", rank),
                              .ep = mesh_.ep(),
                              .ep_rank = Coordinate("ep", rank)};
    std::vector<ModelBlock>& known = blocks_[{place.tp_rank, place.ep_rank}];
    if (known.empty()) known = ModelBlockSizes(model_, place);
    return known;
  }
  // Of a rank of pp, by the names of its blocks.
  std::map<std::string, Uses> UsesOfStage(int stage_rank) const {
    std::map<std::string, Uses> uses;
    for (const Action& a : schedule_.actions[static_cast<size_t>(stage_rank)]) {
      const int stage = schedule_.StageAt(a.micro_batch, {stage_rank, a.chunk});
      for (const NamedUse& use : UsesOf(ChunkOf(stage), a.kind)) {
        uses[use.block].reads += use.reads ? 1 : 0;
        uses[use.block].gradients += use.gradient ? 1 : 0;
      }
    }
    return uses;
  }
  Cost AllReduce(int ranks, int64_t count) const {
    return family_.all_reduce_cost(ranks, count, model_.dtype, Memory::kShared);
  }

  // --- Along each dimension --------------------------------------------------

  // One pass forward and one backward.
  Cost MixtureTensor(const TransformerBlockConfig& block, int rank,
                     int64_t layer) {
    const int tp = mesh_.tp();
    Cost cost =
        ParallelAttentionForwardCost(tp, AttentionConfigOf(block), family_) +
        ParallelAttentionBackwardCost(tp, AttentionConfigOf(block), family_) +
        ParallelNormBackwardCost(tp, NormConfigOf(block, false), family_) +
        ParallelNormBackwardCost(tp, NormConfigOf(block, true), family_);
    if (!block.sequence_parallel) return cost;
    for (const ModelBlock& b : ModelBlocksOf(rank)) {
      if (b.name != fmt::format("experts{}", layer)) continue;
      for (const ParameterShard& p : b.parameters) {
        const int64_t count = p.shape.NumElements();
        if (count > 0) cost += AllReduce(tp, count);
      }
    }
    return cost;
  }

  Status Tensor(const Visit& visit, int rank) {
    const int tp = mesh_.tp();
    if (tp == 1) return OkStatus();
    SP_ASSIGN_OR_RETURN(const TransformerBlockConfig block,
                        BlockOf(rank, visit.micro));
    Cost cost;
    for (int64_t l = 0; l < visit.chunk.layers.count; ++l) {
      cost += model_.experts > 0
                  ? MixtureTensor(block, rank, visit.chunk.layers.begin + l)
                  : TransformerBlockForwardCost(tp, block, family_) +
                        TransformerBlockBackwardCost(tp, block, family_);
    }
    const VocabEmbeddingConfig vocabulary = {
        .vocabulary = model_.vocabulary,
        .hidden = model_.hidden,
        .tokens = block.tokens(),
        .dtype = model_.dtype,
        .sequence_parallel = config_.sequence_parallel};
    if (visit.chunk.first) {
      cost += VocabEmbeddingForwardCost(tp, vocabulary, family_) +
              VocabEmbeddingBackwardCost(tp, vocabulary, family_);
      if (model_.learned_positions && config_.sequence_parallel) {
        cost += AllReduce(tp, model_.length * model_.hidden);
      }
    }
    if (visit.chunk.last) {
      cost +=
          ParallelNormBackwardCost(tp, NormConfigOf(block, false), family_) +
          TiedProjectionForwardCost(tp, vocabulary, family_) +
          TiedProjectionBackwardCost(tp, vocabulary, family_) +
          VocabCrossEntropyCost(tp,
                                {.tokens = block.tokens(),
                                 .vocabulary = model_.vocabulary,
                                 .dtype = model_.dtype},
                                family_);
    }
    Add({"tp"}, rank, cost);
    return OkStatus();
  }

  // Attention of the heads of this rank of tp.
  void Context(const Visit& visit, int rank) {
    const int cp = mesh_.cp();
    if (cp == 1) return;
    const HeadShare share = HeadShare::Of(model_.heads, model_.kv_heads,
                                          mesh_.tp(), Coordinate("tp", rank));
    const ShardedAttentionConfig config = {
        .sequences = SequencesOf(rank, visit.micro),
        .tokens = model_.length,
        .heads = share.heads.count,
        .kv_heads = share.kv_heads.count,
        .head_dim = model_.head_dim,
        .layout = config_.layout,
        .visibility = {.causal = true},
        .dtype = model_.dtype};
    Cost forward, backward;
    switch (config_.scheme) {
      case ContextScheme::kRing:
        forward = RingForwardCost(cp, config);
        backward = RingBackwardCost(cp, config);
        break;
      case ContextScheme::kAllGatherKv:
        forward = AllGatherKvForwardCost(cp, config, family_);
        backward = AllGatherKvBackwardCost(cp, config, family_);
        break;
      case ContextScheme::kUlysses:
        forward = UlyssesForwardCost(cp, config, family_);
        backward = UlyssesBackwardCost(cp, config, family_);
        break;
    }
    // A mixture is not made again.
    const bool again =
        config_.recompute == Recomputation::kFull && model_.experts == 0;
    const bool around = config_.scheme != ContextScheme::kUlysses;
    for (int64_t l = 0; l < visit.chunk.layers.count; ++l) {
      Add({"cp"}, rank, forward + backward + (again ? forward : Cost()),
          around);
    }
  }

  Status Experts(const Visit& visit, int rank) {
    const int ep = mesh_.ep();
    if (ep == 1 || visit.chunk.layers.count == 0) return OkStatus();
    SP_ASSIGN_OR_RETURN(const int64_t length, LengthOf(rank));
    ExpertParallelMoeConfig moe = {.hidden = model_.hidden,
                                   .intermediate = model_.intermediate,
                                   .experts = model_.experts,
                                   .top_k = model_.top_k,
                                   .renormalise = true,
                                   .activation = model_.activation,
                                   .dtype = model_.dtype};
    std::vector<int64_t> chosen;
    for (const int r : GroupOf({"ep"}, rank)) {
      const int64_t all = SequencesOf(r, visit.micro) * length;
      const int64_t own =
          config_.sequence_parallel
              ? BalancedChunk(all, mesh_.tp(), Coordinate("tp", rank)).count
              : all;
      moe.tokens.push_back(own);
      for (int64_t e = 0; e < model_.experts; ++e) {
        chosen.push_back(
            BalancedChunk(own * model_.top_k, model_.experts, e).count);
      }
    }
    cost_.exact = false;
    const Cost cost = ExpertParallelMoeForwardCost(moe, chosen, family_) +
                      ExpertParallelMoeBackwardCost(moe, chosen, family_);
    for (int64_t l = 0; l < visit.chunk.layers.count; ++l) {
      Add({"ep"}, rank, cost, false);
    }
    return OkStatus();
  }

  // From stage to stage, and among stages that hold the same.
  Status Stages(int rank) {
    if (mesh_.pp() == 1) return OkStatus();
    const std::vector<int> group = GroupOf({"pp"}, rank);
    DimensionCost& row = RowOf({"pp"}, {});
    for (int m = 0; m < config_.micro_batches; ++m) {
      SP_ASSIGN_OR_RETURN(const TransformerBlockConfig block, BlockOf(rank, m));
      const int64_t tokens = config_.sequence_parallel
                                 ? BalancedChunk(block.tokens(), mesh_.tp(),
                                                 Coordinate("tp", rank))
                                       .count
                                 : block.tokens();
      const int64_t bytes = tokens * model_.hidden * SizeOf(model_.dtype);
      for (int s = 0; bytes > 0 && s + 1 < schedule_.stages(); ++s) {
        const int from = schedule_.PlaceOf(m, s).rank;
        const int to = schedule_.PlaceOf(m, s + 1).rank;
        if (from == to) continue;
        std::vector<int> ranks = {group[static_cast<size_t>(from)],
                                  group[static_cast<size_t>(to)]};
        std::sort(ranks.begin(), ranks.end());
        AddTo(row, std::move(ranks), {.bytes = 2 * bytes, .messages = 2},
              false);
      }
    }
    std::map<std::string, std::vector<int>> holders;
    for (int stage = 0; stage < mesh_.pp(); ++stage) {
      for (const auto& [name, uses] : UsesOfStage(stage)) {
        holders[name].push_back(group[static_cast<size_t>(stage)]);
      }
    }
    for (const ModelBlock& block : ModelBlocksOf(rank)) {
      const auto at = holders.find(block.name);
      if (at == holders.end() || at->second.size() < 2) continue;
      const int64_t own = OwnCount(block, rank);
      if (own == 0) continue;
      AddTo(row, at->second,
            AllReduce(static_cast<int>(at->second.size()), own).total, true);
    }
    return OkStatus();
  }
  int64_t OwnCount(const ModelBlock& block, int rank) const {
    if (config_.zero_stage == 0) return block.count;
    const std::vector<int> sharers =
        GroupOf(block.experts ? kExperts : kDense, rank);
    const auto at = std::find(sharers.begin(), sharers.end(), rank);
    return BalancedChunk(block.count, static_cast<int64_t>(sharers.size()),
                         at - sharers.begin())
        .count;
  }

  // As ShardedParameters sends.
  void Gradients(const Names& names, bool experts, int rank) {
    const int size = SizeOfGroup(names);
    if (size == 1 || !IsFirst(names, rank)) return;
    const std::map<std::string, Uses> uses =
        UsesOfStage(Coordinate("pp", rank));
    Cost cost;
    for (const ModelBlock& block : ModelBlocksOf(rank)) {
      const auto used = uses.find(block.name);
      if (block.experts != experts || used == uses.end() || block.count == 0) {
        continue;
      }
      if (config_.zero_stage == 0) {
        cost += AllReduce(size, block.count);
        continue;
      }
      std::vector<int64_t> counts;
      for (int r = 0; r < size; ++r) {
        counts.push_back(BalancedChunk(block.count, size, r).count);
      }
      const bool sharded = config_.zero_stage == 3;
      const int64_t gathers = sharded ? used->second.reads : 1;
      const int64_t reduces =
          config_.zero_stage == 1 ? 1 : used->second.gradients;
      for (int64_t i = 0; i < gathers; ++i) {
        cost += family_.all_gather_cost(counts, model_.dtype, Memory::kShared);
      }
      for (int64_t i = 0; i < reduces; ++i) {
        cost +=
            family_.reduce_scatter_cost(counts, model_.dtype, Memory::kShared);
      }
    }
    if (cost.total.messages > 0) Add(names, rank, cost);
  }

  const TrainStepConfig& config_;
  const LanguageModelConfig& model_;
  const TrainMesh& mesh_;
  const CollectiveFamily& family_;
  const Schedule schedule_;
  // Of ranks along tp and ep.
  std::map<std::pair<int, int>, std::vector<ModelBlock>> blocks_;
  MeshCost cost_;
};

}  // namespace

StatusOr<MeshCost> PredictMeshCost(const TrainStepConfig& config,
                                   const CollectiveFamily& collectives) {
  if (!collectives.has_cost()) {
    return InvalidArgument("the costs of \"{}\" are not known",
                           collectives.name);
  }
  SP_RETURN_IF_ERROR(CheckTrainStep(config, config.mesh.ranks()));
  SP_ASSIGN_OR_RETURN(
      Schedule schedule,
      BuildSchedule(config.schedule, {.ranks = config.mesh.pp(),
                                      .micro_batches = config.micro_batches,
                                      .chunks = config.chunks}));
  return Predictor(config, collectives, std::move(schedule)).Run();
}

}  // namespace shardproof
