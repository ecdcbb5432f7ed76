// How long the work of a stream takes, by events around batches of it.
//
//     const Stopwatch watch(gpu, stream, {.seconds = 0.5});
//     SP_ASSIGN_OR_RETURN(const Samples samples,
//                         watch.Batches(n, [&](int i) { return stream.Launch(launches[i % n]); }));
//
// A sample is the mean of a batch that takes about a millisecond, or of one launch that takes longer. Before the first event
// one more is queued, which is not counted: the GPU works on it while the host queues the batch, so that the host's way to
// the GPU is not part of a sample. Launches that are shorter than the host needs to queue one are timed at the host's pace.
#ifndef SHARDPROOF_TOOLS_CLI_ROOFLINE_STOPWATCH_H_
#define SHARDPROOF_TOOLS_CLI_ROOFLINE_STOPWATCH_H_

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "collectives/backend/cuda/device/gpu.h"
#include "reference/status.h"

namespace shardproof {

struct StopwatchOptions {
  double seconds = 0.3;  // Of samples, beside the warm-up.
  int min_samples = 10, max_samples = 100;
  double sample_us = 1000;
  int most_launches = 200;  // In a sample.
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
};

struct Samples {
  std::vector<double> us;  // Of one launch.
  int launches = 1;        // In each sample.
};

class Stopwatch {
 public:
  Stopwatch(cuda::Gpu& gpu, cuda::GpuStream& stream,
            const StopwatchOptions& options)
      : gpu_(gpu), stream_(stream), options_(options) {}

  // queue(i), i = 0, 1, ...: the same work on operands in turn, of which there are `turns`; each comes once before the
  // first sample.
  StatusOr<Samples> Batches(int turns,
                            const std::function<Status(int)>& queue) const;
  // queue(i, k): step k of `steps` of the work in turn. An event lies between any two steps, so that each of them is a
  // sample of its own; by step.
  StatusOr<std::vector<Samples>> Steps(
      int turns, int steps, const std::function<Status(int, int)>& queue) const;

 private:
  Status Wait() const;

  cuda::Gpu& gpu_;
  cuda::GpuStream& stream_;
  const StopwatchOptions options_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_ROOFLINE_STOPWATCH_H_
