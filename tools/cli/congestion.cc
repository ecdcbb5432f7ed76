#include "tools/cli/congestion.h"

#include <fmt/format.h>

#include <algorithm>

#include "tools/cli/interconnect_commands.h"

namespace shardproof {
namespace {

double IdealOf(const Congestion& c, size_t count) {
  double us = 0;
  for (size_t p = 0; p < count; ++p) us = std::max(us, c.alone[p].median_us);
  return us;
}

}  // namespace

StatusOr<MessageTime> MeasurePairs(const Communicator& comm, int first,
                                   int count, bool exchange, int64_t bytes,
                                   const MeasureOptions& timing) {
  const int half = comm.size() / 2;
  const int place = comm.rank() % half;
  const bool active =
      comm.rank() < 2 * half && place >= first && place < first + count;
  const bool lower = comm.rank() < half;
  const int peer = lower ? comm.rank() + half : comm.rank() - half;
  const auto size = static_cast<size_t>(bytes);
  std::vector<std::byte> out(active ? size : 0), in(active ? size : 0);
  const auto answer = std::min(size, static_cast<size_t>(kLatencyBytes));
  SP_ASSIGN_OR_RETURN(
      const Timing t,
      Measure(
          comm, Stream::Inline(),
          [&]() -> Status {
            if (!active) return OkStatus();
            if (exchange) {
              return comm.SendRecv(out.data(), size, peer, in.data(), size,
                                   peer);
            }
            if (lower) {
              SP_RETURN_IF_ERROR(comm.Send(out.data(), size, peer));
              return comm.Recv(in.data(), answer, peer);
            }
            SP_RETURN_IF_ERROR(comm.Recv(in.data(), size, peer));
            return comm.Send(out.data(), answer, peer);
          },
          timing));
  return MessageTime{.median_us = t.median_us,
                     .low_us = t.interval_low_us,
                     .high_us = t.interval_high_us};
}

std::vector<ScalePoint> PointsOf(const Congestion& c,
                                 const std::string& backend) {
  std::vector<ScalePoint> out;
  for (size_t i = 0; i < c.together.size(); ++i) {
    const MessageTime& t = c.together[i];
    const double ideal = IdealOf(c, i + 1);
    out.push_back({.kind = "pairs",
                   .case_name = "messages",
                   .variant = c.exchange ? "exchange" : "one_way",
                   .backend = backend,
                   .params = fmt::format("bytes={}", c.bytes),
                   .ranks = static_cast<int>(2 * (i + 1)),
                   .median_us = t.median_us,
                   .low_us = t.low_us,
                   .high_us = t.high_us,
                   .ideal_us = ideal,
                   .efficiency = ideal / t.median_us});
  }
  return out;
}

std::vector<std::string> Bottlenecks(const Congestion& c) {
  std::vector<std::string> out;
  if (c.together.empty()) return out;
  const auto bytes = static_cast<double>(c.bytes);
  const size_t half = static_cast<size_t>(c.ranks) / 2;
  const auto name = [&](size_t p) {
    return fmt::format("{} {} {} ({}, {})", p, c.exchange ? "<->" : "->",
                       p + half, c.places[p], c.places[p + half]);
  };
  size_t slowest = 0, fastest = 0;
  double alone_high = 0;
  for (size_t p = 0; p < c.alone.size(); ++p) {
    if (c.alone[p].median_us > c.alone[slowest].median_us) slowest = p;
    if (c.alone[p].median_us < c.alone[fastest].median_us) fastest = p;
    alone_high = std::max(alone_high, c.alone[p].high_us);
  }
  if (c.alone[slowest].low_us > c.alone[fastest].high_us) {
    out.push_back(fmt::format(
        "the pair {} is the slowest even alone, {}, where {} has {}: what goes "
        "over both waits for it",
        name(slowest), RateText(bytes, c.alone[slowest].median_us),
        name(fastest), RateText(bytes, c.alone[fastest].median_us)));
  }
  const size_t all = c.together.size();
  if (all < 2) return out;
  const MessageTime& together = c.together.back();
  if (together.low_us > alone_high) {
    out.push_back(fmt::format(
        "{} pairs at once take {:.3g} times as long as the slowest of them "
        "alone: they share a bottleneck of {}",
        all, together.median_us / IdealOf(c, all),
        RateText(static_cast<double>(all) * bytes, together.median_us)));
  } else {
    out.push_back(fmt::format(
        "{} pairs at once take no longer than the slowest of them alone: they "
        "share no bottleneck",
        all));
  }
  return out;
}

}  // namespace shardproof
