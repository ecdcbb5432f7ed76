#include "attention/pairing/attention_case.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "attention/kernels/flash_kernels.h"
#include "attention/kernels/tile_product.h"
#include "collectives/rank_context.h"
#include "layers/pairing/layer_case.h"
#include "reference/flash_attention.h"

namespace shardproof {
namespace {

constexpr std::string_view kMasks[] = {"full", "causal", "window", "documents"};
constexpr SequenceLayout kLayouts[] = {SequenceLayout::kContiguous,
                                       SequenceLayout::kStriped,
                                       SequenceLayout::kZigzag};

// Three documents, of which the first has one token.
std::vector<int64_t> Documents(int64_t tokens) {
  std::vector<int64_t> cu = {0};
  for (const int64_t end : {int64_t{1}, tokens / 2 + 1, tokens}) {
    if (end > cu.back() && end <= tokens) cu.push_back(end);
  }
  return cu;
}

std::vector<int64_t> Count(int64_t n) {
  std::vector<int64_t> all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// --- The reference -----------------------------------------------------------

// The sampled indices of an output, or all.
std::vector<int64_t> Wanted(const Sample& sample, std::string_view output,
                            int64_t extent) {
  const auto found = sample.find(output);
  return found == sample.end() ? Count(extent) : found->second;
}

// The KV heads of all that is asked for.
std::vector<int64_t> Groups(const AttentionPoint& p, const Sample& sample) {
  std::vector<int64_t> groups;
  for (const char* name : {"o", "lse", "dq"}) {
    for (const int64_t h : Wanted(sample, name, p.heads)) {
      groups.push_back(h / (p.heads / p.kv_heads));
    }
  }
  for (const char* name : {"dk", "dv"}) {
    const std::vector<int64_t> wanted = Wanted(sample, name, p.kv_heads);
    groups.insert(groups.end(), wanted.begin(), wanted.end());
  }
  std::sort(groups.begin(), groups.end());
  groups.erase(std::unique(groups.begin(), groups.end()), groups.end());
  return groups;
}

// The same numbers of each of `groups`.
std::vector<int64_t> HeadsOf(const std::vector<int64_t>& groups,
                             int64_t heads_per_group) {
  std::vector<int64_t> heads;
  for (const int64_t g : groups) {
    for (int64_t i = 0; i < heads_per_group; ++i) {
      heads.push_back(g * heads_per_group + i);
    }
  }
  return heads;
}

// Some heads of [.., heads, head_dim], as a matrix.
Tensor SomeHeads(const ConstTensorView& all,
                 const std::vector<int64_t>& heads) {
  const int64_t d = all.shape[3], of = all.shape[2];
  const int64_t rows = all.shape[0] * all.shape[1];
  const auto count = static_cast<int64_t>(heads.size());
  Tensor some(all.dtype, {rows, count * d});
  if (some.num_elements() == 0) return some;
  const auto bytes = static_cast<size_t>(d * SizeOf(all.dtype));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t from = (row * of + heads[static_cast<size_t>(i)]) * d;
      std::copy_n(
          static_cast<const std::byte*>(all.data) + from * SizeOf(all.dtype),
          bytes,
          some.bytes().data() + (row * count + i) * d * SizeOf(all.dtype));
    }
  }
  return some;
}

// The places of `wanted` among `evaluated`, both ascending.
std::vector<int64_t> PlacesAmong(const std::vector<int64_t>& wanted,
                                 const std::vector<int64_t>& evaluated) {
  std::vector<int64_t> places;
  for (const int64_t w : wanted) {
    places.push_back(std::lower_bound(evaluated.begin(), evaluated.end(), w) -
                     evaluated.begin());
  }
  return places;
}

// Those heads of a matrix of rows [heads, head_dim], rounded to `dtype`.
std::vector<Bounded> HeadsAt(const Matrix& m,
                             const std::vector<int64_t>& places,
                             int64_t head_dim, DType dtype, DType wide) {
  std::vector<Bounded> out;
  for (size_t row = 0; row < m.rows.size(); ++row) {
    for (const int64_t place : places) {
      for (int64_t e = 0; e < head_dim; ++e) {
        const Bounded x = m.at(static_cast<int64_t>(row), place * head_dim + e);
        out.push_back(dtype == wide ? x : Rounded(x, dtype));
      }
    }
  }
  return out;
}

// Those heads of [sequences x heads, queries].
std::vector<Bounded> LseAt(const Matrix& m, const std::vector<int64_t>& places,
                           int64_t sequences, int64_t heads) {
  std::vector<Bounded> out;
  for (int64_t s = 0; s < sequences; ++s) {
    for (const int64_t place : places) {
      for (int64_t i = 0; i < m.cols; ++i) {
        out.push_back(m.at(s * heads + place, i));
      }
    }
  }
  return out;
}

std::vector<std::vector<int64_t>> SeenByEach(const AttentionPoint& p) {
  const Visibility visibility = VisibilityOf(p);
  const TokenRun all = {.count = p.length()}, queries = QueriesOf(p);
  std::vector<std::vector<int64_t>> seen;
  for (int64_t i = 0; i < queries.count; ++i) {
    const IndexRange range = KeysSeen(visibility, queries.Position(i), all);
    std::vector<int64_t>& list = seen.emplace_back();
    for (int64_t j = range.first; j < range.last; ++j) list.push_back(j);
  }
  return seen;
}

// What may be another's than the host's (attention/kernels/cuda).
bool MayBeADevices(const AttentionPoint& p) {
  return (p.dtype == DType::kBF16 || p.dtype == DType::kF16) &&
         (p.head_dim == 64 || p.head_dim == 128);
}

// That of the host's kernels; of what others may serve, on a thread of a rank
// whose context has some, that of those too: they round exponentials and dS to
// the type of the tensors, whatever this machine multiplies, and have tiles of
// 32 keys at least.
FlashArithmetic ArithmeticOf(const AttentionPoint& p, int64_t merges) {
  FlashArithmetic a = FlashArithmetic::For(p.dtype);
  a.o = p.dtype;
  a.merges = merges;
  if (MayBeADevices(p) && FindService<FlashKernels>() != nullptr) {
    a.tiles = (p.length() + 31) / 32 + merges;
    return a;
  }
  a.products = ProductType(p.dtype);
  if (a.products != DType::kBF16) {
    a.exp_error = 4 * UnitRoundoff(Accumulator(p.dtype));
  }
  a.tiles = (p.length() + 255) / 256;  // Of that many keys at least.
  return a;
}

// --- The case ----------------------------------------------------------------

constexpr int64_t kTokens = 23;
// The least head dimension that the kernels for GPUs have.
constexpr int64_t kWideHead = 64;

// Every combination would be many that catch nothing new.
std::optional<std::string> Skip(const AttentionPoint& p) {
  const bool common = p.mask == AttentionMask::kCausal && p.kv_heads == 2;
  const bool plain = p.dtype == DType::kF32 && common;
  const bool half = p.dtype == DType::kBF16 || p.dtype == DType::kF16;
  if (p.head_dim == kWideHead && p.tokens <= kTokens && !(half && common)) {
    return "a head dimension of 64 is tested in bf16 and f16, causal, with "
           "two KV heads";
  }
  if (p.spread != 1 && !(plain && p.tokens > 2)) {
    return "large scores are tested in f32, causal, with two KV heads";
  }
  if (p.tokens == 2 && !plain) {
    return "two tokens are tested in f32, causal, with two KV heads";
  }
  if (p.kv_heads != 2 &&
      !(p.dtype == DType::kF32 && p.mask == AttentionMask::kCausal)) {
    return "other numbers of KV heads than two are tested in f32, causal";
  }
  if (p.dtype == DType::kBF16 && p.mask == AttentionMask::kDocuments) {
    return std::nullopt;
  }
  if (p.dtype != DType::kF32 && !common) {
    return "this type is tested causal, with two KV heads";
  }
  return std::nullopt;
}

// A model's attention, of 128 tokens at most, since the reference takes long.
std::vector<AttentionPoint> WorkloadOf(const Workload& workload, int ranks) {
  const auto dtype = TypeOf(workload);
  AttentionPoint p{
      .kv_heads = ShapeOf(workload, "kv_heads"),
      .tokens = std::min<int64_t>(128, ShapeOf(workload, "tokens")),
      .heads = ShapeOf(workload, "heads"),
      .head_dim = ShapeOf(workload, "head_dim"),
      .ranks = ranks};
  if (!dtype.ok() || p.tokens * p.heads * p.head_dim == 0 || p.kv_heads == 0 ||
      FactOf(workload, "latent_attention") == "true") {
    return {};
  }
  p.dtype = *dtype;
  return {p};
}

}  // namespace

std::string FormatAxisValue(AttentionMask mask) {
  return std::string(kMasks[static_cast<size_t>(mask)]);
}
Status ParseAxisValue(std::string_view text, AttentionMask* mask) {
  for (size_t i = 0; i < std::size(kMasks); ++i) {
    if (text != kMasks[i]) continue;
    *mask = static_cast<AttentionMask>(i);
    return OkStatus();
  }
  return InvalidArgument("\"{}\" is none of {}", text, fmt::join(kMasks, ", "));
}
std::string FormatAxisValue(SequenceLayout layout) {
  return std::string(Name(layout));
}
Status ParseAxisValue(std::string_view text, SequenceLayout* layout) {
  for (const SequenceLayout l : kLayouts) {
    if (text != Name(l)) continue;
    *layout = l;
    return OkStatus();
  }
  return InvalidArgument("\"{}\" is none of contiguous, striped, zigzag", text);
}

Visibility VisibilityOf(const AttentionPoint& p) {
  Visibility v = {.causal = p.mask != AttentionMask::kFull};
  if (p.mask == AttentionMask::kWindow) v.window = p.tokens / 3 + 1;
  if (p.mask == AttentionMask::kDocuments) v.cu_seqlens = Documents(p.tokens);
  return v;
}

TokenRun QueriesOf(const AttentionPoint& p) {
  if (p.queries == 0) return {.count = p.length()};
  return {.offset = p.visible() - p.queries, .count = p.queries};
}

ShardedAttentionConfig ConfigOf(const AttentionPoint& p) {
  return {.sequences = p.sequences,
          .tokens = p.length(),
          .heads = p.heads,
          .kv_heads = p.kv_heads,
          .head_dim = p.head_dim,
          .layout = p.layout,
          .visibility = VisibilityOf(p),
          .dtype = p.dtype,
          .backward = p.queries == 0};
}

Sharding ByRuns(std::string name, int dimension,
                std::vector<std::vector<TokenRun>> runs_of_rank) {
  return ShardBy(std::move(name), [dimension, runs = std::move(runs_of_rank)](
                                      const Shape& shape, int rank, int) {
    std::vector<std::vector<Interval>> ranges;
    for (int d = 0; d < shape.rank(); ++d) ranges.push_back({{0, shape[d]}});
    std::vector<Interval>& mine = ranges[static_cast<size_t>(dimension)];
    mine.clear();
    for (const TokenRun& run : runs[static_cast<size_t>(rank)]) {
      if (run.stride == 1) {
        mine.push_back({run.offset, run.offset + run.count});
        continue;
      }
      for (int64_t i = 0; i < run.count; ++i) {
        mine.push_back({run.Position(i), run.Position(i) + 1});
      }
    }
    return MakeBlock(std::move(ranges));
  });
}

AttentionSharding BySequence(const AttentionPoint& p) {
  const auto runs = RunsOfRanks({p.layout, p.length(), p.ranks});
  const std::string name = fmt::format("{} tokens", Name(p.layout));
  const Sharding tokens = ByRuns(name, 1, runs);
  if (p.queries > 0) return {Replicated(), tokens, Replicated()};
  return {tokens, tokens, ByRuns(name, 2, runs)};
}

Tensors AttentionTensors(const AttentionPoint& p, const AttentionSharding& by) {
  const int64_t queries = QueriesOf(p).count;
  const Shape q = {p.sequences, queries, p.heads, p.head_dim};
  const Shape k = {p.sequences, p.length(), p.kv_heads, p.head_dim};
  // Uniform in [-s, s]: products of d such have a deviation of s^2 sqrt(d) / 3.
  const double s = std::sqrt(3.0);
  const auto in = [&](const char* name, const Shape& shape,
                      const Sharding& sharding, double scale) {
    return Input(name, p.dtype, shape, sharding)
        .Data({.bounded = Uniform(p.dtype, scale)});
  };
  const auto gradient = [&](const char* name, const Shape& shape,
                            const Sharding& sharding) {
    return Output(name, p.dtype, shape, sharding).Gradient().SampleDimension(2);
  };
  Tensors all = {in("q", q, by.q, s * p.spread), in("k", k, by.k, s * p.spread),
                 in("v", k, by.k, 1)};
  const bool backward = p.queries == 0;
  if (backward) all.push_back(in("do", q, by.q, 1));
  all.push_back(Output("o", p.dtype, q, by.q).SampleDimension(2));
  all.push_back(Output("lse", Accumulator(p.dtype),
                       {p.sequences, p.heads, queries}, by.lse)
                    .SampleDimension(1));
  if (!backward) return all;
  all.push_back(gradient("dq", q, by.q));
  all.push_back(gradient("dk", k, by.k));
  all.push_back(gradient("dv", k, by.k));
  return all;
}

StatusOr<DenseOutputs> AttentionExpected(const AttentionPoint& p,
                                         int64_t merges, const Inputs& in,
                                         const Sample& sample) {
  const DType wide = Accumulator(p.dtype);
  const int64_t group = p.heads / p.kv_heads;
  const std::vector<int64_t> groups = Groups(p, sample);
  const std::vector<int64_t> heads = HeadsOf(groups, group);
  const Tensor q = SomeHeads(in.Global("q"), heads);
  const Tensor k = SomeHeads(in.Global("k"), groups);
  const Tensor v = SomeHeads(in.Global("v"), groups);
  const bool backward = p.queries == 0;
  const Tensor d_o = backward ? SomeHeads(in.Global("do"), heads) : Tensor();
  FlashInputs inputs = {.sequences = p.sequences,
                        .heads = static_cast<int64_t>(heads.size()),
                        .kv_heads = static_cast<int64_t>(groups.size()),
                        .heads_per_kv = group,
                        .head_dim = p.head_dim,
                        .scale = ConfigOf(p).Scale(),
                        .seen = SeenByEach(p),
                        .q = q.view(),
                        .k = k.view(),
                        .v = v.view()};
  if (backward) inputs.d_o = d_o.view();
  const FlashResult r = FlashReference(inputs, ArithmeticOf(p, merges));
  const auto places = [&](const char* name, const std::vector<int64_t>& of,
                          int64_t extent) {
    return PlacesAmong(Wanted(sample, name, extent), of);
  };
  const auto at = [&](const Matrix& m, const char* name,
                      const std::vector<int64_t>& of, int64_t extent,
                      DType dtype) {
    return HeadsAt(m, places(name, of, extent), p.head_dim, dtype, wide);
  };
  DenseOutputs out;
  out["o"] = at(r.o, "o", heads, p.heads, wide);  // Rounded already.
  out["lse"] =
      LseAt(r.lse, places("lse", heads, p.heads), p.sequences, inputs.heads);
  if (!backward) return out;
  out["dq"] = at(r.dq, "dq", heads, p.heads, p.dtype);
  out["dk"] = at(r.dk, "dk", groups, p.kv_heads, p.dtype);
  out["dv"] = at(r.dv, "dv", groups, p.kv_heads, p.dtype);
  return out;
}

double AttentionFlops(const AttentionPoint& p) {
  const TokenRun all = {.count = p.length()};
  const auto pairs =
      static_cast<double>(CountPairs(VisibilityOf(p), QueriesOf(p), all));
  return (p.queries > 0 ? 4 : 14) * pairs *
         static_cast<double>(p.sequences * p.heads * p.head_dim);
}

Case<AttentionPoint> AttentionCase(
    std::string name, std::string what,
    std::function<int64_t(const AttentionPoint&)> merges,
    std::initializer_list<SequenceLayout> layouts) {
  using P = AttentionPoint;
  const SequenceLayout first = *layouts.begin();
  Case<P> c;
  c.name = std::move(name);
  c.what = std::move(what);
  c.axes = {
      Axis("dtype", &P::dtype,
           {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
          .Bench({DType::kBF16}),
      Axis("layout", &P::layout, layouts),
      // Full first: faults are planted into the first instance, and what a
      // causal mask lets nobody see would be lost without harm.
      Axis("mask", &P::mask,
           {AttentionMask::kFull, AttentionMask::kCausal,
            AttentionMask::kWindow, AttentionMask::kDocuments})
          .Bench({AttentionMask::kCausal}),
      Axis("kv_heads", &P::kv_heads, {2, 8, 1}).Bench({2}),
      Axis("spread", &P::spread, {1, 12}).Bench({1.0}),
      Axis("sequences", &P::sequences, {2}).Bench({1}),
      // Of one token dq and dk are 0, whatever a scheme does.
      Axis("tokens", &P::tokens, {kTokens, 2}).Bench({256}),
      Axis("heads", &P::heads, {8}),
      Axis("head_dim", &P::head_dim, {16, kWideHead}).Bench({kWideHead})};
  c.skip = Skip;
  c.tensors = [](const P& p) { return AttentionTensors(p, BySequence(p)); };
  c.reference = DenseReference<P>(
      [merges = std::move(merges)](const P& p, const Arithmetic&,
                                   const Inputs& in, const Sample& sample) {
        return AttentionExpected(p, merges(p), in, sample);
      });
  c.exact = false;  // Not linear.
  c.flops = AttentionFlops;
  c.floor = [](const P& p) {
    return Floor{.flops = AttentionFlops(p) / p.ranks};
  };
  c.workload = [first](const Workload& workload, int ranks) {
    std::vector<P> points = WorkloadOf(workload, ranks);
    for (P& p : points) p.layout = first;
    return points;
  };
  return c;
}

AttentionForwardArgs ForwardArgsOf(const RankContext& c) {
  return {.q = c.in("q").data,
          .k = c.in("k").data,
          .v = c.in("v").data,
          .o = c.out("o").data,
          .lse = c.out("lse").data};
}

AttentionBackwardArgs BackwardArgsOf(const RankContext& c) {
  return {.q = c.in("q").data,
          .k = c.in("k").data,
          .v = c.in("v").data,
          .o = c.out("o").data,
          .lse = c.out("lse").data,
          .d_o = c.in("do").data,
          .dq = c.out("dq").data,
          .dk = c.out("dk").data,
          .dv = c.out("dv").data};
}

}  // namespace shardproof
