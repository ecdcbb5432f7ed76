#include "tools/cli/machine_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "collectives/kernels/copy.h"
#include "collectives/kernels/reduce.h"
#include "tools/cli/pair_measurement.h"

namespace shardproof {
namespace {

constexpr int64_t kReduced = 1 << 20;  // Bytes of what is reduced for gamma.
constexpr int kBlocks = 5;             // Of the samples, or rounds.
constexpr double kMiB = 1 << 20;

StatusOr<Curve::Point> PointOf(const Communicator& comm, int64_t bytes,
                               const Operation& operation,
                               const MeasureOptions& timing) {
  SP_ASSIGN_OR_RETURN(const Timing t,
                      Measure(comm, Stream::Inline(), operation, timing));
  return Curve::Point{.cost = {.bytes = bytes,
                               .alpha_count = 1,
                               .beta_bytes = static_cast<double>(bytes),
                               .time_us = t.median_us},
                      .low_us = t.interval_low_us,
                      .high_us = t.interval_high_us,
                      .blocks_us = BlockMedians(t.samples_us, kBlocks)};
}

// One median of each round.
Curve OneWayCurve(const std::vector<int64_t>& sizes,
                  const std::vector<PairTimes>& rounds) {
  const PairTimes all = Combine(rounds);
  Curve curve;
  for (size_t i = 0; i < sizes.size(); ++i) {
    Curve::Point point{.cost = {.bytes = sizes[i],
                                .alpha_count = 1,
                                .beta_bytes = static_cast<double>(sizes[i]),
                                .time_us = all.forward[i].median_us},
                       .low_us = all.forward[i].low_us,
                       .high_us = all.forward[i].high_us};
    for (const PairTimes& round : rounds) {
      point.blocks_us.push_back(round.forward[i].median_us);
    }
    curve.points.push_back(std::move(point));
  }
  return curve;
}

}  // namespace

std::vector<double> BlockMedians(const std::vector<double>& samples,
                                 int blocks) {
  const size_t n = samples.size();
  const size_t count =
      std::clamp<size_t>(n / 3, 1, static_cast<size_t>(blocks));
  std::vector<double> out;
  for (size_t b = 0; b < count && n > 0; ++b) {
    const auto from = samples.begin() + static_cast<ptrdiff_t>(b * n / count);
    const auto to =
        samples.begin() + static_cast<ptrdiff_t>((b + 1) * n / count);
    out.push_back(MedianOrNaN({from, to}));
  }
  return out;
}

StatusOr<Piecewise> FitCurve(const Curve& curve) {
  std::vector<CostSample> samples;
  for (const Curve::Point& point : curve.points) {
    for (const double us : point.blocks_us) {
      samples.push_back(point.cost);
      samples.back().time_us = us;
    }
  }
  return FitPiecewise(std::move(samples));
}

Fit DescribeFit(const Curve& curve, const Piecewise& pieces,
                const std::function<double(const Curve::Point&)>& predict) {
  Fit fit;
  for (const Piecewise::Piece& p : pieces.pieces) {
    fit.pieces.push_back({.from_bytes = p.from_bytes,
                          .to_bytes = p.to_bytes,
                          .alpha_us = p.fit.alpha_us,
                          .beta_us_per_mib = p.fit.beta_us_per_mib,
                          .gamma_us_per_mib = p.fit.gamma_us_per_mib,
                          .points = p.points});
  }
  std::vector<double> errors, prediction_errors;
  std::vector<CostSample> costs;
  for (const Curve::Point& p : curve.points) {
    costs.push_back(p.cost);
    const double measured = p.cost.time_us;
    const double fitted = pieces.TimeUs(p.cost);
    const double predicted =
        predict ? predict(p) : std::numeric_limits<double>::quiet_NaN();
    fit.points.push_back({.bytes = p.cost.bytes,
                          .measured_us = measured,
                          .low_us = p.low_us,
                          .high_us = p.high_us,
                          .fitted_us = fitted,
                          .predicted_us = predicted});
    errors.push_back(std::abs(fitted / measured - 1));
    if (!std::isnan(predicted)) {
      prediction_errors.push_back(std::abs(predicted / measured - 1));
    }
  }
  const auto worst = [](const std::vector<double>& values) {
    return values.empty() ? std::numeric_limits<double>::quiet_NaN()
                          : *std::ranges::max_element(values);
  };
  fit.worst_error = worst(errors);
  fit.median_error = MedianOrNaN(errors);
  fit.worst_prediction_error = worst(prediction_errors);
  fit.median_prediction_error = MedianOrNaN(prediction_errors);
  const Bandwidth bandwidth = BandwidthOf(pieces, costs);
  fit.asymptotic_gbps = bandwidth.asymptotic_gbps;
  fit.half_bandwidth_bytes = bandwidth.half_bandwidth_bytes;
  return fit;
}

double MachineModel::PredictUs(const Cost& cost, bool in_memory) const {
  if (in_memory && !memory.has_value()) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const double mean =
      cost.alpha_count > 0 ? cost.beta_bytes / cost.alpha_count : 0;
  const LinearFit& fit =
      (in_memory ? *memory : messages).At(static_cast<int64_t>(mean)).fit;
  return cost.alpha_count * fit.alpha_us.value +
         cost.beta_bytes * fit.beta_us_per_mib.value / kMiB +
         (in_memory ? 0 : cost.gamma_bytes * gamma_us_per_mib / kMiB);
}

StatusOr<MachineModel> MeasureMachine(const Communicator& comm,
                                      const std::vector<int64_t>& sizes,
                                      const MeasureOptions& timing) {
  const int p = comm.size(), next = (comm.rank() + 1) % p,
            previous = (comm.rank() + p - 1) % p;
  const auto most =
      static_cast<size_t>(std::max(kReduced, *std::ranges::max_element(sizes)));
  MachineModel model;
  model.node_of = comm.topology().node_of;
  auto out = comm.Allocate(most), in = comm.Allocate(most);
  const Status status = out.ok() ? in.status() : out.status();
  // A rank without memory must not leave the others waiting.
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> lacking,
                      comm.ExchangeControl(status.message()));
  for (const std::string& message : lacking) {
    if (!message.empty()) return OutOfMemory("{}", message);
  }
  std::fill_n(out->data(), most, std::byte{0});
  std::fill_n(in->data(), most, std::byte{0});
  std::vector<PairTimes> rounds;
  for (int round = 0; round < kBlocks; ++round) {
    SP_ASSIGN_OR_RETURN(
        PairTimes pair,
        MeasurePair(comm, 0, 1,
                    {.bytes = sizes, .both = false, .timing = timing}));
    rounds.push_back(std::move(pair));
  }
  model.one_way_curve = OneWayCurve(sizes, rounds);
  for (const int64_t size : sizes) {
    const auto bytes = static_cast<size_t>(size);
    SP_ASSIGN_OR_RETURN(Curve::Point point,
                        PointOf(
                            comm, size,
                            [&] {
                              return comm.SendRecv(out->data(), bytes, next,
                                                   in->data(), bytes, previous);
                            },
                            timing));
    model.message_curve.points.push_back(std::move(point));
    if (!comm.SharesMemory()) continue;
    SP_ASSIGN_OR_RETURN(
        point, PointOf(
                   comm, size,
                   [&]() -> Status {
                     SP_ASSIGN_OR_RETURN(
                         const Peers peers,
                         comm.Meet({out->data(), bytes, in->data(), bytes}));
                     kernels::Copy(in->data(), peers.Read(next, 0, bytes),
                                   bytes);
                     return comm.Depart(peers);
                   },
                   timing));
    model.memory_curve.points.push_back(std::move(point));
  }
  SP_ASSIGN_OR_RETURN(model.one_way, FitCurve(model.one_way_curve));
  SP_ASSIGN_OR_RETURN(model.messages, FitCurve(model.message_curve));
  if (comm.SharesMemory()) {
    SP_ASSIGN_OR_RETURN(Piecewise memory, FitCurve(model.memory_curve));
    model.memory = std::move(memory);
  }
  SP_ASSIGN_OR_RETURN(const Curve::Point reduced,
                      PointOf(
                          comm, kReduced,
                          [&] {
                            kernels::ReduceInto(DType::kF32, ReduceOp::kSum,
                                                in->data(), out->data(),
                                                kReduced / 4);
                            return OkStatus();
                          },
                          timing));
  model.gamma_us_per_mib = reduced.cost.time_us * (kMiB / kReduced);
  return model;
}

}  // namespace shardproof
