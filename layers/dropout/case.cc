// The pairing of dropout: axes, reference, the variant, planted bugs.
#include "tools/harness/case.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/dropout/dropout.h"
#include "layers/pairing/layer_case.h"
#include "reference/dropout.h"

namespace shardproof {
namespace {

enum class Layout { kReplicated, kTokens, kFeatures, kHeads };
constexpr Layout kLayouts[] = {Layout::kReplicated, Layout::kTokens,
                               Layout::kFeatures, Layout::kHeads};

// For the axis, found by argument-dependent lookup.
std::string FormatAxisValue(Layout layout) {
  switch (layout) {
    case Layout::kReplicated:
      return "replicated";
    case Layout::kTokens:
      return "tokens";
    case Layout::kFeatures:
      return "features";
    case Layout::kHeads:
      return "heads";
  }
  return "";
}
Status ParseAxisValue(std::string_view text, Layout* layout) {
  for (const Layout l : kLayouts) {
    if (text != FormatAxisValue(l)) continue;
    *layout = l;
    return OkStatus();
  }
  return InvalidArgument(
      "\"{}\" is none of replicated, tokens, features, heads", text);
}

constexpr uint64_t kSeed = 0x5eed00000007;
// Far enough for the counter's second word, and not where one of them begins.
constexpr uint64_t kFirst = (uint64_t{1} << 34) - 1001;
constexpr uint64_t kCall = 3;

struct P {
  DType dtype = DType::kF32;
  Layout layout = Layout::kReplicated;
  // Of which the scale is a power of two: the exact tier is for all of it.
  double probability = 0;
  int64_t tokens = 0;
  int64_t width = 0;  // Elements of a token.
  int ranks = 1;
};

// A head's probabilities are of the tokens here for as many again.
ParallelDropoutConfig ConfigOf(const P& p) {
  ParallelDropoutConfig config = {.sharded = p.layout != Layout::kReplicated,
                                  .probability = p.probability,
                                  .seed = kSeed,
                                  .first = kFirst,
                                  .dtype = p.dtype};
  switch (p.layout) {
    case Layout::kReplicated:
    case Layout::kTokens:
      config.units = p.tokens;
      config.inner = p.width;
      break;
    case Layout::kFeatures:
      config.outer = p.tokens;
      config.units = p.width;
      break;
    case Layout::kHeads:
      config.outer = 2;
      config.units = 5;
      config.inner = p.tokens * p.width;
      break;
  }
  return config;
}

Tensors TensorsOf(const P& p) {
  const ParallelDropoutConfig c = ConfigOf(p);
  const Shape shape = {c.outer, c.units, c.inner};
  const Sharding by = c.sharded ? Shard(1) : Replicated();
  return {Input("x", p.dtype, shape, by), Input("dy", p.dtype, shape, by),
          Output("y", p.dtype, shape, by).SampleDimension(1),
          Output("dx", p.dtype, shape, by).Gradient().SampleDimension(1)};
}

// Of the sampled units.
std::vector<Bounded> Dropped(const P& p, const Arithmetic& a,
                             const std::vector<double>& x, const Rows& units) {
  const ParallelDropoutConfig c = ConfigOf(p);
  const DropoutMask mask(p.probability, kSeed, kCall);
  std::vector<Bounded> out;
  const auto count =
      units.empty() ? c.units : static_cast<int64_t>(units.size());
  for (int64_t o = 0; o < c.outer; ++o) {
    for (int64_t u = 0; u < count; ++u) {
      const int64_t unit = units.empty() ? u : units[static_cast<size_t>(u)];
      for (int64_t k = 0; k < c.inner; ++k) {
        const int64_t i = (o * c.units + unit) * c.inner + k;
        out.push_back(mask.Apply({x[static_cast<size_t>(i)]},
                                 kFirst + static_cast<uint64_t>(i), a));
      }
    }
  }
  return out;
}

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& a,
                                const Inputs& in, const Sample& sample) {
  DenseOutputs out;
  out["y"] = Dropped(p, a, in.All("x"), RowsOf(sample, "y"));
  out["dx"] = Dropped(p, a, in.All("dy"), RowsOf(sample, "dx"));
  return out;
}

// --- The variant, and planted bugs -------------------------------------------

// What a bug does to the layer of a rank, and to the call of the backward pass.
using Change = void (*)(const Communicator&, ParallelDropoutConfig&);

StatusOr<Operation> BindChanged(const P& p, RankContext& context, Change change,
                                uint64_t backward_call) {
  ParallelDropoutConfig config = ConfigOf(p);
  // On a communicator of one rank each where the layers are to differ.
  Communicator comm = context.comm();
  if (change != nullptr) {
    SP_ASSIGN_OR_RETURN(comm, context.comm().Split(context.comm().rank(), 0));
    config.units = context.in("x").shape[1];
    config.sharded = false;
    change(context.comm(), config);
  }
  SP_ASSIGN_OR_RETURN(const ParallelDropout layer,
                      ParallelDropout::Create(comm, config));
  return Operation([layer, backward_call, &context]() -> Status {
    const Stream& stream = context.stream();
    SP_RETURN_IF_ERROR(layer.Forward(
        {.x = context.in("x").data, .y = context.out("y").data, .call = kCall},
        stream));
    return layer.Backward({.dy = context.in("dy").data,
                           .dx = context.out("dx").data,
                           .call = backward_call},
                          stream);
  });
}

StatusOr<Operation> Bind(const P& p, RankContext& context) {
  return BindChanged(p, context, nullptr, kCall);
}

Mutant<P> Changed(std::string name, Change change,
                  std::function<bool(const P&)> applies) {
  return {.name = std::move(name),
          .bind =
              [change](const P& p, RankContext& context) {
                return BindChanged(p, context, change, kCall);
              },
          .applies = std::move(applies)};
}

// Every shard numbers its elements from 0.
void NumberLocally(const Communicator& /*comm*/,
                   ParallelDropoutConfig& /*config*/) {}
// As if each rank's part were one range of the whole, however it was cut.
void NumberInOneRange(const Communicator& comm, ParallelDropoutConfig& config) {
  config.first += static_cast<uint64_t>(comm.rank() * config.outer *
                                        config.units * config.inner);
}
void SeedByRank(const Communicator& comm, ParallelDropoutConfig& config) {
  config.seed += static_cast<uint64_t>(comm.rank());
}

// A result times 1 - p: the scale was forgotten.
Mutant<P> WithoutScale(std::string name, const std::string& output) {
  return {.name = std::move(name),
          .bind = [output](const P& p,
                           RankContext& context) -> StatusOr<Operation> {
            SP_ASSIGN_OR_RETURN(const Operation good, Bind(p, context));
            return Operation([good, output, p, &context]() -> Status {
              SP_RETURN_IF_ERROR(good());
              return Scale(context.out(output), 1 - p.probability);
            });
          },
          .applies = [](const P&) { return true; }};
}

bool Several(const P& p) { return p.ranks >= 2; }
bool Sharded(const P& p) {
  return Several(p) && p.layout != Layout::kReplicated;
}
bool CutWithinRows(const P& p) {
  return Several(p) &&
         (p.layout == Layout::kFeatures || p.layout == Layout::kHeads);
}

// Both passes read and write their tensor.
int64_t Bytes(const P& p) {
  const ParallelDropoutConfig c = ConfigOf(p);
  const int64_t units =
      c.sharded ? BalancedChunk(c.units, p.ranks, 0).count : c.units;
  return 4 * c.outer * units * c.inner * SizeOf(p.dtype);
}

// --- The case ----------------------------------------------------------------

// Behind a block of a model.
std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  const auto dtype = TypeOf(workload);
  P p{.layout = FactOf(workload, "sequence_parallel") == "true"
                    ? Layout::kTokens
                    : Layout::kReplicated,
      .probability = 0.5,
      .tokens = ShapeOf(workload, "tokens"),
      .width = ShapeOf(workload, "hidden"),
      .ranks = ranks};
  if (!dtype.ok() || p.tokens * p.width == 0) return {};
  p.dtype = *dtype;
  return {p};
}

const RegisterCase kDropout(Case<P>{
    .name = "layers/dropout",
    .what = "dropout with a mask by index in the whole tensor: equal where it "
            "is replicated, and where it is sharded that of the shard; sends "
            "nothing",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32, DType::kBF16}),
             Axis("layout", &P::layout,
                  {Layout::kReplicated, Layout::kTokens, Layout::kFeatures,
                   Layout::kHeads})
                 .Bench({Layout::kReplicated, Layout::kTokens}),
             Axis("probability", &P::probability, {0.5, 0.75}).Bench({0.5}),
             Axis("tokens", &P::tokens, {13, 2}).Bench({512}),
             Axis("width", &P::width, {40, 3}).Bench({4096})},
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = {{.name = "philox",
                  .bind = Bind,
                  .cost = [](const P&) { return Cost(); },
                  .arithmetic =
                      [](const P& p) { return Arithmetic::For(p.dtype); },
                  .note = "makes the mask anew in each pass"}},
    .mutants = {Changed("same_mask_on_every_shard", NumberLocally, Sharded),
                Changed("shard_numbered_in_one_range", NumberInOneRange,
                        CutWithinRows),
                Changed("another_mask_on_every_replica", SeedByRank,
                        [](const P& p) {
                          return Several(p) && p.layout == Layout::kReplicated;
                        }),
                WithoutScale("scale_forgotten", "y"),
                WithoutScale("scale_forgotten_in_the_gradient", "dx"),
                {.name = "backward_with_another_mask",
                 .bind =
                     [](const P& p, RankContext& context) {
                       return BindChanged(p, context, nullptr, kCall + 1);
                     },
                 .applies = [](const P&) { return true; }}},
    .bytes = Bytes,
    .floor =
        [](const P& p) {
          return Floor{.copy_bytes = static_cast<double>(Bytes(p))};
        },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
