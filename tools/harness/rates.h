// How fast this machine moves data, for what the cost model predicts and for
// the floor below which no implementation can be.
#ifndef SHARDPROOF_TOOLS_HARNESS_RATES_H_
#define SHARDPROOF_TOOLS_HARNESS_RATES_H_

#include <cstddef>

#include "collectives/communicator.h"
#include "collectives/traffic.h"
#include "reference/status.h"
#include "tools/harness/registry.h"

namespace shardproof {

struct MachineRates {
  double alpha_us = 0;  // One message of 8 bytes, between two ranks.
  // Copying, all ranks at once: bytes read plus bytes written by one rank.
  double copy_bytes_per_second = 0;
  double flops_per_second = 0;  // One rank; 0: not known.

  // A byte that travels is read once and written once, and so is a byte that
  // is reduced.
  double PredictUs(const Cost& cost) const;
  double FloorUs(const Floor& floor) const;
};

// SPMD; equal results on every rank. `copy_bytes` is the size of what each rank
// copies over and over, in memory from Communicator::Allocate: take it larger
// than the last-level cache, or as large as the messages in question.
StatusOr<double> MeasureCopyRate(const Communicator& comm, size_t copy_bytes,
                                 double seconds = 0.1);
// All of the above but flops. Ranks 0 and 1 find alpha; alone, a rank has 0.
StatusOr<MachineRates> MeasureRates(const Communicator& comm,
                                    size_t copy_bytes = size_t{64} << 20);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_RATES_H_
