// The pairing of vocab_parallel_embedding and of the tied output projection:
// axes, reference, variants, planted bugs.
#include "tools/harness/case.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/kernels/embedding.h"
#include "layers/pairing/layer_case.h"
#include "layers/vocab_parallel_embedding/vocab_parallel_embedding.h"
#include "reference/embedding.h"
#include "reference/linear.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  bool sequence_parallel = false;
  bool tied = false;
  int64_t tokens = 0;
  int64_t vocabulary = 0;
  int64_t multiple = 1;
  int64_t hidden = 0;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

VocabEmbeddingConfig ConfigOf(const P& p) {
  return {.vocabulary = p.vocabulary,
          .hidden = p.hidden,
          .tokens = p.tokens,
          .multiple = p.multiple,
          .dtype = p.dtype,
          .sequence_parallel = p.sequence_parallel};
}

VocabPartition CutOf(const P& p, int rank = 0) {
  return VocabPartition::Of(p.vocabulary, p.multiple, p.ranks, rank);
}

// --- Tensors -----------------------------------------------------------------

struct ExactData {
  Distribution table, dy, x, dlogits;
};

// Every sum is below 2^t: that of the two uses in dtable too, even if all ids
// are the same.
ExactData ExactOf(const P& p) {
  const int64_t padded = CutOf(p).padded;
  const int64_t limit =
      (int64_t{1} << std::min(SignificandBits(p.dtype), 52)) - 1;
  // How many tokens count where one in `tile` draws.
  const auto terms = [&](int64_t tile) {
    return std::max<int64_t>((p.tokens + tile - 1) / tile, 1);
  };
  int64_t left = limit;
  ExactData data;
  data.table = {.kind = Distribution::Kind::kInteger,
                .dtype = p.dtype,
                .magnitude = limit};
  if (p.tied) {
    ExactLinearInputs linear =
        *ExactLinear(p.dtype, p.dtype, p.tokens, p.hidden, padded);
    const auto used = [&] {
      return terms(linear.dy.tile) * linear.dy.magnitude * linear.x.magnitude;
    };
    while (2 * used() > limit && linear.dy.tile < p.tokens) {
      linear.dy.tile *= 2;
      linear.dy.columns = padded;
    }
    left -= used();
    data.table = linear.w;
    data.x = linear.x;
    data.dlogits = linear.dy;
  }
  data.dy = {.kind = Distribution::Kind::kInteger, .dtype = p.dtype};
  while (terms(data.dy.tile) > left) data.dy.tile *= 2;
  if (data.dy.tile > 1) data.dy.columns = p.hidden;
  data.dy.magnitude = left / terms(data.dy.tile);
  return data;
}

// Inputs in the order in which they are used, then outputs.
Tensors TensorsOf(const P& p) {
  const ExactData exact = ExactOf(p);
  const int64_t padded = CutOf(p).padded;
  const Sharding tokens = p.sequence_parallel ? Shard(0) : Replicated();
  const Shape activation = {p.tokens, p.hidden}, table = {padded, p.hidden};
  Tensors tensors = {
      Input("ids", DType::kI64, {p.tokens}, Replicated())
          .Data({.ids_below = p.vocabulary}),
      Input("table", p.dtype, table, Shard(0)).Data({.exact = exact.table}),
      Input("dy", p.dtype, activation, tokens).Data({.exact = exact.dy})};
  if (p.tied) {
    tensors.push_back(
        Input("x", p.dtype, activation, tokens).Data({.exact = exact.x}));
    tensors.push_back(Input("dlogits", p.dtype, {p.tokens, padded}, Shard(1))
                          .Data({.exact = exact.dlogits}));
  }
  tensors.push_back(
      Output("y", p.dtype, activation, tokens).SampleDimension(0));
  // A few tokens leave most rows without a gradient, so columns are sampled;
  // where the projection gives every row one, rows are.
  tensors.push_back(Output("dtable", p.dtype, table, Shard(0))
                        .Gradient()
                        .SampleDimension(p.tied ? 0 : 1));
  if (!p.tied) return tensors;
  tensors.push_back(Output("logits", p.dtype, {p.tokens, padded}, Shard(1))
                        .SampleDimension(0));
  tensors.push_back(
      Output("dx", p.dtype, activation, tokens).Gradient().SampleDimension(0));
  return tensors;
}

// --- The reference -----------------------------------------------------------

// Columns of a matrix; of none, all.
Tensor ColumnsOf(ConstTensorView matrix, const Rows& columns) {
  const int64_t width = matrix.shape[1];
  Rows kept = columns;
  for (int64_t j = 0; columns.empty() && j < width; ++j) kept.push_back(j);
  const auto kept_width = static_cast<int64_t>(kept.size());
  Tensor out(matrix.dtype, {matrix.shape[0], kept_width});
  const auto bytes = static_cast<size_t>(SizeOf(matrix.dtype));
  for (int64_t i = 0; i < matrix.shape[0]; ++i) {
    for (int64_t j = 0; j < kept_width; ++j) {
      std::memcpy(At(out.raw(), matrix.dtype, i * kept_width + j),
                  At(matrix.data, matrix.dtype,
                     i * width + kept[static_cast<size_t>(j)]),
                  bytes);
    }
  }
  return out;
}

// The rows of the table that `tokens` (none: all) look up, one for each. Of a
// large table they are few, and the others are not made.
Tensor RowsLookedUp(const P& p, const Inputs& in, std::span<const int64_t> ids,
                    const Rows& tokens) {
  const int64_t n =
      tokens.empty() ? p.tokens : static_cast<int64_t>(tokens.size());
  Tensor rows(p.dtype, {n, p.hidden});
  std::vector<double> row(static_cast<size_t>(p.hidden));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t token = tokens.empty() ? i : tokens[static_cast<size_t>(i)];
    in.Read("table", 0, ids[static_cast<size_t>(token)] * p.hidden, row);
    FromDouble(p.dtype, row.data(), p.hidden,
               At(rows.raw(), p.dtype, i * p.hidden));
  }
  return rows;
}

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample) {
  Arithmetic local = summed;
  local.partials = 1;
  const ConstTensorView dy = in.Global("dy");
  const std::span<const int64_t> ids(in.Global("ids").as<int64_t>(),
                                     static_cast<size_t>(p.tokens));
  const Rows sampled = RowsOf(sample, "dtable");
  const int64_t padded = CutOf(p).padded;
  DenseOutputs out;
  if (!p.tied) {
    const Tensor rows = RowsLookedUp(p, in, ids, RowsOf(sample, "y"));
    std::vector<int64_t> in_order(static_cast<size_t>(rows.shape()[0]));
    std::iota(in_order.begin(), in_order.end(), 0);
    out["y"] = EmbeddingForward(rows.view(), in_order).values;
    const Tensor dy_columns = ColumnsOf(dy, sampled);
    out["dtable"] = EmbeddingGrad(ids, dy_columns.view(), padded, local).values;
    return out;
  }
  const ConstTensorView table = in.Global("table");
  out["y"] = EmbeddingForward(table, ids, RowsOf(sample, "y")).values;
  const ConstTensorView x = in.Global("x"), dlogits = in.Global("dlogits");
  Matrix projection = LinearWeightGrad(dlogits, x, local, sampled);
  for (size_t k = 0; k < projection.rows.size(); ++k) {
    if (projection.rows[k] < p.vocabulary) continue;
    for (int64_t j = 0; j < projection.cols; ++j) {
      projection.at(static_cast<int64_t>(k), j) = Bounded{};
    }
  }
  out["dtable"] =
      EmbeddingGrad(ids, dy, padded, local, sampled, &projection).values;
  out["logits"] =
      LinearForward({x, table}, local, RowsOf(sample, "logits")).values;
  out["dx"] =
      LinearInputGrad(dlogits, table, summed, RowsOf(sample, "dx")).values;
  return out;
}

// --- The variants ------------------------------------------------------------

struct Layers {
  VocabParallelEmbedding embedding;
  std::optional<TiedOutputProjection> projection;
};

StatusOr<std::shared_ptr<Layers>> Make(const P& p, const RankContext& context,
                                       const CollectiveFamily& collectives) {
  SP_ASSIGN_OR_RETURN(
      VocabParallelEmbedding embedding,
      VocabParallelEmbedding::Create(context.comm(), ConfigOf(p), collectives));
  const auto layers =
      std::make_shared<Layers>(Layers{std::move(embedding), std::nullopt});
  if (!p.tied) return layers;
  SP_ASSIGN_OR_RETURN(
      layers->projection,
      TiedOutputProjection::Create(context.comm(), ConfigOf(p), collectives));
  return layers;
}

const int64_t* IdsOf(const RankContext& c) { return c.in("ids").as<int64_t>(); }

Status LookUp(Layers& layers, const RankContext& c) {
  return layers.embedding.Forward(
      {IdsOf(c), c.in("table").data, c.out("y").data}, c.stream());
}
Status AddGradient(Layers& layers, const RankContext& c, bool accumulate) {
  return layers.embedding.Backward(
      {IdsOf(c), c.in("dy").data, c.out("dtable").data, accumulate},
      c.stream());
}
Status Project(const Layers& layers, const RankContext& c) {
  const void* const x = c.in("x").data;
  const void* const table = c.in("table").data;
  SP_RETURN_IF_ERROR(
      layers.projection->Forward({x, table, c.out("logits").data}, c.stream()));
  return layers.projection->Backward(
      {x, table, c.in("dlogits").data, c.out("dx").data, c.out("dtable").data},
      c.stream());
}

// In the order of a training step.
Status RunAll(Layers& layers, const P& p, const RankContext& c) {
  SP_RETURN_IF_ERROR(LookUp(layers, c));
  if (p.tied) SP_RETURN_IF_ERROR(Project(layers, c));
  return AddGradient(layers, c, /*accumulate=*/p.tied);
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  SP_ASSIGN_OR_RETURN(const auto layers, Make(p, context, collectives));
  return Operation(
      [layers, p, &context] { return RunAll(*layers, p, context); });
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  const VocabEmbeddingConfig config = ConfigOf(p);
  Cost cost = VocabEmbeddingForwardCost(p.ranks, config, collectives) +
              VocabEmbeddingBackwardCost(p.ranks, config, collectives);
  if (!p.tied) return cost;
  return cost + TiedProjectionForwardCost(p.ranks, config, collectives) +
         TiedProjectionBackwardCost(p.ranks, config, collectives);
}

// --- Planted bugs ------------------------------------------------------------
// Plain, so that every rank has all tokens: what is spoiled is local.

EmbeddingShape ShapeOf(const P& p, const RankContext& c) {
  const VocabPartition cut = CutOf(p, c.comm().rank());
  return {.dtype = p.dtype,
          .tokens = p.tokens,
          .hidden = p.hidden,
          .begin = cut.begin,
          .rows = cut.rows};
}

using Ids = std::vector<int64_t>;

Ids CopyOfIds(const P& p, const RankContext& c) {
  return {IdsOf(c), IdsOf(c) + p.tokens};
}

// Those of other ranks point to row 0 of this one, and nobody masks them.
Ids OutsideToRow0(const P& p, const RankContext& c) {
  const EmbeddingShape shape = ShapeOf(p, c);
  Ids ids = CopyOfIds(p, c);
  for (int64_t& id : ids) {
    if (id < shape.begin || id >= shape.begin + shape.rows) id = shape.begin;
  }
  return ids;
}

Status LookUpAgain(const P& p, const RankContext& c,
                   const EmbeddingShape& shape, const Ids& ids) {
  void* const y = c.out("y").data;
  SP_RETURN_IF_ERROR(
      EmbeddingLookup(c.stream(), shape, ids.data(), c.in("table").data, y));
  return AllReduce(
      c.comm(),
      {.send = y, .recv = y, .count = p.tokens * p.hidden, .dtype = p.dtype});
}

Status AddAgain(const P& p, const RankContext& c, const Ids& ids) {
  const EmbeddingShape shape = ShapeOf(p, c);
  Ids order(static_cast<size_t>(p.tokens));
  Ids starts(static_cast<size_t>(shape.rows) + 1);
  return EmbeddingGradient(c.stream(), shape, ids.data(), c.in("dy").data,
                           false, {.order = order, .starts = starts},
                           c.out("dtable").data);
}

Status OutsideLookedUpAsRow0(const P& p, const RankContext& c) {
  return LookUpAgain(p, c, ShapeOf(p, c), OutsideToRow0(p, c));
}

Status OutsideAddedToRow0(const P& p, const RankContext& c) {
  return AddAgain(p, c, OutsideToRow0(p, c));
}

// The last of several equal ids wins.
Status RepeatedOverwritten(const P& p, const RankContext& c) {
  Ids ids = CopyOfIds(p, c);
  for (auto id = ids.begin(); id != ids.end(); ++id) {
    if (std::find(id + 1, ids.end(), *id) != ids.end()) *id = -1;
  }
  return AddAgain(p, c, ids);
}

// The table is padded and cut, the ids are not: a rank looks for those of a
// balanced cut of the vocabulary.
Status CutWithoutPadding(const P& p, const RankContext& c) {
  EmbeddingShape shape = ShapeOf(p, c);
  const Chunk own = BalancedChunk(p.vocabulary, p.ranks, c.comm().rank());
  shape.begin = own.begin;
  shape.rows = std::min(shape.rows, own.count);
  return LookUpAgain(p, c, shape, CopyOfIds(p, c));
}

// What follows works on the two uses of a tied table: `run` in the place of
// RunAll, with the collectives of the projection.
Mutant<P> Untied(
    std::string name,
    std::function<Status(Layers&, const P&, const RankContext&)> run,
    std::function<bool(const P&)> applies) {
  Mutant<P> mutant;
  mutant.name = std::move(name);
  mutant.bind = [run = std::move(run)](
                    const P& p, RankContext& context) -> StatusOr<Operation> {
    SP_ASSIGN_OR_RETURN(const auto layers, Make(p, context, kAutoCollectives));
    return Operation(
        [layers, run, p, &context] { return run(*layers, p, context); });
  };
  mutant.applies = std::move(applies);
  return mutant;
}

// The embedding's backward pass overwrites what the projection's has left.
Status ProjectionsGradientLost(Layers& layers, const P&, const RankContext& c) {
  SP_RETURN_IF_ERROR(LookUp(layers, c));
  SP_RETURN_IF_ERROR(Project(layers, c));
  return AddGradient(layers, c, /*accumulate=*/false);
}

Status EmbeddingsGradientLost(Layers& layers, const P&, const RankContext& c) {
  SP_RETURN_IF_ERROR(LookUp(layers, c));
  return Project(layers, c);
}

// The gradients of the two uses are added over a group in which the ranks have
// another order.
Status GradientsOfOtherShards(Layers& layers, const P& p,
                              const RankContext& c) {
  SP_RETURN_IF_ERROR(LookUp(layers, c));
  SP_RETURN_IF_ERROR(Project(layers, c));
  const TensorView dtable = c.out("dtable");
  Tensor all(p.dtype, {CutOf(p).padded, p.hidden});
  SP_RETURN_IF_ERROR(AllGather(c.comm(), {.send = dtable.data,
                                          .recv = all.raw(),
                                          .count = dtable.num_elements(),
                                          .dtype = p.dtype}));
  const int next = (c.comm().rank() + 1) % p.ranks;
  std::copy_n(At(all.raw(), p.dtype, next * dtable.num_elements()),
              dtable.num_bytes(), static_cast<std::byte*>(dtable.data));
  return AddGradient(layers, c, /*accumulate=*/true);
}

// Two uses, so half of each.
Status GradientsAveraged(const P&, const RankContext& c) {
  return Scale(c.out("dtable"), 0.5);
}

bool Several(const P& p) { return p.ranks >= 2; }
bool SequenceParallel(const P& p) {
  return p.ranks >= 2 && p.sequence_parallel;
}
bool Plain(const P& p) { return p.ranks >= 2 && !p.sequence_parallel; }
bool PlainUntied(const P& p) { return Plain(p) && !p.tied; }
bool Tied(const P& p) { return p.ranks >= 2 && p.tied; }

// --- The case ----------------------------------------------------------------

std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  const auto dtype = TypeOf(workload);
  P p{.sequence_parallel = FactOf(workload, "sequence_parallel") == "true",
      .tokens = ShapeOf(workload, "tokens"),
      .vocabulary = ShapeOf(workload, "vocabulary"),
      .multiple = 128,
      .hidden = ShapeOf(workload, "hidden"),
      .ranks = ranks};
  if (!dtype.ok() || p.tokens * p.vocabulary * p.hidden == 0) return {};
  p.dtype = *dtype;
  return {p};
}

double Flops(const P& p) {
  if (!p.tied) return 0;
  return 6.0 * static_cast<double>(p.tokens) * static_cast<double>(p.hidden) *
         static_cast<double>(CutOf(p).padded);
}

// Its share of the rows is read, y written, dy read, and its share of dtable
// written.
Floor FloorOf(const P& p) {
  const auto rows = static_cast<double>(p.tokens) * (2 + 1.0 / p.ranks) +
                    static_cast<double>(CutOf(p).rows);
  return {.copy_bytes = rows * static_cast<double>(p.hidden) * SizeOf(p.dtype),
          .flops = Flops(p) / p.ranks};
}

// Few tokens go with few ids: ranks with padding only, or without tokens.
std::optional<std::string> Skip(const P& p) {
  if ((p.tokens == 2 && p.vocabulary == 21) ||
      (p.tokens == 33 && p.vocabulary == 3)) {
    return "one size small, the other not, shows nothing more";
  }
  return std::nullopt;
}

const RegisterCase kVocabParallelEmbedding(Case<P>{
    .name = "layers/vocab_parallel_embedding",
    .what = "rows of a table that is cut by vocabulary: sums y over ranks "
            "forward; sequence-parallel scatters y, gathers dy; tied: logits "
            "with the same table, and its gradient of both uses",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32, DType::kBF16}),
             Axis("sequence_parallel", &P::sequence_parallel, {false, true})
                 .Smoke({false, true}),
             Axis("tied", &P::tied, {false, true}).Smoke({false, true}),
             Axis("tokens", &P::tokens, {33, 2}).Bench({512}),
             Axis("vocabulary", &P::vocabulary, {21, 3}).Bench({8000}),
             Axis("multiple", &P::multiple, {1, 4}).Bench({128}),
             Axis("hidden", &P::hidden, {19}).Bench({1024})},
    .skip = Skip,
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = OverCollectives<P>(Bind, CostOf),
    .mutants =
        {Planted<P>("sums_left_partial", Bind, kWithoutReduction, Several),
         Planted<P>("sums_averaged", Bind, kAveraging, Several),
         Planted<P>("tokens_not_gathered", Bind, kGatheringNothing,
                    SequenceParallel),
         Planted<P>("tokens_gathered_backwards", Bind, kGatheringBackwards,
                    SequenceParallel),
         Spoiled<P>("outside_ids_looked_up_as_row_0", Bind,
                    OutsideLookedUpAsRow0, Plain),
         Spoiled<P>("outside_ids_added_to_row_0", Bind, OutsideAddedToRow0,
                    PlainUntied),
         Spoiled<P>("repeated_ids_overwritten", Bind, RepeatedOverwritten,
                    PlainUntied),
         Spoiled<P>("cut_without_padding", Bind, CutWithoutPadding, Plain),
         Untied("tied_gradient_of_projection_lost", ProjectionsGradientLost,
                Tied),
         Untied("tied_gradient_of_embedding_lost", EmbeddingsGradientLost,
                Tied),
         Untied("tied_gradients_of_mismatched_shards", GradientsOfOtherShards,
                Tied),
         Spoiled<P>("tied_gradients_averaged", Bind, GradientsAveraged, Tied)},
    .flops = Flops,
    .floor = FloorOf,
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
