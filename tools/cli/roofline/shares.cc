#include "tools/cli/roofline/shares.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "reports/statistics/order.h"

namespace shardproof {

Share ShareOf(const cuda::KernelCost& cost, DType dtype, double median_us,
              const GpuCeilings& ceilings) {
  Share share;
  if (!(median_us > 0)) return share;
  share.gbps = cost.bytes / median_us / 1e3;
  share.tflops = cost.flops / median_us / 1e6;
  share.of_products = cost.flops > 0;
  double ceiling = ceilings.copy_bytes_per_us, amount = cost.bytes;
  if (share.of_products) {
    const auto found = ceilings.flops_per_us.find(dtype);
    ceiling = found == ceilings.flops_per_us.end() ? 0 : found->second;
    amount = cost.flops;
  }
  if (ceiling > 0 && amount > 0) {
    share.floor_us = amount / ceiling;
    share.of_ceiling = *share.floor_us / median_us;
  }
  if (cost.wanted_tflops > 0 && share.tflops < cost.wanted_tflops) {
    share.finding = fmt::format("{:.0f} TFLOP/s, wanted {:.0f}", share.tflops,
                                cost.wanted_tflops);
  }
  if (!share.of_products && share.floor_us.value_or(0) >= kShortUs &&
      *share.of_ceiling < kWantedOfCopy) {
    share.finding =
        fmt::format("{:.0f} percent of the copy ceiling, wanted {:.0f}",
                    100 * *share.of_ceiling, 100 * kWantedOfCopy);
  }
  return share;
}

int SetsForCold(int64_t bytes, int64_t l2_bytes, int most) {
  if (bytes <= 0 || l2_bytes <= 0) return 1;
  return static_cast<int>(
      std::clamp<int64_t>(2 * l2_bytes / bytes + 1, 1, std::max(most, 1)));
}

int LaunchesPerSample(double once_us, double sample_us, int most) {
  if (!(once_us > 0)) return most;
  return static_cast<int>(std::clamp(std::ceil(sample_us / once_us), 1.0,
                                     static_cast<double>(most)));
}

Record::Time TimeOf(const std::vector<double>& samples_us,
                    int launches_per_sample) {
  std::vector<double> sorted = samples_us;
  std::ranges::sort(sorted);
  const OrderInterval interval =
      MedianInterval(static_cast<int>(sorted.size()));
  Record::Time time;
  time.median = Quantile(sorted, 0.5);
  time.p10 = Quantile(sorted, 0.1);
  time.p90 = Quantile(sorted, 0.9);
  time.min = sorted.front();
  time.max = sorted.back();
  time.interval_low = sorted[static_cast<size_t>(interval.low)];
  time.interval_high = sorted[static_cast<size_t>(interval.high)];
  time.samples = static_cast<int>(sorted.size());
  time.operations_per_sample = launches_per_sample;
  time.cadence = "streaming";
  time.per_rank_median = {time.median};
  time.samples_us = samples_us;
  if (time.samples_us.size() > kKeptSamples) {
    time.samples_us.resize(kKeptSamples);
  }
  return time;
}

}  // namespace shardproof
