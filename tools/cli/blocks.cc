#include "tools/cli/blocks.h"

#include <algorithm>
#include <cstddef>

#include "reports/statistics/order.h"

namespace shardproof {
namespace {

void Append(const std::vector<double>& more, std::vector<double>& all) {
  all.insert(all.end(), more.begin(), more.end());
}

// At most `most` of them, evenly, in their order.
void Thin(size_t most, std::vector<double>& samples) {
  if (samples.size() <= most) return;
  for (size_t i = 0; i < most; ++i) {
    samples[i] = samples[i * samples.size() / most];
  }
  samples.resize(most);
}

}  // namespace

Record OfBlocks(const std::vector<Record>& blocks) {
  std::vector<const Record*> timed;
  for (const Record& block : blocks) {
    if (block.verdict != Verdict::kPassed) return block;
    if (block.time_us.has_value()) timed.push_back(&block);
  }
  if (timed.size() < 2) return timed.empty() ? blocks.front() : *timed.front();

  std::vector<const Record*> by_median = timed;
  std::ranges::stable_sort(by_median, [](const Record* a, const Record* b) {
    return a->time_us->median < b->time_us->median;
  });
  Record out = *by_median[(by_median.size() - 1) / 2];
  out.error = blocks.front().error;
  Record::Time& t = *out.time_us;
  t.interval_low = std::min(t.interval_low, by_median.front()->time_us->median);
  t.interval_high =
      std::max(t.interval_high, by_median.back()->time_us->median);

  t.samples = 0;
  t.samples_us.clear();
  for (auto& rank : t.rank_samples_us) rank.clear();
  for (const Record* block : timed) {
    const Record::Time& b = *block->time_us;
    t.samples += b.samples;
    t.min = std::min(t.min, b.min);
    t.max = std::max(t.max, b.max);
    Append(b.samples_us, t.samples_us);
    const size_t ranks =
        std::min(t.rank_samples_us.size(), b.rank_samples_us.size());
    for (size_t r = 0; r < ranks; ++r) {
      Append(b.rank_samples_us[r], t.rank_samples_us[r]);
    }
    for (const std::string& flag : b.flags) {
      if (std::ranges::find(t.flags, flag) == t.flags.end()) {
        t.flags.push_back(flag);
      }
    }
  }
  std::vector<double> sorted = t.samples_us;
  std::ranges::sort(sorted);
  if (!sorted.empty()) {
    t.p10 = Quantile(sorted, 0.1);
    t.p90 = Quantile(sorted, 0.9);
  }
  Thin(kKeptSamples, t.samples_us);
  for (auto& rank : t.rank_samples_us) Thin(kKeptRankSamples, rank);
  return out;
}

}  // namespace shardproof
