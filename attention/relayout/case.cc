// The pairing of relayout: tokens that change their layout, to the bit, and
// tokens that are turned by the positions of the layout they come to.
#include "tools/harness/case.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "attention/pairing/attention_case.h"
#include "attention/relayout/relayout.h"
#include "layers/kernels/rope.h"
#include "layers/pairing/layer_case.h"
#include "reference/attention_core.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  SequenceLayout from = SequenceLayout::kContiguous;
  SequenceLayout to = SequenceLayout::kZigzag;
  double rope_theta = 0;  // 0: not turned.
  int64_t sequences = 1;
  int64_t tokens = 0;  // Without padding.
  int64_t heads = 1;
  int64_t head_dim = 0;
  int ranks = 1;
  Memory memory = Memory::kShared;

  // What a zigzag needs, on both sides.
  int64_t length() const {
    if (from != SequenceLayout::kZigzag && to != SequenceLayout::kZigzag) {
      return tokens;
    }
    return PaddedLength({SequenceLayout::kZigzag, tokens, ranks});
  }
};

RelayoutConfig ConfigOf(const P& p) {
  return {.sequences = p.sequences,
          .tokens = p.length(),
          .width = p.heads * p.head_dim,
          .from = p.from,
          .to = p.to,
          .dtype = p.dtype};
}

Sharding In(const P& p, SequenceLayout layout) {
  return ByRuns(std::string(Name(layout)) + " tokens", 1,
                RunsOfRanks({layout, p.length(), p.ranks}));
}

Tensors TensorsOf(const P& p) {
  const Shape shape = {p.sequences, p.length(), p.heads, p.head_dim};
  TensorSpec y = Output("y", p.dtype, shape, In(p, p.to)).SampleDimension(1);
  if (p.rope_theta == 0) y.SignOfZero();
  return {Input("x", p.dtype, shape, In(p, p.from)), y};
}

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& a,
                                const Inputs& in, const Sample& sample) {
  const ConstTensorView x = in.Global("x");
  const int64_t width = p.heads * p.head_dim;
  Matrix m = ExactMatrix({x.dtype, {p.sequences * p.length(), width}, x.data});
  if (p.rope_theta != 0) {
    std::vector<int64_t> positions(static_cast<size_t>(p.length()));
    for (size_t i = 0; i < positions.size(); ++i) {
      positions[i] = static_cast<int64_t>(i);
    }
    m = RopeReference(m, p.head_dim, p.rope_theta, positions, false, a);
  }
  const auto sampled = sample.find("y");
  DenseOutputs out;
  std::vector<Bounded>& y = out["y"];
  for (int64_t s = 0; s < p.sequences; ++s) {
    for (int64_t i = 0; i < p.length(); ++i) {
      if (sampled != sample.end() &&
          !std::binary_search(sampled->second.begin(), sampled->second.end(),
                              i)) {
        continue;
      }
      for (int64_t e = 0; e < width; ++e) {
        y.push_back(m.at(s * p.length() + i, e));
      }
    }
  }
  return out;
}

// --- The operation -----------------------------------------------------------

// What a planted bug changes.
struct Changes {
  std::function<void(const P&, int rank, std::vector<int64_t>&)> positions = {};
  std::function<void(RelayoutConfig&)> config = {};
};

StatusOr<Operation> BindChanged(const P& p, RankContext& context,
                                const CollectiveFamily& collectives,
                                const Changes& changes) {
  RelayoutConfig config = ConfigOf(p);
  if (changes.config) changes.config(config);
  SP_ASSIGN_OR_RETURN(Relayout made,
                      Relayout::Create(context.comm(), config, collectives));
  const auto relayout = std::make_shared<Relayout>(std::move(made));
  const auto move = [relayout, &context]() -> Status {
    return relayout->Run(context.in("x").data, context.out("y").data,
                         context.stream());
  };
  if (p.rope_theta == 0) return Operation(move);
  std::vector<int64_t> positions = relayout->positions();
  if (changes.positions) {
    changes.positions(p, context.comm().rank(), positions);
  }
  SP_ASSIGN_OR_RETURN(
      RopeTable made_table,
      RopeTable::Create(
          {.dtype = p.dtype, .head_dim = p.head_dim, .theta = p.rope_theta},
          positions));
  const auto table = std::make_shared<RopeTable>(std::move(made_table));
  const auto tokens = static_cast<int64_t>(positions.size());
  return Operation([move, table, tokens, p, &context]() -> Status {
    SP_RETURN_IF_ERROR(move());
    return Rope(context.stream(), *table, RopeDirection::kForward,
                {.tokens = p.sequences * tokens,
                 .heads = p.heads,
                 .stride = p.heads * p.head_dim,
                 .x = context.out("y").data});
  });
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  return BindChanged(p, context, collectives, {});
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  return RelayoutCost(p.ranks, ConfigOf(p), collectives);
}

// --- Planted bugs ------------------------------------------------------------

Mutant<P> Changed(std::string name, Changes changes,
                  std::function<bool(const P&)> applies) {
  Mutant<P> mutant;
  mutant.name = std::move(name);
  mutant.bind = [changes = std::move(changes)](const P& p, RankContext& c) {
    return BindChanged(p, c, kAutoCollectives, changes);
  };
  mutant.applies = std::move(applies);
  return mutant;
}

// Some rank has other positions than `change` makes of them.
std::function<bool(const P&)> Moves(void (*change)(const P&, int,
                                                   std::vector<int64_t>&)) {
  return [change](const P& p) {
    const auto runs = RunsOfRanks({p.to, p.length(), p.ranks});
    for (int r = 0; r < p.ranks; ++r) {
      const std::vector<int64_t> right =
          Positions(runs[static_cast<size_t>(r)]);
      std::vector<int64_t> changed = right;
      change(p, r, changed);
      if (changed != right) return p.ranks >= 2;
    }
    return false;
  };
}

void RestartOnEachRank(const P&, int, std::vector<int64_t>& positions) {
  for (size_t i = 0; i < positions.size(); ++i) {
    positions[i] = static_cast<int64_t>(i);
  }
}
// Documents of five tokens.
void RestartInEachDocument(const P&, int, std::vector<int64_t>& positions) {
  for (int64_t& position : positions) position %= 5;
}
// A rank's second run goes on where its first one ends.
void IgnoreTheGap(const P&, int, std::vector<int64_t>& positions) {
  for (size_t i = 1; i < positions.size(); ++i) {
    positions[i] = positions[i - 1] + (positions[1] - positions[0]);
  }
}

// Whether ranks have as many tokens in both layouts, but not the same.
bool FitsUnmoved(const P& p) {
  const auto from = RunsOfRanks({p.from, p.length(), p.ranks});
  const auto to = RunsOfRanks({p.to, p.length(), p.ranks});
  bool differs = false;
  for (size_t r = 0; r < from.size(); ++r) {
    if (CountTokens(from[r]) != CountTokens(to[r])) return false;
    differs = differs || Positions(from[r]) != Positions(to[r]);
  }
  return differs;
}

std::vector<Mutant<P>> Mutants() {
  std::vector<Mutant<P>> mutants;
  // Rows stay with their ranks: the layouts are taken for one another.
  mutants.push_back(Changed(
      "layouts_taken_for_one_another",
      {.config = [](RelayoutConfig& c) { c.from = c.to; }}, FitsUnmoved));
  mutants.push_back(Spoiled<P>(
      "rows_of_a_rank_backwards", Bind,
      [](const P& p, const RankContext& c) {
        const TensorView y = c.out("y");
        const auto row =
            static_cast<size_t>(p.heads * p.head_dim * SizeOf(p.dtype));
        auto* const bytes = static_cast<std::byte*>(y.data);
        const int64_t rows = y.shape[0] * y.shape[1];
        for (int64_t i = 0; i < rows / 2; ++i) {
          std::swap_ranges(bytes + i * row, bytes + (i + 1) * row,
                           bytes + (rows - 1 - i) * row);
        }
        return OkStatus();
      },
      [](const P& p) { return p.ranks >= 2 && p.tokens > p.ranks; }));
  return mutants;
}

// --- The cases ---------------------------------------------------------------

Case<P> Common(std::string name, std::string what) {
  Case<P> c;
  c.name = std::move(name);
  c.what = std::move(what);
  c.axes = {Axis("dtype", &P::dtype,
                 {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                .Bench({DType::kBF16}),
            Axis("from", &P::from,
                 {SequenceLayout::kContiguous, SequenceLayout::kStriped,
                  SequenceLayout::kZigzag})
                .Bench({SequenceLayout::kContiguous}),
            Axis("to", &P::to,
                 {SequenceLayout::kZigzag, SequenceLayout::kStriped,
                  SequenceLayout::kContiguous})
                .Bench({SequenceLayout::kZigzag}),
            Axis("rope_theta", &P::rope_theta, {0}),
            Axis("sequences", &P::sequences, {2}).Bench({1}),
            Axis("tokens", &P::tokens, {37, 2}).Bench({8192}),
            Axis("heads", &P::heads, {3}).Bench({8}),
            Axis("head_dim", &P::head_dim, {6}).Bench({128})};
  c.skip = [](const P& p) -> std::optional<std::string> {
    if (p.dtype != DType::kF32 && p.to != SequenceLayout::kZigzag) {
      return "other types than f32 are tested to a zigzag";
    }
    return std::nullopt;
  };
  c.tensors = TensorsOf;
  c.reference = DenseReference<P>(Expected);
  c.variants = OverCollectives<P>(Bind, CostOf);
  c.bytes = [](const P& p) {
    return p.sequences * p.length() * p.heads * p.head_dim * SizeOf(p.dtype);
  };
  return c;
}

Case<P> Movement() {
  Case<P> c = Common("attention/relayout",
                     "tokens that are dealt in one layout, dealt in another");
  c.mutants = Mutants();
  return c;
}

Case<P> Rotary() {
  Case<P> c = Common("attention/relayout_rotary",
                     "tokens dealt in another layout, and turned by their "
                     "positions in the whole sequence");
  c.axes[3] = Axis("rope_theta", &P::rope_theta, {10000});
  c.skip = [common = c.skip](const P& p) -> std::optional<std::string> {
    if (p.from != SequenceLayout::kContiguous) {
      return "turned tokens come from contiguous ones";
    }
    return common(p);
  };
  c.exact = false;
  for (Variant<P>& variant : c.variants) {
    variant.arithmetic = [](const P& p) { return Arithmetic::For(p.dtype, 1); };
  }
  c.mutants = {
      Changed("positions_restart_on_every_rank",
              {.positions = RestartOnEachRank}, Moves(RestartOnEachRank)),
      Changed("positions_restart_in_every_document",
              {.positions = RestartInEachDocument},
              Moves(RestartInEachDocument)),
      Changed("positions_ignore_the_gap", {.positions = IgnoreTheGap},
              Moves(IgnoreTheGap))};
  return c;
}

const RegisterCase kRelayout(Movement());
const RegisterCase kRelayoutRotary(Rotary());

}  // namespace
}  // namespace shardproof
