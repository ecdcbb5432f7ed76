// The pairing of overlap: axes, reference, variants, planted bugs. The layers
// that send and multiply in one piece are variants beside those in chunks.
#include "tools/harness/case.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "layers/column_parallel_linear/column_parallel_linear.h"
#include "layers/overlap/overlap.h"
#include "layers/pairing/layer_case.h"
#include "layers/row_parallel_linear/row_parallel_linear.h"
#include "reference/linear.h"

namespace shardproof {

// For the axis, found by argument-dependent lookup.
static std::string FormatAxisValue(OverlapKind kind) {
  return kind == OverlapKind::kColumn ? "column" : "row";
}
static Status ParseAxisValue(std::string_view text, OverlapKind* kind) {
  for (const OverlapKind k : {OverlapKind::kColumn, OverlapKind::kRow}) {
    if (text != FormatAxisValue(k)) continue;
    *kind = k;
    return OkStatus();
  }
  return InvalidArgument("\"{}\" is neither column nor row", text);
}

namespace {

struct P {
  DType dtype = DType::kF32;
  OverlapKind layer = OverlapKind::kColumn;
  bool bias = true;
  int chunks = 1;
  int64_t tokens = 0;
  int64_t hidden = 0;
  int64_t features = 0;  // Between the column layer and the row layer.
  int ranks = 1;
  Memory memory = Memory::kShared;
};

bool Column(const P& p) { return p.layer == OverlapKind::kColumn; }
int64_t In(const P& p) { return Column(p) ? p.hidden : p.features; }
int64_t Out(const P& p) { return Column(p) ? p.features : p.hidden; }

OverlapConfig ConfigOf(const P& p, OverlapMode mode) {
  return {.kind = p.layer,
          .tokens = p.tokens,
          .in = In(p),
          .out = Out(p),
          .dtype = p.dtype,
          .bias = p.bias,
          .chunks = p.chunks,
          .mode = mode};
}

ParallelLinearConfig PlainConfigOf(const P& p) {
  return {.tokens = p.tokens,
          .in = In(p),
          .out = Out(p),
          .dtype = p.dtype,
          .bias = p.bias,
          .sequence_parallel = true};
}

Tensors TensorsOf(const P& p) {
  const int64_t in = In(p), out = Out(p);
  const ExactLinearInputs exact =
      *ExactLinear(p.dtype, p.dtype, p.tokens, in, out);
  const Sharding x = Shard(Column(p) ? 0 : 1), y = Shard(Column(p) ? 1 : 0),
                 w = Shard(Column(p) ? 0 : 1),
                 b = Column(p) ? Shard(0) : Replicated();
  Tensors tensors = {
      Input("x", p.dtype, {p.tokens, in}, x).Data({.exact = exact.x}),
      Input("w", p.dtype, {out, in}, w).Data({.exact = exact.w})};
  if (p.bias) {
    tensors.push_back(Input("b", p.dtype, {out}, b).Data({.exact = exact.b}));
  }
  tensors.push_back(
      Input("dy", p.dtype, {p.tokens, out}, y).Data({.exact = exact.dy}));
  tensors.push_back(
      Output("y", p.dtype, {p.tokens, out}, y).SampleDimension(0));
  tensors.push_back(
      Output("dx", p.dtype, {p.tokens, in}, x).Gradient().SampleDimension(0));
  tensors.push_back(
      Output("dw", p.dtype, {out, in}, w).Gradient().SampleDimension(0));
  if (p.bias) tensors.push_back(Output("db", p.dtype, {out}, b).Gradient());
  return tensors;
}

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample) {
  Arithmetic local = summed;
  local.partials = 1;
  const ConstTensorView x = in.Global("x"), w = in.Global("w"),
                        dy = in.Global("dy");
  std::optional<ConstTensorView> b;
  if (p.bias) b = in.Global("b");
  DenseOutputs out;
  out["y"] =
      LinearForward({x, w, b}, Column(p) ? local : summed, RowsOf(sample, "y"))
          .values;
  out["dx"] =
      LinearInputGrad(dy, w, Column(p) ? summed : local, RowsOf(sample, "dx"))
          .values;
  out["dw"] = LinearWeightGrad(dy, x, local, RowsOf(sample, "dw")).values;
  if (p.bias) out["db"] = LinearBiasGrad(dy, local).values;
  return out;
}

// Forward, then backward, of x and dy.
template <class Layer>
Status RunBoth(const Layer& layer, const P& p, const RankContext& c,
               const void* x, const void* dy) {
  const void* const b = p.bias ? c.in("b").data : nullptr;
  void* const db = p.bias ? c.out("db").data : nullptr;
  SP_RETURN_IF_ERROR(
      layer.Forward({x, c.in("w").data, b, c.out("y").data}, c.stream()));
  return layer.Backward(
      {x, c.in("w").data, dy, c.out("dx").data, c.out("dw").data, db},
      c.stream());
}

template <class Layer>
StatusOr<Operation> OperationOf(StatusOr<Layer> made, const P& p,
                                RankContext& context) {
  SP_RETURN_IF_ERROR(made.status());
  return Operation(
      [layer = std::make_shared<Layer>(*std::move(made)), p, &context] {
        return RunBoth(*layer, p, context, context.in("x").data,
                       context.in("dy").data);
      });
}

// --- Variants ----------------------------------------------------------------

StatusOr<Operation> BindPlain(const P& p, RankContext& context,
                              const CollectiveFamily& collectives) {
  const ParallelLinearConfig config = PlainConfigOf(p);
  if (Column(p)) {
    return OperationOf(
        ColumnParallelLinear::Create(context.comm(), config, collectives), p,
        context);
  }
  return OperationOf(
      RowParallelLinear::Create(context.comm(), config, collectives), p,
      context);
}

Cost PlainCost(const P& p, const CollectiveFamily& collectives) {
  const ParallelLinearConfig config = PlainConfigOf(p);
  if (Column(p)) {
    return ColumnParallelLinearForwardCost(p.ranks, config, collectives) +
           ColumnParallelLinearBackwardCost(p.ranks, config, collectives);
  }
  return RowParallelLinearForwardCost(p.ranks, config, collectives) +
         RowParallelLinearBackwardCost(p.ranks, config, collectives);
}

// One collective, then one product, or the other way round: the same for any
// number of chunks, so that every instance has something to be compared with.
Variant<P> Plain(const CollectiveFamily& family, unsigned needs) {
  Variant<P> variant = OverCollective<P>(
      family, needs, "one collective and one product, nothing overlaps",
      BindPlain, PlainCost);
  variant.name = std::string("plain_") + family.name;
  return variant;
}

Variant<P> InChunks(std::string name, OverlapMode mode, std::string note) {
  Variant<P> variant;
  variant.name = std::move(name);
  variant.note = std::move(note);
  variant.bind = [mode](const P& p, RankContext& context) {
    return OperationOf(OverlapLinear::Create(context.comm(), ConfigOf(p, mode)),
                       p, context);
  };
  variant.cost = [mode](const P& p) {
    return OverlapForwardCost(p.ranks, ConfigOf(p, mode)) +
           OverlapBackwardCost(p.ranks, ConfigOf(p, mode));
  };
  variant.arithmetic = [](const P& p) {
    return Arithmetic::For(p.dtype, p.ranks);
  };
  return variant;
}

// --- Planted bugs ------------------------------------------------------------

using Kind = OverlapStep::Kind;
using Steps = std::vector<OverlapStep>;
using Edit = void (*)(OverlapSchedule& schedule, int rank);

Steps::iterator Find(Steps& steps, Kind kind, int index) {
  return std::find_if(steps.begin(), steps.end(), [&](const OverlapStep& s) {
    return s.kind == kind && s.index == index;
  });
}

bool Scatters(const OverlapSchedule& s) { return !s.summed.empty(); }

// What it edits works on what the pass before left in the workspaces: that of
// an operation on zeros, so that a bug shows although all passes are of equal
// data.
Mutant<P> Edited(std::string name, Edit edit,
                 std::function<bool(const P&)> applies) {
  Mutant<P> mutant;
  mutant.name = std::move(name);
  mutant.applies = std::move(applies);
  mutant.bind = [edit](const P& p,
                       RankContext& context) -> StatusOr<Operation> {
    const Communicator& comm = context.comm();
    const OverlapConfig config = ConfigOf(p, OverlapMode::kOverlapped);
    OverlapSchedules schedules = PlanOverlap(config, comm.size(), comm.rank());
    edit(schedules.forward, comm.rank());
    edit(schedules.backward, comm.rank());
    SP_ASSIGN_OR_RETURN(OverlapLinear made,
                        OverlapLinear::Create(comm, config, schedules));
    const auto zeros = [&](std::string_view tensor) {
      return std::make_shared<Tensor>(
          Tensor::Zeros(p.dtype, context.in(tensor).shape));
    };
    return Operation([layer = std::make_shared<OverlapLinear>(std::move(made)),
                      p, &context, x = zeros("x"),
                      dy = zeros("dy")]() -> Status {
      SP_RETURN_IF_ERROR(RunBoth(*layer, p, context, x->raw(), dy->raw()));
      return RunBoth(*layer, p, context, context.in("x").data,
                     context.in("dy").data);
    });
  };
  return mutant;
}

// The first chunk of another rank is multiplied before it has arrived.
void MultiplyEarly(OverlapSchedule& s, int /*rank*/) {
  if (Scatters(s) || s.exchanges.empty()) return;
  const auto product = Find(s.steps, Kind::kMultiply, 1);
  const auto start = Find(s.steps, Kind::kStart, 0);
  std::rotate(start, product, product + 1);
}

// A chunk goes out before it has been multiplied.
void SendEarly(OverlapSchedule& s, int /*rank*/) {
  if (!Scatters(s) || s.exchanges.empty()) return;
  const auto first = static_cast<int>(s.exchanges.size()) -
                     static_cast<int>(s.products.size()) + 1;
  const auto product = Find(s.steps, Kind::kMultiply, 1);
  const auto wait = Find(s.steps, Kind::kWait, first);
  std::rotate(product, product + 1, wait + 1);
}

void MissOwnChunk(OverlapSchedule& s, int /*rank*/) {
  s.steps.erase(Find(s.steps, Kind::kMultiply, 0));
}

void AddOwnTwice(OverlapSchedule& s, int rank) {
  if (Scatters(s)) s.summed.push_back(rank);
}

void MissAnotherRank(OverlapSchedule& s, int rank) {
  if (Scatters(s)) {
    s.summed.erase(s.summed.begin() + (rank + 1) % std::ssize(s.summed));
  }
}

// Two chunks of equal size change places.
void ChangePlaces(OverlapSchedule& s, int /*rank*/) {
  for (size_t i = 0; i < s.products.size(); ++i) {
    for (size_t j = i + 1; j < s.products.size(); ++j) {
      if (s.products[i].count != s.products[j].count) continue;
      if (s.products[i].count == 0) continue;
      std::swap(s.products[i].to, s.products[j].to);
      return;
    }
  }
}

// The last chunk of every block, which may be shorter, is not sent.
void LoseLastChunk(OverlapSchedule& s, int /*rank*/) {
  if (s.exchanges.empty()) return;
  OverlapExchange& last = s.exchanges.back();
  last.in.count = last.out.count = 0;
  if (!Scatters(s)) s.products.back().count = 0;
}

bool Several(const P& p) { return p.ranks >= 2 && p.tokens > p.ranks; }
bool SeveralChunks(const P& p) { return Several(p) && p.ranks * p.chunks >= 4; }

// --- The case ----------------------------------------------------------------

// Fewer tokens than ranks, and than chunks.
std::optional<std::string> Skip(const P& p) {
  if (p.tokens == 2 && (p.chunks == 1 || p.features == 3)) {
    return "tested in chunks and with features enough";
  }
  return std::nullopt;
}

double Flops(const P& p) {
  return 6.0 * static_cast<double>(p.tokens) * static_cast<double>(p.hidden) *
         static_cast<double>(p.features);
}

// A model's projections to queries and of the attention output.
std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  const auto dtype = TypeOf(workload);
  P p{.bias = FactOf(workload, "bias") == "true",
      .tokens = ShapeOf(workload, "tokens"),
      .hidden = ShapeOf(workload, "hidden"),
      .features = ShapeOf(workload, "heads") * ShapeOf(workload, "head_dim"),
      .ranks = ranks};
  if (!dtype.ok() || p.tokens * p.hidden * p.features == 0) return {};
  if (FactOf(workload, "sequence_parallel") != "true") return {};
  p.dtype = *dtype;
  p.chunks = 4;
  std::vector<P> all(2, p);
  all[1].layer = OverlapKind::kRow;
  return all;
}

const RegisterCase kOverlap(Case<P>{
    .name = "layers/overlap",
    .what = "sequence-parallel linear layers in chunks: all_gather + GEMM and "
            "GEMM + reduce_scatter, a chunk is sent while another is "
            "multiplied",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32}),
             Axis("layer", &P::layer, {OverlapKind::kColumn, OverlapKind::kRow})
                 .Smoke({OverlapKind::kColumn, OverlapKind::kRow}),
             Axis("bias", &P::bias, {true}).Bench({false}),
             Axis("chunks", &P::chunks, {1, 3}).Bench({1, 4}),
             Axis("tokens", &P::tokens, {33, 2}).Bench({256}),
             Axis("hidden", &P::hidden, {20}).Bench({4096}),
             Axis("features", &P::features, {25, 3}).Bench({14336})},
    .skip = Skip,
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = {Plain(kAutoCollectives, kAnywhere),
                 Plain(kDirectCollectives, kSharedMemory),
                 Plain(kRingCollectives, kAnywhere),
                 InChunks("chunked", OverlapMode::kChunked,
                          "every chunk is sent, then multiplied"),
                 InChunks("overlapped", OverlapMode::kOverlapped,
                          "a chunk is sent while another is multiplied, with "
                          "non-blocking messages (Wang et al., ASPLOS 2023)"),
                 InChunks(
                     "message_thread", OverlapMode::kMessageThread,
                     "the same, and a thread of the rank's own waits for the "
                     "messages")},
    .mutants = {Edited("multiplied_before_it_arrived", MultiplyEarly, Several),
                Edited("sent_before_it_was_multiplied", SendEarly, Several),
                Edited("own_chunk_missed", MissOwnChunk, Several),
                Edited("own_chunk_added_twice", AddOwnTwice, Several),
                Edited("term_missed", MissAnotherRank, Several),
                Edited("chunks_change_places", ChangePlaces, SeveralChunks),
                Edited("last_chunk_lost", LoseLastChunk, Several)},
    .flops = Flops,
    .floor = [](const P& p) { return Floor{.flops = Flops(p) / p.ranks}; },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
