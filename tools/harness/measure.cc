#include "tools/harness/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "reports/statistics/order.h"

namespace shardproof {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Below this, one operation is too short to be timed alone.
constexpr double kShortestSampleUs = 20;
constexpr int kMaxBatch = 1000;
// Samples between two looks at what has been measured. Fewer of them where they
// are slow: a look costs an exchange, and too few looks overrun the budget.
constexpr int kLook = 16;
constexpr double kLookSeconds = 0.1;
constexpr double kSettled = 0.01;

double Since(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

// Times operations on all ranks. Every rank sees the same numbers, those of
// rank 0 where it is about elapsed time, and so comes to the same decisions.
class Sampler {
 public:
  Sampler(const Communicator& comm, const Stream& stream,
          const Operation& operation, Cadence cadence)
      : comm_(comm),
        stream_(stream),
        operation_(operation),
        cadence_(cadence),
        per_rank_(static_cast<size_t>(comm.size())) {}

  // `count` samples of `batch` operations each, in us per operation: the
  // maximum over ranks, appended to `samples`.
  Status Take(int count, int batch, std::vector<double>& samples) {
    std::vector<double> mine;
    Status status = comm_.Barrier();
    for (int i = 0; i < count && status.ok(); ++i) {
      if (cadence_ == Cadence::kIsolated && i > 0) status = comm_.Barrier();
      const SteadyClock::time_point start = SteadyClock::now();
      for (int b = 0; b < batch && status.ok(); ++b) status = operation_();
      if (status.ok()) status = stream_.Synchronize();
      mine.push_back(Since(start) * 1e6 / batch);
    }
    if (!status.ok()) {
      // The others may wait in an operation that this rank will not enter.
      comm_.Abort(fmt::format("rank {} while timing: {}", comm_.rank(),
                              status.message()));
      return status;
    }
    return Share(mine, samples);
  }

  // Seconds since the start, by rank 0's clock, at the last Take.
  double elapsed() const { return elapsed_; }
  void Restart() {
    start_ = SteadyClock::now();
    elapsed_ = 0;
    for (auto& times : per_rank_) times.clear();
  }
  const std::vector<std::vector<double>>& per_rank() const { return per_rank_; }

 private:
  Status Share(std::vector<double> mine, std::vector<double>& samples) {
    const size_t count = mine.size();
    mine.push_back(Since(start_));
    const size_t bytes = mine.size() * sizeof(double);
    SP_ASSIGN_OR_RETURN(
        const std::vector<std::string> all,
        comm_.ExchangeControl(
            {reinterpret_cast<const char*>(mine.data()), bytes}));
    std::vector<double> worst(count, 0.0);
    for (int r = 0; r < comm_.size(); ++r) {
      if (all[r].size() != bytes) {
        return Internal("ranks took different numbers of samples");
      }
      std::memcpy(mine.data(), all[r].data(), bytes);
      for (size_t i = 0; i < count; ++i) {
        worst[i] = std::max(worst[i], mine[i]);
        per_rank_[r].push_back(mine[i]);
      }
      if (r == 0) elapsed_ = mine.back();
    }
    samples.insert(samples.end(), worst.begin(), worst.end());
    return OkStatus();
  }

  const Communicator& comm_;
  const Stream& stream_;
  const Operation& operation_;
  Cadence cadence_;
  SteadyClock::time_point start_ = SteadyClock::now();
  double elapsed_ = 0;
  std::vector<std::vector<double>> per_rank_;
};

struct Pace {
  int batch = 1;
  int look = kLook;
};

// From how long the first operations took: the first one alone, which may be
// slow for reasons of its own, then a few more.
StatusOr<Pace> FindPace(Sampler& sampler, int first_operations) {
  std::vector<double> first;
  for (int i = 0; i < first_operations; ++i) {
    SP_RETURN_IF_ERROR(sampler.Take(1, 1, first));
    if (sampler.elapsed() > kLookSeconds) break;
  }
  double us = std::max(1e-3, *std::min_element(first.begin(), first.end()));
  Pace pace;
  if (us < kShortestSampleUs) {
    pace.batch = std::min(kMaxBatch,
                          static_cast<int>(std::ceil(kShortestSampleUs / us)));
  }
  pace.look = std::clamp(
      static_cast<int>(kLookSeconds * 1e6 / (us * pace.batch)), 1, kLook);
  return pace;
}

// Whether the last two looks agree. Their medians are compared.
bool Settled(const std::vector<double>& samples, int look) {
  const auto n = static_cast<ptrdiff_t>(samples.size());
  if (n < 2 * look) return false;
  const double last = Median({samples.end() - look, samples.end()});
  const double before =
      Median({samples.end() - 2 * look, samples.end() - look});
  return std::abs(last - before) < kSettled * before;
}

StatusOr<bool> WarmUp(Sampler& sampler, const MeasureOptions& o, Pace& pace) {
  std::vector<double> samples;
  if (o.fixed_warmup >= 0) {
    SP_RETURN_IF_ERROR(sampler.Take(o.fixed_warmup, 1, samples));
    if (o.fixed_iterations > 0) return true;
    SP_ASSIGN_OR_RETURN(pace, FindPace(sampler, 1));
    return true;
  }
  SP_ASSIGN_OR_RETURN(pace, FindPace(sampler, 3));
  const double cap = 5 * o.warmup_seconds;
  for (;;) {
    SP_RETURN_IF_ERROR(sampler.Take(pace.look, pace.batch, samples));
    const bool enough =
        sampler.elapsed() >= o.warmup_seconds &&
        static_cast<int>(samples.size()) * pace.batch >= o.min_warmup;
    if (enough && Settled(samples, pace.look)) return true;
    if (sampler.elapsed() >= cap) return false;
  }
}

void Summarise(const Sampler& sampler, Timing& t) {
  std::vector<double> sorted = t.samples_us;
  std::sort(sorted.begin(), sorted.end());
  t.median_us = Quantile(sorted, 0.5);
  t.p10_us = Quantile(sorted, 0.1);
  t.p90_us = Quantile(sorted, 0.9);
  t.min_us = sorted.front();
  t.max_us = sorted.back();
  const OrderInterval i = MedianInterval(static_cast<int>(sorted.size()));
  t.interval_low_us = sorted[i.low];
  t.interval_high_us = sorted[i.high];
  t.rank_samples_us = sampler.per_rank();
  t.per_rank_median_us.clear();
  for (const auto& times : sampler.per_rank()) {
    t.per_rank_median_us.push_back(Median(times));
  }
}

}  // namespace

StatusOr<Timing> Measure(const Communicator& comm, const Stream& stream,
                         const Operation& operation, const MeasureOptions& o) {
  Sampler sampler(comm, stream, operation, o.cadence);
  Pace pace;
  Timing t;
  SP_ASSIGN_OR_RETURN(t.warmup_settled, WarmUp(sampler, o, pace));
  t.operations_per_sample = pace.batch;
  sampler.Restart();
  if (o.fixed_iterations > 0) {
    SP_RETURN_IF_ERROR(
        sampler.Take(o.fixed_iterations, pace.batch, t.samples_us));
    Summarise(sampler, t);
    return t;
  }
  for (;;) {
    const int left =
        std::max(o.max_samples, 1) - static_cast<int>(t.samples_us.size());
    SP_RETURN_IF_ERROR(
        sampler.Take(std::min(pace.look, left), pace.batch, t.samples_us));
    Summarise(sampler, t);
    const auto taken = static_cast<int>(t.samples_us.size());
    t.target_reached = t.interval_high_us - t.interval_low_us <=
                       o.target_relative_interval * t.median_us;
    const double elapsed = sampler.elapsed();
    if (taken >= o.max_samples) break;
    if (t.target_reached && taken >= o.min_samples && elapsed >= o.min_seconds)
      break;
    if (elapsed >= o.max_seconds && taken >= o.min_samples) break;
    // Where even that many take far longer than was asked for.
    if (elapsed >= 4 * o.max_seconds && taken >= std::min(3, o.min_samples)) {
      break;
    }
  }
  return t;
}

}  // namespace shardproof
