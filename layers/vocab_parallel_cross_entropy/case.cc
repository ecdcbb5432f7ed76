// The pairing of vocab_parallel_cross_entropy: axes, reference, variants,
// planted bugs.
#include "tools/harness/case.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "layers/pairing/layer_case.h"
#include "layers/vocab_parallel_cross_entropy/vocab_parallel_cross_entropy.h"
#include "reference/cross_entropy.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  double smoothing = 0;
  double scale = 1;  // Of the logits.
  int data_parallel = 1;
  bool mean = true;  // Or upstream gradients per token.
  bool in_place = false;
  int64_t tokens = 0;  // Of all data-parallel ranks together.
  int64_t vocabulary = 0;
  int64_t multiple = 1;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

constexpr int64_t kIgnored = -100;

int TensorParallel(const P& p) { return p.ranks / p.data_parallel; }
DType LossType(const P& p) { return Accumulator(p.dtype); }

VocabPartition CutOf(const P& p, int rank) {
  return VocabPartition::Of(p.vocabulary, p.multiple, TensorParallel(p),
                            rank % TensorParallel(p));
}

// The tokens of data-parallel rank g are in proportion to g + 1.
Interval TokensOf(const P& p, int group) {
  const int64_t parts = p.data_parallel * (p.data_parallel + 1) / 2;
  const auto begin = [&](int64_t g) {
    return p.tokens * (g * (g + 1) / 2) / parts;
  };
  return {begin(group), begin(group + 1)};
}

Interval TokensOfRank(const P& p, int rank) {
  return TokensOf(p, rank / TensorParallel(p));
}

VocabCrossEntropyConfig ConfigOf(const P& p, int rank = 0) {
  const Interval tokens = TokensOfRank(p, rank);
  return {.tokens = tokens.end - tokens.begin,
          .vocabulary = p.vocabulary,
          .multiple = p.multiple,
          .dtype = p.dtype,
          .smoothing = p.smoothing,
          .ignore_index = kIgnored,
          .per_token = !p.mean};
}

// Targets from the vocabulary on stand for kIgnored: about a quarter.
int64_t TargetRange(const P& p) { return p.vocabulary + p.vocabulary / 3 + 1; }

std::vector<int64_t> TargetsFrom(const P& p, const ConstTensorView& ids) {
  std::vector<int64_t> targets(static_cast<size_t>(ids.num_elements()));
  std::transform(ids.as<int64_t>(), ids.as<int64_t>() + ids.num_elements(),
                 targets.begin(),
                 [&](int64_t id) { return id < p.vocabulary ? id : kIgnored; });
  return targets;
}

// Inputs in the order in which they are used, then outputs.
Tensors TensorsOf(const P& p) {
  const int64_t padded = CutOf(p, 0).padded;
  const Sharding whole = Replicated();
  const Sharding rows =
      ShardBy("by data-parallel rank", [p](const Shape&, int rank, int) {
        return MakeBlock({{TokensOfRank(p, rank)}});
      });
  const Sharding cut = ShardBy(
      "by data-parallel rank and column", [p](const Shape&, int rank, int) {
        const VocabPartition own = CutOf(p, rank);
        return MakeBlock({{TokensOfRank(p, rank)},
                          {Interval{own.begin, own.begin + own.rows}}});
      });
  const Sharding tokens = p.data_parallel == 1 ? whole : rows;
  return {Input("logits", p.dtype, {p.tokens, padded}, cut)
              .Data({.scale = p.scale}),
          Input("targets", DType::kI64, {p.tokens}, tokens)
              .Data({.ids_below = TargetRange(p)}),
          p.mean ? Input("upstream", LossType(p), {1}, whole)
                 : Input("upstream", LossType(p), {p.tokens}, tokens),
          Output("loss", LossType(p), {p.tokens}, tokens),
          Output("mean", LossType(p), {1}, whole),
          Output("dlogits", p.dtype, {p.tokens, padded}, cut)
              .InPlaceOf(p.in_place ? "logits" : "")
              .Gradient()
              .SampleDimension(0)};
}

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample) {
  Arithmetic a = Arithmetic::For(p.dtype, TensorParallel(p));
  a.depth = summed.depth;
  const std::vector<int64_t> targets = TargetsFrom(p, in.Global("targets"));
  const CrossEntropyResult r =
      CrossEntropyReference({.logits = in.Global("logits"),
                             .targets = targets,
                             .vocabulary = p.vocabulary,
                             .ignore_index = kIgnored,
                             .smoothing = p.smoothing,
                             .upstream = in.Global("upstream"),
                             .per_token = !p.mean},
                            a,
                            {.tokens = RowsOf(sample, "dlogits"),
                             .rescalings = VocabCrossEntropyRescalings(
                                 TensorParallel(p), ConfigOf(p))});
  return DenseOutputs{
      {"loss", r.loss}, {"mean", {r.mean}}, {"dlogits", r.dlogits.values}};
}

// --- The variants ------------------------------------------------------------

// Kept with the communicator of all, so they must not refer to it: no Mesh.
struct Groups {
  Communicator tp;  // The ranks with the same tokens.
  Communicator dp;  // Those with the same columns.
};

StatusOr<Groups*> GroupsOf(const P& p, const RankContext& c) {
  const Communicator& all = c.comm();
  return all.Attribute<Groups>(
      fmt::format("vocab_parallel_cross_entropy {}", p.data_parallel),
      [&]() -> StatusOr<Groups> {
        const int t = TensorParallel(p), rank = all.rank();
        Groups groups;
        SP_ASSIGN_OR_RETURN(groups.tp, all.Split(rank / t, rank));
        SP_ASSIGN_OR_RETURN(groups.dp, all.Split(rank % t, rank));
        return groups;
      });
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  SP_ASSIGN_OR_RETURN(const Groups* const groups, GroupsOf(p, context));
  const Communicator* const data = p.data_parallel > 1 ? &groups->dp : nullptr;
  SP_ASSIGN_OR_RETURN(
      VocabParallelCrossEntropy made,
      VocabParallelCrossEntropy::Create(
          groups->tp, ConfigOf(p, context.comm().rank()), data, collectives));
  const auto layer =
      std::make_shared<VocabParallelCrossEntropy>(std::move(made));
  return Operation([layer, p, &c = context]() -> Status {
    const std::vector<int64_t> targets = TargetsFrom(p, c.in("targets"));
    SP_RETURN_IF_ERROR(
        layer->Forward({c.in("logits").data, targets.data(), c.out("loss").data,
                        c.out("mean").data}));
    return layer->Backward({c.in("logits").data, targets.data(),
                            c.in("upstream").data, c.out("dlogits").data});
  });
}

// As often as there are groups of the other kind.
Cost Times(Cost cost, int groups) {
  cost.total.bytes *= groups;
  cost.total.messages *= groups;
  return cost;
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  const int t = TensorParallel(p);
  Cost cost;
  for (int group = 0; group < p.data_parallel; ++group) {
    const Cost one =
        VocabCrossEntropyCost(t, ConfigOf(p, group * t), collectives);
    // The last has the most tokens; the others work beside it.
    const Traffic before = cost.total;
    cost = one;
    cost.total += before;
  }
  if (p.data_parallel == 1) return cost;
  return cost +
         Times(VocabCrossEntropyDataCost(p.data_parallel, collectives), t);
}

// --- The gathered form, and the bugs that it may have ------------------------
// Every rank gathers all logits of its tokens and computes the whole loss.

enum class Flaw {
  kNone,
  kLocalSmoothing,     // Shared out over the rank's columns only.
  kLogT,               // The sum counts every column t times.
  kAllTokens,          // Divided by all tokens, ignored ones too.
  kMeanOfMeans,        // Of the means of the data-parallel ranks.
  kOwnCount,           // Divided by the tokens of this group.
  kIgnoredCounted,     // Ignored tokens have the target 0.
  kMaxNotSubtracted,   //
  kPaddingCounted,     //
  kLocalTarget,        // Logits of ids of other ranks: column 0 of the own.
  kSmoothingUnscaled,  // 1 at the target, not 1 - smoothing.
};

class Gathered {
 public:
  Gathered(const P& p, RankContext& c, const Groups& groups, Flaw flaw)
      : p_(p),
        c_(c),
        tp_(groups.tp),
        dp_(groups.dp),
        flaw_(flaw),
        cut_(CutOf(p, c.comm().rank())) {
    const Interval tokens = TokensOfRank(p, c.comm().rank());
    tokens_ = tokens.end - tokens.begin;
  }

  Status Run() {
    SP_RETURN_IF_ERROR(Gather());
    std::vector<int64_t> targets = TargetsFrom(p_, c_.in("targets"));
    if (flaw_ == Flaw::kIgnoredCounted) {
      std::replace(targets.begin(), targets.end(), kIgnored, int64_t{0});
    }
    std::vector<double> losses, gradients, upstream(Read(c_.in("upstream")));
    double total = 0, count = 0;
    for (int64_t i = 0; i < tokens_; ++i) {
      const bool counts = targets[i] != kIgnored;
      losses.push_back(counts ? Loss(i, targets[i]) : 0);
      total += Round(LossType(p_), losses.back());
      count += counts || flaw_ == Flaw::kAllTokens ? 1 : 0;
    }
    SP_ASSIGN_OR_RETURN(const double all, Count(count));
    SP_ASSIGN_OR_RETURN(const double mean, Mean(total, count, all));
    for (int64_t i = 0; i < tokens_; ++i) {
      const double w = p_.mean ? upstream[0] / std::max(all, 1.0) : upstream[i];
      for (int64_t k = 0; k < cut_.rows; ++k) {
        gradients.push_back(targets[i] == kIgnored
                                ? 0
                                : w * Slope(i, cut_.begin + k, targets[i]));
      }
    }
    Write(losses, c_.out("loss"));
    Write({mean}, c_.out("mean"));
    Write(gradients, c_.out("dlogits"));
    return OkStatus();
  }

 private:
  static std::vector<double> Read(const ConstTensorView& t) {
    std::vector<double> values(static_cast<size_t>(t.num_elements()));
    ToDouble(t.dtype, t.data, t.num_elements(), values.data());
    return values;
  }
  static void Write(const std::vector<double>& values, const TensorView& t) {
    FromDouble(t.dtype, values.data(), t.num_elements(), t.data);
  }

  Status Gather() {
    const ConstTensorView own = c_.in("logits");
    Tensor all(p_.dtype, {tp_.size(), tokens_, cut_.rows});
    SP_RETURN_IF_ERROR(AllGather(tp_, {.send = own.data,
                                       .recv = all.raw(),
                                       .count = own.num_elements(),
                                       .dtype = p_.dtype}));
    logits_ = Read(all.view());
    max_.clear();
    sum_.clear();
    Summarise();
    return OkStatus();
  }

  int64_t Columns() const {
    return flaw_ == Flaw::kPaddingCounted ? cut_.padded : p_.vocabulary;
  }
  double At(int64_t token, int64_t column) const {
    const int64_t rank = column / cut_.rows;
    return logits_[(rank * tokens_ + token) * cut_.rows + column % cut_.rows];
  }
  // Once for each token, before anything else.
  void Summarise() {
    for (int64_t i = 0; i < tokens_; ++i) {
      double max = At(i, 0), sum = 0;
      for (int64_t j = 1; j < Columns(); ++j) max = std::max(max, At(i, j));
      if (flaw_ == Flaw::kMaxNotSubtracted) max = 0;
      for (int64_t j = 0; j < Columns(); ++j) sum += std::exp(At(i, j) - max);
      max_.push_back(max);
      sum_.push_back(flaw_ == Flaw::kLogT ? sum * tp_.size() : sum);
    }
  }
  double WeightOf(int64_t column, int64_t target) const {
    const double over = static_cast<double>(
        flaw_ == Flaw::kLocalSmoothing ? cut_.rows : Columns());
    const double rest =
        flaw_ == Flaw::kSmoothingUnscaled ? 1 : 1 - p_.smoothing;
    return p_.smoothing / over + (column == target ? rest : 0);
  }
  double Loss(int64_t token, int64_t target) const {
    if (flaw_ == Flaw::kLocalTarget &&
        (target < cut_.begin || target >= cut_.begin + cut_.rows)) {
      target = cut_.begin;
    }
    double loss = std::log(sum_[token]);
    for (int64_t j = 0; j < Columns(); ++j) {
      loss += WeightOf(j, target) * (max_[token] - At(token, j));
    }
    return loss;
  }
  // Of the loss, by a logit.
  double Slope(int64_t token, int64_t column, int64_t target) const {
    if (column >= Columns()) return 0;
    return std::exp(At(token, column) - max_[token]) / sum_[token] -
           WeightOf(column, target);
  }

  StatusOr<double> SumOverGroups(double value) const {
    SP_RETURN_IF_ERROR(AllReduce(
        dp_,
        {.send = &value, .recv = &value, .count = 1, .dtype = DType::kF64}));
    return value;
  }
  StatusOr<double> Count(double own) const {
    return flaw_ == Flaw::kOwnCount ? StatusOr<double>(own)
                                    : SumOverGroups(own);
  }
  StatusOr<double> Mean(double total, double own, double all) const {
    if (flaw_ == Flaw::kMeanOfMeans) {
      total *= 1 / std::max(own, 1.0);
      all = p_.data_parallel;
    }
    SP_ASSIGN_OR_RETURN(const double sum, SumOverGroups(total));
    return sum / std::max(all, 1.0);
  }

  const P p_;
  RankContext& c_;
  const Communicator tp_, dp_;
  const Flaw flaw_;
  const VocabPartition cut_;
  int64_t tokens_;
  std::vector<double> logits_;  // [t, tokens, rows]
  std::vector<double> max_, sum_;
};

StatusOr<Operation> BindGathered(const P& p, RankContext& context, Flaw flaw) {
  SP_ASSIGN_OR_RETURN(const Groups* const groups, GroupsOf(p, context));
  const auto gathered = std::make_shared<Gathered>(p, context, *groups, flaw);
  return Operation([gathered] { return gathered->Run(); });
}

Mutant<P> Flawed(std::string name, Flaw flaw,
                 std::function<bool(const P&)> applies) {
  Mutant<P> mutant;
  mutant.name = std::move(name);
  mutant.bind = [flaw](const P& p, RankContext& context) {
    return BindGathered(p, context, flaw);
  };
  mutant.applies = std::move(applies);
  return mutant;
}

std::vector<Variant<P>> Variants() {
  std::vector<Variant<P>> variants = OverCollectives<P>(Bind, CostOf);
  Variant<P> gathered;
  gathered.name = "gathered";
  gathered.note = "gathers the logits and computes all of the loss everywhere";
  gathered.bind = [](const P& p, RankContext& context) {
    return BindGathered(p, context, Flaw::kNone);
  };
  gathered.refuses = [](const P& p) -> std::optional<std::string> {
    if (p.vocabulary <= 1000) return std::nullopt;
    return "written for checks, not for speed: up to 1000 ids";
  };
  variants.push_back(std::move(gathered));
  return variants;
}

bool Always(const P&) { return true; }
bool Several(const P& p) { return TensorParallel(p) >= 2; }
bool Smoothed(const P& p) { return p.smoothing > 0; }
bool SeveralSmoothed(const P& p) { return Several(p) && Smoothed(p); }
bool Mean(const P& p) { return p.mean; }
bool DataParallel(const P& p) { return p.data_parallel >= 2; }
bool Large(const P& p) { return p.scale >= 1000; }

// --- The case ----------------------------------------------------------------

std::optional<std::string> Skip(const P& p) {
  if (p.data_parallel < 1 || p.ranks % p.data_parallel != 0) {
    return fmt::format("{} ranks are not {} groups", p.ranks, p.data_parallel);
  }
  if (p.vocabulary == 3 && (p.scale > 100 || !p.mean)) {
    return "a small vocabulary is for ranks with padding only";
  }
  // With one probability of 1 in a row, shards of few ids may add to none of
  // them, and the f16 values drawn here are such: nothing would show a shard
  // that is missing.
  if (p.dtype == DType::kF16 && p.scale > 100) {
    return "f16 is tested with logits of scale 3";
  }
  // Two blocks or three; in f64 the reference takes a second each time.
  if (p.vocabulary == 4100 &&
      (p.scale > 100 || !p.mean || p.in_place || p.data_parallel > 1 ||
       p.ranks > 2 || p.dtype == DType::kF64)) {
    return "a large vocabulary is for several blocks of columns on a rank";
  }
  if (p.in_place && p.data_parallel == 2) {
    return "where the gradient lies does not depend on the groups";
  }
  return std::nullopt;
}

std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  const auto dtype = TypeOf(workload);
  P p{.scale = 10,
      .in_place = true,
      .tokens = ShapeOf(workload, "tokens"),
      .vocabulary = ShapeOf(workload, "vocabulary"),
      .multiple = 128,
      .ranks = ranks};
  if (!dtype.ok() || p.tokens * p.vocabulary == 0) return {};
  p.dtype = *dtype;
  return {p};
}

double Elements(const P& p) {
  return static_cast<double>(p.tokens) * static_cast<double>(p.vocabulary);
}

const RegisterCase kVocabParallelCrossEntropy(Case<P>{
    .name = "layers/vocab_parallel_cross_entropy",
    .what = "softmax cross entropy of logits that are cut by vocabulary: sums "
            "a maximum and two numbers per token over ranks forward, nothing "
            "backward",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32, DType::kBF16}),
             Axis("smoothing", &P::smoothing, {0, 0.1}).Bench({0.0}),
             Axis("scale", &P::scale, {3, 1000}).Bench({10.0}),
             Axis("data_parallel", &P::data_parallel, {1, 2}).Bench({1}),
             Axis("mean", &P::mean, {true, false}).Bench({true}),
             Axis("in_place", &P::in_place, {false, true}).Bench({false}),
             Axis("tokens", &P::tokens, {29}).Bench({512}),
             Axis("vocabulary", &P::vocabulary, {50, 3, 4100}).Bench({32000}),
             Axis("multiple", &P::multiple, {4}).Bench({128})},
    .skip = Skip,
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = Variants(),
    .mutants = {Planted<P>("sums_left_partial", Bind, kWithoutReduction,
                           Several),
                Planted<P>("sums_averaged", Bind, kAveraging, Several),
                Planted<P>("groups_not_gathered", Bind, kGatheringNothing,
                           DataParallel),
                Flawed("smoothing_with_local_vocabulary", Flaw::kLocalSmoothing,
                       SeveralSmoothed),
                Flawed("smoothing_not_taken_from_target",
                       Flaw::kSmoothingUnscaled, Smoothed),
                Flawed("off_by_log_t", Flaw::kLogT, Several),
                Flawed("mean_over_all_tokens", Flaw::kAllTokens, Mean),
                Flawed("mean_of_means_over_ranks", Flaw::kMeanOfMeans,
                       DataParallel),
                Flawed("divided_by_own_count", Flaw::kOwnCount, DataParallel),
                Flawed("ignore_index_counted", Flaw::kIgnoredCounted, Always),
                Flawed("max_not_subtracted", Flaw::kMaxNotSubtracted, Large),
                Flawed("padded_columns_counted", Flaw::kPaddingCounted, Always),
                Flawed("target_outside_looked_up_as_column_0",
                       Flaw::kLocalTarget, Several)},
    .exact = false,  // Not linear.
    .flops = [](const P& p) { return 5 * Elements(p); },
    .floor =
        [](const P& p) {
          // Read twice, written once.
          return Floor{.copy_bytes =
                           3 * Elements(p) * SizeOf(p.dtype) / p.ranks};
        },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
