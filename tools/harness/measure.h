// How an operation is timed: collectives.md, "Measuring".
#ifndef SHARDPROOF_TOOLS_HARNESS_MEASURE_H_
#define SHARDPROOF_TOOLS_HARNESS_MEASURE_H_

#include <cstdint>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "reference/status.h"
#include "tools/harness/variant.h"

namespace shardproof {

// A barrier before each sample, or back to back.
enum class Cadence { kIsolated, kStreaming };

struct MeasureOptions {
  Cadence cadence = Cadence::kIsolated;
  int min_warmup = 5;
  double warmup_seconds = 0.05;
  // Per instance and variant, after the warm-up.
  double min_seconds = 0.0, max_seconds = 0.5;
  int min_samples = 10, max_samples = 1000;
  // Stop when the median's confidence interval is this narrow.
  double target_relative_interval = 0.01;
  // > 0: exactly so many samples (nccl-tests' -n), no early stop.
  int fixed_iterations = 0;
  // >= 0: exactly so many warm-up operations (nccl-tests' -w).
  int fixed_warmup = -1;
};

struct Timing {
  std::vector<double> samples_us;  // The maximum over ranks, per operation.
  std::vector<double> per_rank_median_us;
  std::vector<std::vector<double>> rank_samples_us;  // By rank; as samples_us.
  double median_us = 0, p10_us = 0, p90_us = 0, min_us = 0, max_us = 0;
  // 95 percent, distribution-free.
  double interval_low_us = 0, interval_high_us = 0;
  // > 1: batches, for operations under 20 us. A sample is then the mean of
  // one batch.
  int operations_per_sample = 1;
  bool warmup_settled = true, target_reached = true;
};

// SPMD; equal results on every rank. Rank 0 decides counts and tells the
// others. The operation must not fail on some ranks only: the first error
// aborts the communicator.
StatusOr<Timing> Measure(const Communicator& comm, const Stream& stream,
                         const Operation& operation,
                         const MeasureOptions& options);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_MEASURE_H_
