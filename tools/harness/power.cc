#include "tools/harness/power.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace shardproof {
namespace {

using Values = std::vector<Bounded>;

// What one rank compares of an output, as far as it is looked at.
struct Look {
  int rank = 0;
  Segments segments;
};

// `most` elements, or all where there are fewer.
Segments Some(const Segments& all, int64_t most) {
  int64_t total = 0;
  for (const Interval& s : all) total += s.end - s.begin;
  if (total <= most) return all;
  Segments some;
  for (int k = 0; k < kPowerStretches; ++k) {
    int64_t left =
        most * (k + 1) / kPowerStretches - most * k / kPowerStretches;
    for (const Interval& s : PartOf(all, k, kPowerStretches)) {
      if (left <= 0) break;
      const int64_t n = std::min(left, s.end - s.begin);
      some.push_back({s.begin, s.begin + n});
      left -= n;
    }
  }
  return some;
}

std::vector<Look> LooksAt(const TensorSpec& spec, int ranks,
                          const Sample& sample) {
  const bool parts = spec.is_replica();
  const bool alike = spec.sharding.kind == ShardKind::kReplicated && !parts;
  const int64_t most = std::max(
      kPowerMinElements, parts ? kPowerMaxElements / ranks : kPowerMaxElements);
  std::vector<Look> looks;
  for (int r = 0; r < (alike ? 1 : ranks); ++r) {
    looks.push_back(
        {.rank = r,
         .segments = Some(ComparedSegments(spec, r, ranks, sample), most)});
  }
  return looks;
}

Values Read(const TensorSpec& spec, const Look& look,
            const Expectation& expected) {
  Values values;
  for (const Interval& s : look.segments) {
    const size_t at = values.size();
    values.resize(at + static_cast<size_t>(s.end - s.begin));
    expected.Read(spec, look.rank, s.begin, std::span(values).subspan(at));
  }
  return values;
}

// What one rank compares, and the same with a fault.
struct Faulty {
  const Values* right = nullptr;
  std::vector<double> wrong;

  int64_t Changed() const {
    int64_t changed = 0;
    for (size_t i = 0; i < wrong.size(); ++i) {
      const double y = (*right)[i].value, z = wrong[i];
      changed += y == z || (std::isnan(y) && std::isnan(z)) ? 0 : 1;
    }
    return changed;
  }
};

// The comparisons of one output, and the faults planted into it.
class OutputPower {
 public:
  OutputPower(const TensorSpec& spec, int ranks, Tier tier,
              const Expectation& expected)
      : spec_(spec),
        ranks_(ranks),
        looks_(LooksAt(spec, ranks, expected.sample())),
        power_(spec.dtype, tier == Tier::kExact || IsInteger(spec.dtype)) {
    for (const Look& look : looks_) {
      probed_gain_.push_back(expected.ProbedGain(spec, look.rank));
      Values& y = right_.emplace_back();
      for (const Bounded& b : Read(spec, look, expected)) {
        written_.push_back(!Expectation::IsUntouched(b));
        if (written_.back()) y.push_back(b);
      }
    }
  }

  int64_t elements() const { return static_cast<int64_t>(written_.size()); }

  // On all ranks alike: one of them must find it.
  void Scale(const std::string& name, double factor) {
    for (size_t l = 0; l < looks_.size(); ++l) {
      const Values& y = right_[l];
      power_.Add(name, y, Scaled(y, factor, 0, y.size()).wrong,
                 probed_gain_[l]);
    }
  }

  // Without what `rank` gave, where that changes anything. (What those who are
  // not the root of a broadcast have does not.)
  void Drop(int rank, const Expectation& without) {
    std::vector<Faulty> faults;
    int64_t changed = 0;
    size_t at = 0;
    for (size_t l = 0; l < looks_.size(); ++l) {
      Faulty& f = faults.emplace_back(Faulty{.right = &right_[l], .wrong = {}});
      for (const Bounded& b : Read(spec_, looks_[l], without)) {
        if (written_[at++]) f.wrong.push_back(b.value);
      }
      changed += f.Changed();
    }
    if (changed == 0) return;
    for (size_t l = 0; l < looks_.size(); ++l) {
      power_.Add(fmt::format("the contribution of rank {} dropped", rank),
                 *faults[l].right, faults[l].wrong, probed_gain_[l]);
    }
  }

  // Within what one rank compares: nobody else can find it.
  void PlantLocalFaults() {
    for (size_t l = 0; l < looks_.size(); ++l) {
      const Values& y = right_[l];
      const std::string where = fmt::format("rank {}", looks_[l].rank);
      AddLocal(l, "all zero on " + where, Scaled(y, 0, 0, y.size()));
      if (ranks_ == 1) continue;
      AddLocal(l, "divided by the ranks on " + where,
               Scaled(y, 1.0 / ranks_, 0, y.size()));
      // Of replicas each rank compares a chunk as it is.
      if (spec_.is_replica()) continue;
      const auto chunks = static_cast<size_t>(ranks_);
      for (size_t c = 0; c < chunks; ++c) {
        AddLocal(
            l, fmt::format("chunk {} dropped on {}", c, where),
            Scaled(y, 0, y.size() * c / chunks, y.size() * (c + 1) / chunks));
      }
    }
  }

  Status Check() const {
    const Status found = power_.Check();
    if (found.ok()) return found;
    return InvalidArgument("blind: {}: {}", spec_.name, found.message());
  }

 private:
  static Faulty Scaled(const Values& y, double factor, size_t begin,
                       size_t end) {
    Faulty f{.right = &y, .wrong = {}};
    for (size_t i = 0; i < y.size(); ++i) {
      const bool changes = i >= begin && i < end;
      // Zero times infinity would be no zero.
      const double scaled = factor == 0 ? 0 : factor * y[i].value;
      f.wrong.push_back(changes ? scaled : y[i].value);
    }
    return f;
  }
  void AddLocal(size_t look, const std::string& name, const Faulty& fault) {
    if (fault.Changed() < kPowerMinElements) return;
    power_.Add(name, *fault.right, fault.wrong, probed_gain_[look]);
  }

  const TensorSpec& spec_;
  const int ranks_;
  const std::vector<Look> looks_;
  std::vector<bool> written_;  // Of all looks, one after the other.
  std::vector<Values> right_;  // By look, only what is written.
  std::vector<std::optional<double>> probed_gain_;  // By look.
  PowerCheck power_;
};

}  // namespace

Status CheckPower(const Expectation& expected, const Inputs& inputs,
                  const Tensors& tensors, int ranks, Tier tier) {
  if (Status s = CheckInputsDiffer(inputs, tensors, ranks); !s.ok()) {
    return InvalidArgument("blind: {}", s.message());
  }
  for (const TensorSpec& spec : tensors) {
    if (spec.role != TensorRole::kOutput) continue;
    OutputPower output(spec, ranks, tier, expected);
    if (output.elements() < kPowerMinElements) continue;
    output.Scale("all zero", 0);
    if (ranks > 1) output.Scale("divided by the ranks", 1.0 / ranks);
    output.PlantLocalFaults();
    SP_RETURN_IF_ERROR(output.Check());
  }
  return OkStatus();
}

Status CheckDrops(const Expectation& expected, const Inputs& inputs,
                  const Tensors& tensors, int ranks, Tier tier,
                  std::span<const int> dropped) {
  std::deque<OutputPower> outputs;  // They stay where they are.
  for (const TensorSpec& spec : tensors) {
    if (spec.role != TensorRole::kOutput || dropped.empty()) continue;
    OutputPower& output = outputs.emplace_back(spec, ranks, tier, expected);
    if (output.elements() < kPowerMinElements) outputs.pop_back();
  }
  if (outputs.empty()) return OkStatus();
  for (const int r : dropped) {
    const WithoutRank without(inputs, tensors, r, ranks);
    Expectation faulty = expected.With(without);
    SP_RETURN_IF_ERROR(faulty.Prepare(nullptr, 0));
    for (OutputPower& output : outputs) output.Drop(r, faulty);
  }
  for (const OutputPower& output : outputs) SP_RETURN_IF_ERROR(output.Check());
  return OkStatus();
}

}  // namespace shardproof
