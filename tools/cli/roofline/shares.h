// The arithmetic of `shardproof roofline`: what a time is worth against what the GPU can do, as measured in the same run.
//
//     floor = bytes / copy ceiling        of a kernel that moves memory
//     floor = operations / product ceiling        of one that multiplies
//     share = floor / time
//
// A share above 1 is no mistake of the arithmetic: a kernel finds operands in the L2 that its bytes count as read from
// memory (hot buffers), or reads so much more than it writes that the mixture is faster than a copy's.
//
// Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009.
#ifndef SHARDPROOF_TOOLS_CLI_ROOFLINE_SHARES_H_
#define SHARDPROOF_TOOLS_CLI_ROOFLINE_SHARES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "layers/kernels/cuda/benchmark/point.h"
#include "reference/dtype.h"
#include "reports/record.h"

namespace shardproof {

// Of one GPU; 0 and absent: not measured.
struct GpuCeilings {
  double copy_bytes_per_us = 0;  // Read and written.
  std::map<DType, double> flops_per_us =
      {};  // Of products, by the operands' type.
};

// A kernel that moves memory is to reach this share of the copy ceiling.
inline constexpr double kWantedOfCopy = 0.9;
// Launches of less than so many microseconds at the ceiling are bound by their launching, and are not judged.
inline constexpr double kShortUs = 5;

struct Share {
  double gbps = 0;    // 1e9 bytes counted per second; 0: none counted.
  double tflops = 0;  // 1e12 operations counted per second; 0: none counted.
  bool of_products = false;        // Which ceiling the floor is of.
  std::optional<double> floor_us;  // Absent: without that ceiling.
  std::optional<double> of_ceiling;
  std::string
      finding;  // Why it is too slow, in a sentence; empty: it is not, or nobody knows.
};
Share ShareOf(const cuda::KernelCost& cost, DType dtype, double median_us,
              const GpuCeilings& ceilings);

// The fewest sets of operands, of `bytes` each, that are together more than twice the L2, so that none is found there when
// its turn comes again; at most `most`. 1 where the size of the L2 is not known.
int SetsForCold(int64_t bytes, int64_t l2_bytes, int most);

// How many launches make a sample of `sample_us`, of `once_us` each: 1 to `most`.
int LaunchesPerSample(double once_us, double sample_us, int most);

// Of samples in the order of time, each the mean of so many launches; there is at least one.
Record::Time TimeOf(const std::vector<double>& samples_us,
                    int launches_per_sample);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_ROOFLINE_SHARES_H_
