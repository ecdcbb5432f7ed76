#include "tools/harness/rates.h"

#include <algorithm>
#include <cstring>

#include "collectives/kernels/copy.h"
#include "tools/harness/measure.h"

namespace shardproof {
namespace {

StatusOr<double> MedianUs(const Communicator& comm, const Operation& operation,
                          double seconds) {
  MeasureOptions options;
  options.warmup_seconds = seconds / 5;
  options.max_seconds = seconds;
  SP_ASSIGN_OR_RETURN(const Timing timing,
                      Measure(comm, Stream::Inline(), operation, options));
  return timing.median_us;
}

}  // namespace

double MachineRates::PredictUs(const Cost& cost) const {
  const double bytes = 2 * (cost.beta_bytes + cost.gamma_bytes);
  return cost.alpha_count * alpha_us +
         (copy_bytes_per_second > 0 ? bytes / copy_bytes_per_second * 1e6 : 0);
}

double MachineRates::FloorUs(const Floor& floor) const {
  const double bytes = floor.copy_bytes + 2 * floor.wire_bytes;
  const double moving =
      copy_bytes_per_second > 0 ? bytes / copy_bytes_per_second * 1e6 : 0;
  const double computing =
      flops_per_second > 0 ? floor.flops / flops_per_second * 1e6 : 0;
  return std::max(moving, computing);
}

StatusOr<double> MeasureCopyRate(const Communicator& comm, size_t copy_bytes,
                                 double seconds) {
  auto from = comm.Allocate(copy_bytes), to = comm.Allocate(copy_bytes);
  Status status = from.ok() ? to.status() : from.status();
  // A rank without memory must not leave the others waiting.
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> lacking,
                      comm.ExchangeControl(status.message()));
  for (const std::string& message : lacking) {
    if (!message.empty()) return OutOfMemory("{}", message);
  }
  std::memset(from->data(), 1, copy_bytes);
  // Which kind of stores is faster depends on the size.
  double best_us = 0;
  for (const bool streaming : {false, true}) {
    const Operation copy = [&, streaming] {
      kernels::Copy(to->data(), from->data(), copy_bytes,
                    {.streaming = streaming});
      return OkStatus();
    };
    SP_ASSIGN_OR_RETURN(const double us, MedianUs(comm, copy, seconds / 2));
    if (best_us == 0 || us < best_us) best_us = us;
  }
  return 2.0 * static_cast<double>(copy_bytes) / best_us * 1e6;
}

StatusOr<MachineRates> MeasureRates(const Communicator& comm,
                                    size_t copy_bytes) {
  MachineRates rates;
  SP_ASSIGN_OR_RETURN(rates.copy_bytes_per_second,
                      MeasureCopyRate(comm, copy_bytes));
  if (comm.size() < 2) return rates;
  // There and back again is two messages.
  int64_t word = 0;
  SP_ASSIGN_OR_RETURN(
      const double us,
      MedianUs(
          comm,
          [&]() -> Status {
            if (comm.rank() > 1) return OkStatus();
            const int peer = 1 - comm.rank();
            if (comm.rank() == 0) {
              SP_RETURN_IF_ERROR(comm.Send(&word, sizeof(word), peer));
              return comm.Recv(&word, sizeof(word), peer);
            }
            SP_RETURN_IF_ERROR(comm.Recv(&word, sizeof(word), peer));
            return comm.Send(&word, sizeof(word), peer);
          },
          0.05));
  rates.alpha_us = us / 2;
  return rates;
}

}  // namespace shardproof
