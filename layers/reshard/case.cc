// The pairing of reshard: axes, reference, variants, planted bugs. What a shard
// holds is said once more by case_shards.h, without the code that is tested.
#include "tools/harness/case.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "layers/pairing/layer_case.h"
#include "layers/reshard/case_shards.h"
#include "layers/reshard/reshard.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  std::string parameter = "rows";
  std::string from = "part";
  std::string to = "tensor";
  int64_t hidden = 0;
  int64_t heads = 0;  // 0: as `parameter` has it.
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t layers = 3;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

struct Heads {
  int64_t heads = 0;
  int64_t kv_heads = 0;
};

Heads HeadsOf(const P& p) {
  if (p.heads > 0) return {p.heads, p.kv_heads};
  if (p.parameter == "qkv_mha") return {9, 9};
  if (p.parameter == "qkv_mqa") return {10, 1};
  return {12, 4};
}

bool Is(const P& p, std::string_view prefix) {
  return p.parameter.starts_with(prefix);
}

ReshardedParameter ParameterOf(const P& p) {
  const int64_t h = p.hidden;
  ReshardedParameter out = {.layers = p.layers, .columns = h, .dtype = p.dtype};
  if (Is(p, "qkv")) {
    const auto [heads, kv_heads] = HeadsOf(p);
    out.cut = ParameterCut::kQkv;
    out.heads = heads;
    out.kv_heads = kv_heads;
    out.head_dim = p.head_dim > 0 ? p.head_dim : std::max<int64_t>(2, h / 16);
    out.rows = (heads + 2 * kv_heads) * out.head_dim;
    if (p.parameter == "qkv_bias") out.columns = 1;
  } else if (Is(p, "gate_up")) {
    out.cut = ParameterCut::kGateUp;
    out.rows = 2 * (2 * h + 1);
  } else if (Is(p, "vocabulary")) {
    out.cut = ParameterCut::kVocabulary;
    out.placement = p.parameter == "vocabulary_last"
                        ? StagePlacement::kLastStage
                        : StagePlacement::kFirstStage;
    out.layers = 1;
    out.rows = 3 * h + 1;
  } else if (p.parameter == "norm") {
    out.cut = ParameterCut::kReplicated;
    out.rows = h;
    out.columns = 1;
  } else {
    out.cut =
        p.parameter == "columns" ? ParameterCut::kColumns : ParameterCut::kRows;
    out.rows = 2 * h + 1;
  }
  return out;
}

// "mesh" and "part" leave a rank without a shard where they do not come out
// even.
ShardLayout LayoutOf(const P& p, std::string_view name, bool interleaved) {
  const int half = std::max(1, p.ranks / 2);
  ShardLayout layout = {.gate_up = interleaved ? GateUpOrder::kInterleaved
                                               : GateUpOrder::kStacked,
                        .vocab_multiple = 4};
  if (name == "tensor") layout.tensor = p.ranks;
  if (name == "pipeline") layout.pipeline = p.ranks;
  if (name == "part") layout.tensor = std::max(1, p.ranks - 1);
  if (name == "mesh") {
    layout.tensor = half;
    layout.pipeline = p.ranks / half;
  }
  return layout;
}

// "gate_up_is" is interleaved when saved and stacked when loaded.
ReshardConfig ConfigOf(const P& p) {
  const bool gated = Is(p, "gate_up_");
  return {.parameter = ParameterOf(p),
          .from = LayoutOf(p, p.from, gated && p.parameter[8] == 'i'),
          .to = LayoutOf(p, p.to, gated && p.parameter[9] == 'i')};
}

Sharding By(const ReshardedParameter& p, const ShardLayout& layout) {
  return ShardBy(
      fmt::format("{}: {}", Name(p.cut), Describe(p, layout)),
      [p, layout](const Shape& global, int rank, int /*ranks*/) {
        if (rank >= layout.shards()) return EmptyBlock(global);
        const std::vector<Interval> all_rows = {{0, global[1]}},
                                    all_columns = {{0, global[2]}};
        const std::vector<Interval> cut =
            Runs(IndicesOf(p, layout, layout.rank(rank)));
        return MakeBlock({Runs(LayersOf(p, layout, layout.stage(rank))),
                          p.cuts_columns() ? all_rows : cut,
                          p.cuts_columns() ? cut : all_columns});
      });
}

// --- The case ----------------------------------------------------------------

Tensors TensorsOf(const P& p) {
  const ReshardConfig c = ConfigOf(p);
  const Shape from = ShapeWith(c.parameter, c.from);
  const Shape to = ShapeWith(c.parameter, c.to);
  return {Input("saved", p.dtype, from, By(c.parameter, c.from)),
          Output("loaded", p.dtype, to, By(c.parameter, c.to))
              .SampleDimension(1)
              .SignOfZero(),
          Output("back", p.dtype, from, By(c.parameter, c.from))
              .SampleDimension(1)
              .SignOfZero()};
}

// Rows of the parameter as they are, and zeros.
StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& /*arithmetic*/,
                                const Inputs& in, const Sample& sample) {
  const ReshardConfig c = ConfigOf(p);
  const int64_t saved_rows = ShapeWith(c.parameter, c.from)[1];
  DenseOutputs out;
  const std::vector<std::pair<std::string, ShardLayout>> outputs = {
      {"loaded", c.to}, {"back", c.from}};
  for (const auto& [name, layout] : outputs) {
    const Shape shape = ShapeWith(c.parameter, layout);
    Rows rows = RowsOf(sample, name);
    if (sample.find(name) == sample.end()) {
      for (int64_t i = 0; i < shape[1]; ++i) rows.push_back(i);
    }
    std::vector<double> row(static_cast<size_t>(shape[2]));
    for (int64_t l = 0; l < shape[0]; ++l) {
      for (const int64_t i : rows) {
        std::fill(row.begin(), row.end(), 0.0);
        if (i < c.parameter.rows) {
          in.Read("saved", 0, (l * saved_rows + i) * shape[2], row);
        }
        for (const double value : row) out[name].push_back({.value = value});
      }
    }
  }
  return out;
}

using Change = void (*)(ReshardConfig& config, ReshardRules& rules);

// There by `change`, and back as it should be.
StatusOr<Operation> BindWith(const P& p, RankContext& context,
                             const CollectiveFamily& collectives,
                             Change change) {
  ReshardConfig config = ConfigOf(p);
  const int rank = context.comm().rank();
  const auto shards = [&](const ShardLayout& layout, std::string_view tensor,
                          bool out) {
    std::vector<SavedShard> own;
    if (rank >= layout.shards()) return own;
    const int64_t bytes =
        out ? context.out(tensor).num_bytes() : context.in(tensor).num_bytes();
    own.push_back({.layout = layout, .shard = rank, .bytes = bytes});
    return own;
  };
  const ReshardConfig back_config = {config.parameter, config.to, config.from};
  SP_ASSIGN_OR_RETURN(
      Reshard back,
      Reshard::Create(context.comm(), back_config,
                      shards(config.to, "loaded", true), collectives));
  ReshardRules rules;
  if (change != nullptr) change(config, rules);
  SP_ASSIGN_OR_RETURN(
      Reshard there,
      Reshard::Create(context.comm(), config,
                      shards(config.from, "saved", false), collectives, rules));
  return Operation([there = std::make_shared<Reshard>(std::move(there)),
                    back = std::make_shared<Reshard>(std::move(back)), &context,
                    has_saved = rank < config.from.shards(),
                    has_loaded = rank < back_config.from.shards()]() -> Status {
    const void* const saved[] = {context.in("saved").data};
    const void* const loaded[] = {context.out("loaded").data};
    SP_RETURN_IF_ERROR(there->Run(std::span(saved).first(has_saved ? 1 : 0),
                                  context.out("loaded").data,
                                  context.stream()));
    return back->Run(std::span(loaded).first(has_loaded ? 1 : 0),
                     context.out("back").data, context.stream());
  });
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  return BindWith(p, context, collectives, nullptr);
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  const ReshardConfig c = ConfigOf(p);
  Cost cost;
  const std::pair<ShardLayout, ShardLayout> ways[] = {{c.from, c.to},
                                                      {c.to, c.from}};
  for (const auto& [from, to] : ways) {
    std::vector<int> owners;
    for (int n = 0; n < from.shards(); ++n) owners.push_back(n);
    const ReshardPlan plan =
        *PlanReshard({c.parameter, from, to}, owners, p.ranks);
    cost += ReshardCost(plan, p.ranks, p.dtype, collectives);
  }
  return cost;
}

// --- Planted bugs ------------------------------------------------------------

Mutant<P> Changed(std::string name, Change change,
                  std::function<bool(const P&)> applies) {
  Mutant<P> mutant;
  mutant.name = std::move(name);
  mutant.bind = [change](const P& p, RankContext& context) {
    return BindWith(p, context, kAutoCollectives, change);
  };
  mutant.applies = std::move(applies);
  return mutant;
}

// A fused parameter is cut like any other: rank r's rows are those after the
// rows of the ranks before it.
ShardPart CutInOnePiece(const ReshardedParameter& p, const ShardLayout& layout,
                        int shard) {
  ShardPart part = PartOf(p, layout, shard);
  int64_t begin = 0;
  for (int n = shard - layout.rank(shard); n < shard; ++n) {
    begin += PartOf(p, layout, n).extent();
  }
  const int64_t extent = part.extent();
  part.pieces = {{std::min(begin, p.rows - extent), extent}};
  return part;
}

// Gates and ups in the other order.
ShardPart InTheOtherOrder(const ReshardedParameter& p, ShardLayout layout,
                          int shard) {
  layout.gate_up = layout.gate_up == GateUpOrder::kStacked
                       ? GateUpOrder::kInterleaved
                       : GateUpOrder::kStacked;
  return PartOf(p, layout, shard);
}

// The KV heads of the neighbouring group.
ShardPart KvHeadsOfAnotherGroup(const ReshardedParameter& p,
                                const ShardLayout& layout, int shard) {
  ShardPart part = PartOf(p, layout, shard);
  const int64_t d = p.head_dim;
  Piece& keys = part.pieces[1];
  const bool last = keys.begin + keys.count + d > (p.heads + p.kv_heads) * d;
  for (size_t i : {1, 2}) part.pieces[i].begin += last ? -d : d;
  return part;
}

// Stages begin one layer late.
ShardPart StageOffByOne(const ReshardedParameter& p, const ShardLayout& layout,
                        int shard) {
  ShardPart part = PartOf(p, layout, shard);
  Chunk& layers = part.layers;
  layers.begin += layers.begin + layers.count < p.layers ? 1 : -1;
  return part;
}

// Parts are counted from the end.
ShardPart CutBackwards(const ReshardedParameter& p, const ShardLayout& layout,
                       int shard) {
  ShardPart part = PartOf(p, layout, shard);
  for (Piece& piece : part.pieces) {
    piece.begin = p.extent() - piece.begin - piece.count;
  }
  return part;
}

// What is padding both when saved and when loaded is taken for a part of the
// vocabulary.
void CarryPadding(ReshardConfig& config, ReshardRules& /*rules*/) {
  config.parameter.rows = std::min(ShapeWith(config.parameter, config.from)[1],
                                   ShapeWith(config.parameter, config.to)[1]);
}

bool CutTo(const P& p, ParameterCut cut) {
  const ReshardConfig c = ConfigOf(p);
  return c.to.tensor >= 2 && c.parameter.cut == cut;
}
bool CutsGateUp(const P& p) { return CutTo(p, ParameterCut::kGateUp); }
bool CutsQkv(const P& p) { return CutTo(p, ParameterCut::kQkv); }
bool CutsKvHeads(const P& p) { return CutsQkv(p) && HeadsOf(p).kv_heads == 4; }
bool HasGateUp(const P& p) { return Is(p, "gate_up"); }
bool CutsRows(const P& p) {
  return p.ranks >= 2 &&
         (CutTo(p, ParameterCut::kRows) || CutTo(p, ParameterCut::kColumns));
}
bool HasPadding(const P& p) { return Is(p, "vocabulary"); }
bool CutsLayers(const P& p) {
  const ReshardConfig c = ConfigOf(p);
  return c.to.pipeline >= 2 &&
         c.parameter.placement == StagePlacement::kEveryLayer;
}

std::optional<std::string> Skip(const P& p) {
  if (p.dtype != DType::kF32 && !Is(p, "qkv_gqa")) return "one type is enough";
  return std::nullopt;
}

int64_t BytesOf(const P& p) {
  const ReshardedParameter q = ParameterOf(p);
  return q.layers * q.rows * q.columns * SizeOf(p.dtype);
}

// A model's fused QKV weight of one layer, from half the ranks to all.
std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  const auto dtype = TypeOf(workload);
  P p{.parameter = "qkv_gqa",
      .from = "mesh",
      .hidden = ShapeOf(workload, "hidden"),
      .heads = ShapeOf(workload, "heads"),
      .kv_heads = ShapeOf(workload, "kv_heads"),
      .head_dim = ShapeOf(workload, "head_dim"),
      .layers = 1,
      .ranks = ranks};
  if (!dtype.ok() || p.hidden * p.heads * p.kv_heads * p.head_dim == 0 ||
      p.heads < ranks) {
    return {};
  }
  p.dtype = *dtype;
  return {p};
}

const RegisterCase kReshard(
    Case<P>{
        .name = "layers/reshard",
        .what =
            "weights saved at one (t, p) load at another, and go back: each "
            "rank gets the intervals that it lacks from the ranks that have "
            "them",
        .axes = {Axis("dtype", &P::dtype,
                      {DType::kF32, DType::kF64, DType::kBF16, DType::kF16,
                       DType::kE4M3, DType::kE5M2, DType::kI8, DType::kU8,
                       DType::kI32, DType::kI64})
                     .Bench({DType::kBF16}),
                 Axis("parameter", &P::parameter,
                      {"qkv_gqa", "qkv_mha", "qkv_mqa", "qkv_bias",
                       "gate_up_ss", "gate_up_si", "gate_up_is", "gate_up_ii",
                       "vocabulary", "vocabulary_last", "rows", "columns",
                       "norm"})
                     .Bench({"qkv_gqa", "gate_up_is", "rows", "columns"})
                     .Smoke({"qkv_gqa"}),
                 Axis("from", &P::from, {"part", "mesh", "pipeline"}),
                 Axis("to", &P::to, {"tensor", "mesh"}),
                 Axis("hidden", &P::hidden, {6}).Bench({512})},
        .skip = Skip,
        .tensors = TensorsOf,
        .reference = DenseReference<P>(Expected),
        .variants = OverCollectives<P>(Bind, CostOf),
        .mutants = {Changed(
                        "qkv_cut_in_one_piece",
                        [](ReshardConfig&, ReshardRules& r) {
                          r.to = CutInOnePiece;
                        },
                        CutsQkv),
                    Changed(
                        "gate_up_cut_in_one_piece",
                        [](ReshardConfig&, ReshardRules& r) {
                          r.to = CutInOnePiece;
                        },
                        CutsGateUp),
                    Changed(
                        "gate_and_up_swapped",
                        [](ReshardConfig&, ReshardRules& r) {
                          r.from = [](const ReshardedParameter& p,
                                      const ShardLayout& layout, int shard) {
                            return InTheOtherOrder(p, layout, shard);
                          };
                        },
                        HasGateUp),
                    Changed(
                        "kv_heads_of_another_group",
                        [](ReshardConfig&, ReshardRules& r) {
                          r.to = KvHeadsOfAnotherGroup;
                        },
                        CutsKvHeads),
                    Changed("padding_carried_along", CarryPadding, HasPadding),
                    Changed(
                        "stage_off_by_one",
                        [](ReshardConfig&, ReshardRules& r) {
                          r.to = StageOffByOne;
                        },
                        CutsLayers),
                    Changed(
                        "cut_backwards",
                        [](ReshardConfig&,
                           ReshardRules& r) { r.to = CutBackwards; },
                        CutsRows)},
        .bounded = false,  // Nothing is rounded.
        .bytes = BytesOf,
        .floor =
            [](const P& p) {
              return Floor{.copy_bytes =
                               4.0 * static_cast<double>(BytesOf(p)) / p.ranks};
            },
        .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
