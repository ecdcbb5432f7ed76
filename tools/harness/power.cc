#include "tools/harness/power.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace shardproof {
namespace {

// The expected values of one output, as far as they are looked at, over all
// ranks that hold different ones.
struct Look {
  const TensorSpec* spec = nullptr;
  int rank = 0;
  Interval segment;
};

std::vector<Look> Places(const Tensors& tensors, int ranks,
                         const Sample& sample) {
  std::vector<Look> looks;
  for (const TensorSpec& spec : tensors) {
    if (spec.role != TensorRole::kOutput) continue;
    const bool same = spec.sharding.kind == ShardKind::kReplicated;
    for (int r = 0; r < (same ? 1 : ranks); ++r) {
      int64_t left = kPowerMaxElements;
      for (const Interval& s : SampledSegments(spec, r, ranks, sample)) {
        if (left <= 0) break;
        const int64_t n = std::min(left, s.end - s.begin);
        looks.push_back({&spec, r, {s.begin, s.begin + n}});
        left -= n;
      }
    }
  }
  return looks;
}

using Values = std::vector<Bounded>;

// Only elements that are written.
void KeepWritten(const Values& by, Values& values) {
  size_t kept = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!Expectation::IsUntouched(by[i])) values[kept++] = values[i];
  }
  values.resize(kept);
}

Status Blind(const Status& status, const TensorSpec& spec) {
  return InvalidArgument("blind: {}: {}", spec.name, status.message());
}

}  // namespace

Status CheckPower(const Expectation& expected, const Inputs& inputs,
                  const Tensors& tensors, int ranks, Tier tier,
                  bool drop_ranks) {
  if (Status s = CheckInputsDiffer(inputs, tensors, ranks); !s.ok()) {
    return InvalidArgument("blind: {}", s.message());
  }
  const std::vector<Look> looks = Places(tensors, ranks, expected.sample());
  std::map<const TensorSpec*, int64_t> elements;
  for (const Look& l : looks) {
    elements[l.spec] += l.segment.end - l.segment.begin;
  }
  for (const auto& [spec, n] : elements) {
    if (n < kPowerMinElements) continue;
    PowerCheck power(spec->dtype,
                     tier == Tier::kExact || IsInteger(spec->dtype));
    const auto read = [&](const Look& look, const Expectation& from) {
      Values v(static_cast<size_t>(look.segment.end - look.segment.begin));
      from.Read(*look.spec, look.rank, look.segment.begin, v);
      return v;
    };
    for (const Look& look : looks) {
      if (look.spec != spec) continue;
      Values y = read(look, expected);
      KeepWritten(Values(y), y);
      power.Add("all zero", y, std::vector<double>(y.size(), 0.0));
    }
    for (int dropped = 0; drop_ranks && dropped < ranks; ++dropped) {
      const WithoutRank without(inputs, tensors, dropped, ranks);
      Expectation faulty = expected.With(without);
      SP_RETURN_IF_ERROR(faulty.Prepare(nullptr, 0));
      std::vector<std::pair<Values, std::vector<double>>> pairs;
      bool matters = false;
      for (const Look& look : looks) {
        if (look.spec != spec) continue;
        Values y = read(look, expected), z = read(look, faulty);
        KeepWritten(Values(y), z);
        KeepWritten(Values(y), y);
        std::vector<double> wrong;
        for (size_t i = 0; i < z.size(); ++i) {
          wrong.push_back(z[i].value);
          matters = matters || z[i].value != y[i].value;
        }
        pairs.emplace_back(std::move(y), std::move(wrong));
      }
      // A rank that contributes nothing (all but the root of a broadcast).
      if (!matters) continue;
      for (const auto& [y, wrong] : pairs) {
        power.Add(fmt::format("the contribution of rank {} dropped", dropped),
                  y, wrong);
      }
    }
    if (Status s = power.Check(); !s.ok()) return Blind(s, *spec);
  }
  return OkStatus();
}

}  // namespace shardproof
