#include "tools/harness/generated_inputs.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace shardproof {
namespace {

constexpr int64_t kBlock = 2048;

[[noreturn]] void NoSuchInput(std::string_view tensor) {
  fmt::print(stderr,
             "shardproof: a case asks for input \"{}\", which it does not "
             "have\n",
             tensor);
  std::abort();
}

DType Narrower(DType a, DType b) {
  return SignificandBits(a) <= SignificandBits(b) ? a : b;
}

// Values that survive `data.op` exactly, stored in `dtype`.
StatusOr<Distribution> ExactFor(const TensorData& data, DType dtype) {
  const DType through = data.exact_in.value_or(dtype);
  const int terms = static_cast<int>(data.terms);
  Distribution d;
  switch (data.op) {
    case ReduceOp::kMin:
    case ReduceOp::kMax:
      // Selection rounds nothing.
      return Uniform(dtype, IsInteger(dtype) ? MaxFinite(dtype) : data.scale);
    case ReduceOp::kProd: {
      SP_ASSIGN_OR_RETURN(d, ExactProduct(Narrower(dtype, through), terms));
      break;
    }
    case ReduceOp::kAvg: {
      SP_ASSIGN_OR_RETURN(d, ExactAverage(Narrower(dtype, through), terms));
      break;
    }
    case ReduceOp::kSum:
    case ReduceOp::kPremulSum: {
      SP_ASSIGN_OR_RETURN(d, ExactSum(through, terms));
      // The sum may be wider than what one term is stored in.
      const double most = std::ldexp(1.0, SignificandBits(dtype)) - 1;
      if (most < static_cast<double>(d.magnitude)) {
        d.magnitude = static_cast<int64_t>(most);
      }
      break;
    }
  }
  d.dtype = dtype;
  return d;
}

StatusOr<Distribution> DistributionFor(const TensorSpec& spec, Tier tier) {
  const TensorData& data = spec.data;
  const auto& given = tier == Tier::kExact ? data.exact : data.bounded;
  if (given.has_value()) {
    Distribution d = *given;
    d.dtype = spec.dtype;
    return d;
  }
  if (tier == Tier::kExact) return ExactFor(data, spec.dtype);
  return Uniform(spec.dtype, data.scale);
}

}  // namespace

std::string_view Name(Tier tier) {
  return tier == Tier::kExact ? "exact" : "bounded";
}

StatusOr<std::unique_ptr<GeneratedInputs>> GeneratedInputs::Create(
    const Tensors& tensors, int ranks, Tier tier, uint64_t seed) {
  std::unique_ptr<GeneratedInputs> inputs(
      new GeneratedInputs(ranks, tier, seed));
  for (const TensorSpec& spec : tensors) {
    if (spec.role != TensorRole::kInput) continue;
    auto d = DistributionFor(spec, tier);
    if (!d.ok()) return d.status().WithContext(spec.name);
    inputs->streams_.push_back({.spec = &spec, .distribution = *d});
  }
  return inputs;
}

const GeneratedInputs::Stream& GeneratedInputs::Find(
    std::string_view tensor) const {
  for (const Stream& s : streams_) {
    if (s.spec->name == tensor) return s;
  }
  NoSuchInput(tensor);
}

StreamKey GeneratedInputs::Key(const Stream& stream, int rank) const {
  const bool own = stream.spec->sharding.kind == ShardKind::kPerRank;
  return {.seed = seed_,
          .tensor = TensorId(stream.spec->name),
          .rank = own ? static_cast<uint64_t>(rank) : 0};
}

// Bounded data of different ranks differ in scale as well, within [1/4, 1) of
// what was asked for, so that exchanged shards show.
Distribution GeneratedInputs::For(const Stream& stream, int rank) const {
  Distribution d = stream.distribution;
  if (tier_ == Tier::kBounded && IsFloat(d.dtype) &&
      stream.spec->sharding.kind == ShardKind::kPerRank) {
    d.scale *= ShardScale(Key(stream, rank)) / 2;
  }
  return d;
}

void GeneratedInputs::FillBlock(const TensorSpec& spec, int rank,
                                void* data) const {
  const Stream& stream = Find(spec.name);
  const LocalBlock block = spec.BlockOf(rank, ranks_);
  const int64_t n = block.shape.NumElements();
  if (n == 0) return;
  auto* bytes = static_cast<std::byte*>(data);
  const int size = SizeOf(spec.dtype);
  const auto fill = [&](int64_t local, int64_t from, int64_t count) {
    if (spec.data.ids_below > 0) {
      std::vector<double> values(static_cast<size_t>(std::min(count, kBlock)));
      for (int64_t i = 0; i < count; i += kBlock) {
        const int64_t take = std::min(kBlock, count - i);
        Read(spec.name, rank, from + i,
             std::span(values).first(static_cast<size_t>(take)));
        FromDouble(spec.dtype, values.data(), take, bytes + (local + i) * size);
      }
    } else {
      Fill(For(stream, rank), Key(stream, rank), from, count,
           bytes + local * size);
    }
  };
  if (spec.sharding.kind == ShardKind::kPerRank) return fill(0, 0, n);
  ForEachRun(spec.shape, block, 0, n, [&](const IndexRun& run) {
    fill(run.local, run.global, run.length);
  });
}

void GeneratedInputs::Read(std::string_view tensor, int rank, int64_t begin,
                           std::span<double> out) const {
  const Stream& stream = Find(tensor);
  const StreamKey key = Key(stream, rank);
  const int64_t below = stream.spec->data.ids_below;
  if (below > 0) {
    for (size_t i = 0; i < out.size(); ++i) {
      const uint64_t at = static_cast<uint64_t>(begin) + i;
      out[i] = static_cast<double>(RandomBits(key, at) %
                                   static_cast<uint64_t>(below));
    }
    return;
  }
  FillDouble(For(stream, rank), key, begin, static_cast<int64_t>(out.size()),
             out.data());
}

std::vector<double> GeneratedInputs::All(std::string_view tensor) const {
  const int64_t n = Find(tensor).spec->shape.NumElements();
  std::vector<double> values(static_cast<size_t>(n));
  Read(tensor, 0, 0, values);
  return values;
}

ConstTensorView GeneratedInputs::Global(std::string_view tensor) const {
  const auto known = global_.find(tensor);
  if (known != global_.end()) return known->second.view();
  const TensorSpec& spec = *Find(tensor).spec;
  Tensor whole(spec.dtype, spec.shape);
  TensorSpec replicated = spec;
  if (spec.sharding.kind != ShardKind::kPerRank) {
    replicated.sharding = Replicated();
  }
  FillBlock(replicated, 0, whole.raw());
  return global_.emplace(tensor, std::move(whole)).first->second.view();
}

void WithoutRank::Read(std::string_view tensor, int rank, int64_t begin,
                       std::span<double> out) const {
  inputs_.Read(tensor, rank, begin, out);
  const TensorSpec* spec = FindTensor(tensors_, tensor);
  if (spec == nullptr || out.empty()) return;
  if (spec->sharding.kind == ShardKind::kPerRank) {
    if (rank == rank_) std::fill(out.begin(), out.end(), 0.0);
    return;
  }
  if (spec->sharding.kind == ShardKind::kReplicated) return;
  const LocalBlock block = spec->BlockOf(rank_, ranks_);
  const auto end = begin + static_cast<int64_t>(out.size());
  ForEachRun(spec->shape, block, 0, block.shape.NumElements(),
             [&](const IndexRun& run) {
               const int64_t from = std::max(run.global, begin);
               const int64_t to = std::min(run.global + run.length, end);
               for (int64_t i = from; i < to; ++i) {
                 out[static_cast<size_t>(i - begin)] = 0;
               }
             });
}

std::vector<double> WithoutRank::All(std::string_view tensor) const {
  const TensorSpec* spec = FindTensor(tensors_, tensor);
  if (spec == nullptr) NoSuchInput(tensor);
  std::vector<double> values(static_cast<size_t>(spec->shape.NumElements()));
  Read(tensor, 0, 0, values);
  return values;
}

ConstTensorView WithoutRank::Global(std::string_view tensor) const {
  const auto known = global_.find(tensor);
  if (known != global_.end()) return known->second.view();
  const std::vector<double> values = All(tensor);
  const TensorSpec& spec = *FindTensor(tensors_, tensor);
  Tensor whole(spec.dtype, spec.shape);
  FromDouble(spec.dtype, values.data(), static_cast<int64_t>(values.size()),
             whole.raw());
  return global_.emplace(tensor, std::move(whole)).first->second.view();
}

Status CheckInputsDiffer(const Inputs& inputs, const Tensors& tensors,
                         int ranks) {
  constexpr int64_t kLook = 256;
  // Fewer elements may agree by chance; zeros do so where data are sparse.
  constexpr int64_t kEnough = 24;
  const auto telling = [](auto begin, auto end) {
    return 2 * std::count_if(begin, end, [](double v) { return v != 0; }) >=
           kEnough;
  };
  for (const TensorSpec& spec : tensors) {
    if (spec.role != TensorRole::kInput || spec.data.ids_below > 0) continue;
    const bool own = spec.sharding.kind == ShardKind::kPerRank;
    std::vector<double> first;
    for (int r = 0; r < (own ? ranks : 1); ++r) {
      const int64_t all = own ? spec.BlockOf(r, ranks).shape.NumElements()
                              : spec.shape.NumElements();
      std::vector<double> x(static_cast<size_t>(std::min(all, kLook)));
      inputs.Read(spec.name, r, 0, x);
      const auto n = static_cast<int64_t>(x.size());
      for (int64_t period = 1; period + kEnough <= n; ++period) {
        if (std::equal(x.begin() + period, x.end(), x.begin()) &&
            telling(x.begin() + period, x.end())) {
          return InvalidArgument(
              "input {} of rank {} repeats itself every {} elements: misplaced "
              "chunks would pass",
              spec.name, r, period);
        }
      }
      if (r == 0) {
        first = std::move(x);
      } else if (n >= kEnough && x == first && telling(x.begin(), x.end())) {
        return InvalidArgument("input {} is the same on ranks 0 and {}",
                               spec.name, r);
      }
    }
  }
  return OkStatus();
}

}  // namespace shardproof
