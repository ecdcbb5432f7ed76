// What plain messages, plain memory and plain reductions take here: what the
// time of a collective is predicted from, by its declared cost and without
// having run it.
//
//     messages:  time = alpha_count * alpha + beta_bytes * beta
//                       + gamma_bytes * gamma
//     memory:    the same with alpha and beta of a meeting, gamma = 0: a rank
//                that folds what it reads from its peers does both at once, and
//                those bytes are in beta_bytes
//
// alpha and beta are those of the piece that holds the mean message,
// beta_bytes / alpha_count, since protocols switch by the size of a message.
// All ranks send to their neighbour at once while they are measured, as in a
// collective, so what they share (cores, a switch) is in them.
#ifndef SHARDPROOF_TOOLS_CLI_MACHINE_MODEL_H_
#define SHARDPROOF_TOOLS_CLI_MACHINE_MODEL_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/traffic.h"
#include "reference/status.h"
#include "reports/fitting/crossover.h"
#include "reports/fitting/piecewise.h"
#include "reports/interconnect.h"
#include "tools/harness/measure.h"

namespace shardproof {

// Times of one operation over sizes.
struct Curve {
  struct Point {
    CostSample cost = {};  // time_us: the median.
    double low_us = 0, high_us = 0;
    std::vector<double> blocks_us = {};  // Medians of parts of the samples.
  };
  std::vector<Point> points = {};
};

// Medians of at most `blocks` runs of consecutive samples, at least 3 samples
// each where there are as many: closer to independent than neighbours are, and
// a drift shows between them.
std::vector<double> BlockMedians(const std::vector<double>& samples,
                                 int blocks);
// Pieces over the block medians.
StatusOr<Piecewise> FitCurve(const Curve& curve);
// The curve, its pieces, errors and bandwidth; the names are the caller's.
// Points get `predicted_us` from `predict`, NaN where it is empty.
Fit DescribeFit(
    const Curve& curve, const Piecewise& pieces,
    const std::function<double(const Curve::Point&)>& predict = nullptr);

struct MachineModel {
  std::vector<int> node_of = {};  // Of the ranks.
  // From rank 0 to rank 1 alone; from every rank to the next at once; from the
  // memory of the next rank.
  Curve one_way_curve = {}, message_curve = {}, memory_curve = {};
  Piecewise one_way = {}, messages = {};
  std::optional<Piecewise> memory = {};  // Where ranks share some.
  double gamma_us_per_mib = 0;           // f32, sum.

  // NaN for memory where there is none.
  double PredictUs(const Cost& cost, bool in_memory) const;
};

// SPMD on at least 2 ranks; the same on all.
StatusOr<MachineModel> MeasureMachine(const Communicator& comm,
                                      const std::vector<int64_t>& sizes,
                                      const MeasureOptions& timing);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_MACHINE_MODEL_H_
