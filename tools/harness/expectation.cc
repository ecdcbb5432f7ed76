#include "tools/harness/expectation.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "reference/linear.h"
#include "reference/probe.h"
#include "tools/harness/check.h"
#include "tools/harness/hash.h"

namespace shardproof {
namespace {

// The first and last index of every interval that any rank holds.
void AddBorders(const TensorSpec& spec, int ranks, std::vector<int64_t>& out) {
  for (int r = 0; r < ranks; ++r) {
    const LocalBlock block = spec.BlockOf(r, ranks);
    for (const Interval& range : block.ranges[spec.sample_dimension]) {
      if (range.begin == range.end) continue;
      out.push_back(range.begin);
      out.push_back(range.end - 1);
    }
  }
}

// What all ranks together compare of an output: of a replica each its part.
int64_t ElementsCompared(const TensorSpec& spec, int ranks) {
  if (spec.is_replica()) return spec.shape.NumElements();
  int64_t elements = 0;
  for (int r = 0; r < ranks; ++r) {
    elements += spec.BlockOf(r, ranks).shape.NumElements();
  }
  return elements;
}

// Where the furthest index of the sample dimension ends that any rank holds:
// the sizes of ranks may have nothing to do with the shape.
int64_t SampledExtent(const TensorSpec& spec, int ranks) {
  int64_t extent = 0;
  for (int r = 0; r < ranks; ++r) {
    const LocalBlock block = spec.BlockOf(r, ranks);
    for (const Interval& range : block.ranges[spec.sample_dimension]) {
      extent = std::max(extent, range.end);
    }
  }
  return extent;
}

// Elements per index of dimension d.
int64_t Inner(const Shape& shape, int d) {
  int64_t inner = 1;
  for (int i = d + 1; i < shape.rank(); ++i) inner *= shape[i];
  return inner;
}

// One term per element; none where the value is 0, whatever the error.
template <class Error>
std::vector<Bounded> Weighted(const std::vector<Bounded>& y, Error error) {
  std::vector<Bounded> terms(y.size());
  for (size_t i = 0; i < y.size(); ++i) {
    terms[i].value = y[i].value == 0 ? 0 : error(i);
  }
  return terms;
}

}  // namespace

Sample PlanSample(const Tensors& tensors, int ranks, double flops,
                  const SampleLimits& limits, uint64_t seed) {
  Sample sample;
  for (const TensorSpec& spec : tensors) {
    const int d = spec.sample_dimension;
    if (spec.role != TensorRole::kOutput || d < 0) continue;
    const int64_t all = ElementsCompared(spec, ranks);
    if (all == 0) continue;
    const int64_t extent = SampledExtent(spec, ranks);
    double share = 1;
    if (all > limits.elements) {
      share = static_cast<double>(limits.elements) / static_cast<double>(all);
    }
    if (limits.flops > 0 && flops > limits.flops) {
      share = std::min(share, limits.flops / flops);
    }
    if (share >= 1) continue;
    std::vector<int64_t> indices = SampleRows(
        extent,
        std::max<int64_t>(1, static_cast<int64_t>(std::floor(
                                 share * static_cast<double>(extent)))),
        seed);
    AddBorders(spec, ranks, indices);
    std::sort(indices.begin(), indices.end());
    indices.erase(std::unique(indices.begin(), indices.end()), indices.end());
    if (static_cast<int64_t>(indices.size()) == extent) continue;
    sample.emplace(spec.name, std::move(indices));
  }
  return sample;
}

Segments SampledSegments(const TensorSpec& spec, int rank, int ranks,
                         const Sample& sample) {
  const LocalBlock block = spec.BlockOf(rank, ranks);
  const int64_t n = block.shape.NumElements();
  if (n == 0) return {};
  const auto found = sample.find(spec.name);
  if (found == sample.end()) return {{0, n}};
  const int d = spec.sample_dimension;
  // Which local indices of dimension d are asked for.
  std::vector<int64_t> chosen;
  const std::vector<int64_t>& wanted = found->second;
  int64_t local = 0;
  for (const Interval& range : block.ranges[d]) {
    auto at = std::lower_bound(wanted.begin(), wanted.end(), range.begin);
    for (; at != wanted.end() && *at < range.end; ++at) {
      chosen.push_back(local + *at - range.begin);
    }
    local += range.end - range.begin;
  }
  const int64_t inner = Inner(block.shape, d);
  const int64_t outer = n / (inner * block.shape[d]);
  Segments segments;
  for (int64_t o = 0; o < outer; ++o) {
    for (const int64_t c : chosen) {
      const int64_t begin = (o * block.shape[d] + c) * inner;
      if (!segments.empty() && segments.back().end == begin) {
        segments.back().end += inner;
      } else {
        segments.push_back({begin, begin + inner});
      }
    }
  }
  return segments;
}

Segments PartOf(const Segments& segments, int part, int parts) {
  int64_t total = 0;
  for (const Interval& s : segments) total += s.end - s.begin;
  // 128 bits are not needed: totals are below 2^40 and parts below 2^11.
  const int64_t from = total * part / parts;
  const int64_t to = total * (part + 1) / parts;
  Segments out;
  int64_t at = 0;
  for (const Interval& s : segments) {
    const int64_t begin = std::max(from - at, int64_t{0}) + s.begin;
    const int64_t end = std::min(to - at + s.begin, s.end);
    if (begin < end) out.push_back({begin, end});
    at += s.end - s.begin;
  }
  return out;
}

Segments ComparedSegments(const TensorSpec& spec, int rank, int ranks,
                          const Sample& sample) {
  const Segments all = SampledSegments(spec, rank, ranks, sample);
  return spec.is_replica() ? PartOf(all, rank, ranks) : all;
}

Bounded Expectation::Untouched() {
  return {.value = std::numeric_limits<double>::quiet_NaN(), .worst = -1};
}

Expectation::Expectation(const CaseInfo& info, const Instance& instance,
                         const Tensors& tensors, const Arithmetic& arithmetic,
                         const Inputs& inputs, const Sample& sample, int probes)
    : info_(info),
      instance_(instance),
      tensors_(tensors),
      arithmetic_(arithmetic),
      inputs_(inputs),
      sample_(sample),
      probes_(probes) {}

Status Expectation::Prepare(Workspace* workspace, uint64_t key, bool together) {
  if (!is_dense()) return OkStatus();
  if (dense_ != nullptr) return dense_->status();
  const int parts = 1 + probes_;
  const Workspace::Found found =
      workspace != nullptr
          ? workspace->Find(key, parts)
          : Workspace::Found{std::make_shared<Evaluation>(parts), true};
  if (together || found.fresh) EvaluateParts(*found.evaluation);
  dense_ = found.evaluation->Wait();
  return dense_->status();
}

void Expectation::PrepareAhead(Workspace& workspace, uint64_t key) const {
  if (is_dense()) EvaluateParts(*workspace.Find(key, 1 + probes_).evaluation);
}

void Expectation::EvaluateParts(Evaluation& evaluation) const {
  const auto add = [this](int part, const DenseOutputs& outputs,
                          Evaluated& evaluated) {
    AddPart(part, outputs, evaluated);
  };
  while (const std::optional<int> part = evaluation.Take()) {
    std::optional<Probe> probe;
    if (*part > 0) {
      probe.emplace(
          CombineHash(HashText("probe"), static_cast<uint64_t>(*part - 1)));
    }
    StatusOr<DenseOutputs> outputs = EvaluateOnce();
    probe.reset();
    evaluation.Deliver(*part, std::move(outputs), add);
  }
}

StatusOr<DenseOutputs> Expectation::EvaluateOnce() const {
  auto outputs = info_.dense(instance_, arithmetic_, inputs_, sample_);
  if (!outputs.ok()) return outputs.status().WithContext("the reference");
  SP_RETURN_IF_ERROR(CheckDense(*outputs));
  return outputs;
}

void Expectation::AddPart(int part, const DenseOutputs& outputs,
                          Evaluated& evaluated) const {
  if (part > 0) {
    AddProbe(outputs, evaluated);
    if (part == probes_) FinishProbing(evaluated);
    return;
  }
  evaluated.values = outputs;
  for (const TensorSpec& spec : tensors_) {
    if (spec.role != TensorRole::kOutput || probes_ == 0) continue;
    const auto ranks = static_cast<size_t>(instance_.ranks);
    evaluated.probing.emplace(
        spec.name, Evaluated::Probing{Deviations(outputs.at(spec.name).size()),
                                      std::vector<double>(ranks)});
  }
}

void Expectation::AddProbe(const DenseOutputs& probed,
                           Evaluated& evaluated) const {
  for (const TensorSpec& spec : tensors_) {
    if (spec.role != TensorRole::kOutput) continue;
    Evaluated::Probing& sums = evaluated.probing.at(spec.name);
    const std::vector<Bounded>& y = evaluated.values.at(spec.name);
    const std::vector<Bounded>& c = probed.at(spec.name);
    sums.elements.Add(y, c);
    const std::vector<Bounded> terms = Weighted(
        y, [&](size_t i) { return (c[i].value - y[i].value) * y[i].value; });
    for (int r = 0; r < instance_.ranks; ++r) {
      const double sum = SumCompared(terms, spec, r);
      sums.gain_squares[static_cast<size_t>(r)] += sum * sum;
    }
  }
}

void Expectation::FinishProbing(Evaluated& evaluated) const {
  const int ranks = instance_.ranks;
  const double lambda =
      Lambda(static_cast<double>(Population(tensors_, ranks)));
  const double gain = ProbedLambda(Lambda(1), probes_);
  for (const TensorSpec& spec : tensors_) {
    if (spec.role != TensorRole::kOutput) continue;
    const Evaluated::Probing& sums = evaluated.probing.at(spec.name);
    std::vector<Bounded>& y = evaluated.values.at(spec.name);
    sums.elements.Tighten(lambda, y);
    const std::vector<Bounded> terms = Weighted(y, [&](size_t i) {
      const double b = y[i].Likely(lambda) * y[i].value;
      return b * b;
    });
    std::vector<double>& by_rank = evaluated.probed_gain[spec.name];
    for (int r = 0; r < ranks; ++r) {
      const double squares = sums.gain_squares[static_cast<size_t>(r)];
      const double ratio =
          std::sqrt(squares / probes_ / SumCompared(terms, spec, r));
      // Nothing is compared, or a probe has overflowed.
      by_rank.push_back(std::isfinite(ratio) ? gain * ratio : gain);
    }
  }
  evaluated.probing.clear();
}

double Expectation::SumCompared(const std::vector<Bounded>& values,
                                const TensorSpec& spec, int rank) const {
  double sum = 0;
  std::vector<Bounded> block;
  for (const Interval& s :
       ComparedSegments(spec, rank, instance_.ranks, sample_)) {
    block.resize(static_cast<size_t>(s.end - s.begin));
    ReadDense(values, spec, rank, s.begin, block);
    for (const Bounded& b : block) sum += b.value;
  }
  return sum;
}

std::optional<double> Expectation::ProbedGain(const TensorSpec& spec,
                                              int rank) const {
  if (probes_ == 0) return std::nullopt;
  return (*dense_)->probed_gain.at(spec.name)[static_cast<size_t>(rank)];
}

Status Expectation::CheckDense(const DenseOutputs& outputs) const {
  for (const TensorSpec& spec : tensors_) {
    if (spec.role != TensorRole::kOutput) continue;
    if (spec.sharding.kind == ShardKind::kPerRank ||
        spec.sharding.kind == ShardKind::kPartial) {
      return InvalidArgument("{} is {}: that takes a block reference",
                             spec.name, spec.sharding.name);
    }
    const auto found = outputs.find(spec.name);
    if (found == outputs.end()) {
      return InvalidArgument("the reference does not give {}", spec.name);
    }
    int64_t wanted = spec.shape.NumElements();
    if (const auto s = sample_.find(spec.name); s != sample_.end()) {
      wanted = wanted / spec.shape[spec.sample_dimension] *
               static_cast<int64_t>(s->second.size());
    }
    if (static_cast<int64_t>(found->second.size()) != wanted) {
      return InvalidArgument("the reference gives {} elements of {}, not {}",
                             found->second.size(), spec.name, wanted);
    }
  }
  return OkStatus();
}

void Expectation::Read(const TensorSpec& spec, int rank, int64_t begin,
                       std::span<Bounded> out) const {
  if (is_dense()) {
    return ReadDense((*dense_)->values.at(spec.name), spec, rank, begin, out);
  }
  std::fill(out.begin(), out.end(), Untouched());
  info_.block(instance_, arithmetic_, inputs_,
              {.tensor = spec.name, .rank = rank, .begin = begin}, out);
}

void Expectation::ReadDense(const std::vector<Bounded>& values,
                            const TensorSpec& spec, int rank, int64_t begin,
                            std::span<Bounded> out) const {
  const auto end = begin + static_cast<int64_t>(out.size());
  const auto sampled = sample_.find(spec.name);
  ForEachRun(
      spec.shape, spec.BlockOf(rank, instance_.ranks), begin, end,
      [&](const IndexRun& run) {
        auto to = out.begin() + (run.local - begin);
        if (sampled == sample_.end()) {
          std::copy_n(values.begin() + run.global, run.length, to);
          return;
        }
        // Cut where the index of the sample dimension changes.
        const int d = spec.sample_dimension;
        const int64_t inner = Inner(spec.shape, d), extent = spec.shape[d];
        const std::vector<int64_t>& kept = sampled->second;
        for (int64_t g = run.global; g < run.global + run.length;) {
          const int64_t stop =
              std::min((g / inner + 1) * inner, run.global + run.length);
          const int64_t index = g / inner % extent;
          const auto at = std::lower_bound(kept.begin(), kept.end(), index);
          const int64_t row =
              g / (inner * extent) * static_cast<int64_t>(kept.size()) +
              (at - kept.begin());
          std::copy_n(values.begin() + row * inner + g % inner, stop - g, to);
          to += stop - g;
          g = stop;
        }
      });
}

}  // namespace shardproof
