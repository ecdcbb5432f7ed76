#include "tools/cli/roofline/stopwatch.h"

#include <algorithm>
#include <cmath>

#include "tools/cli/roofline/shares.h"

namespace shardproof {

Status Stopwatch::Wait() const {
  return cuda::Synchronize(stream_, options_.timeout);
}

StatusOr<Samples> Stopwatch::Batches(
    int turns, const std::function<Status(int)>& queue) const {
  SP_ASSIGN_OR_RETURN(const auto begin, gpu_.NewEvent());
  SP_ASSIGN_OR_RETURN(const auto end, gpu_.NewEvent());
  int next = 0;
  const auto sample = [&](int launches) -> StatusOr<double> {
    SP_RETURN_IF_ERROR(queue(next++));
    SP_RETURN_IF_ERROR(stream_.Record(*begin));
    for (int i = 0; i < launches; ++i) SP_RETURN_IF_ERROR(queue(next++));
    SP_RETURN_IF_ERROR(stream_.Record(*end));
    SP_RETURN_IF_ERROR(Wait());
    SP_ASSIGN_OR_RETURN(const double us, gpu_.Microseconds(*begin, *end));
    return us / launches;
  };
  // All operands once, which brings them to the GPU; then so many as show how long one takes.
  SP_RETURN_IF_ERROR(sample(turns).status());
  SP_ASSIGN_OR_RETURN(double once, sample(3));
  Samples samples;
  const auto pace = [&] {
    return LaunchesPerSample(once, options_.sample_us, options_.most_launches);
  };
  SP_ASSIGN_OR_RETURN(once, sample(pace()));
  samples.launches = pace();
  const double each_us = std::max(once * samples.launches, 1.0);
  const int wanted =
      static_cast<int>(std::clamp(options_.seconds * 1e6 / each_us,
                                  static_cast<double>(options_.min_samples),
                                  static_cast<double>(options_.max_samples)));
  for (int i = 0; i < wanted; ++i) {
    SP_ASSIGN_OR_RETURN(const double us, sample(samples.launches));
    samples.us.push_back(us);
  }
  return samples;
}

StatusOr<std::vector<Samples>> Stopwatch::Steps(
    int turns, int steps, const std::function<Status(int, int)>& queue) const {
  std::vector<std::unique_ptr<cuda::GpuEvent>> events;
  for (int k = 0; k <= steps; ++k) {
    SP_ASSIGN_OR_RETURN(auto event, gpu_.NewEvent());
    events.push_back(std::move(event));
  }
  std::vector<Samples> samples(static_cast<size_t>(steps));
  const int warm = std::max(turns, 3);
  const int wanted = std::min(options_.max_samples, 50);
  for (int i = 0; i < warm + wanted; ++i) {
    // As in a batch: the GPU is busy while the host queues what is timed.
    for (int k = 0; k < steps; ++k) SP_RETURN_IF_ERROR(queue(2 * i, k));
    for (int k = 0; k < steps; ++k) {
      SP_RETURN_IF_ERROR(stream_.Record(*events[static_cast<size_t>(k)]));
      SP_RETURN_IF_ERROR(queue(2 * i + 1, k));
    }
    SP_RETURN_IF_ERROR(stream_.Record(*events.back()));
    SP_RETURN_IF_ERROR(Wait());
    if (i < warm) continue;
    for (size_t k = 0; k < samples.size(); ++k) {
      SP_ASSIGN_OR_RETURN(const double us,
                          gpu_.Microseconds(*events[k], *events[k + 1]));
      samples[k].us.push_back(us);
    }
  }
  return samples;
}

}  // namespace shardproof
