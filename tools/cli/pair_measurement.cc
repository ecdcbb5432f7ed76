#include "tools/cli/pair_measurement.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "reports/fitting/crossover.h"

namespace shardproof {
namespace {

constexpr double kNormal95 = 1.959964;
constexpr double kMadToDeviation = 1.4826;  // 1 / quantile(normal, 3/4).

// Both ends of a pair, in a communicator of their own: rank 0 is the first.
class Pair {
 public:
  Pair(const Communicator &comm, const MeasureOptions &timing, size_t bytes)
      : comm_(comm), timing_(timing), out_(bytes), in_(bytes) {}

  StatusOr<MessageTime> RoundTrip() {
    return Time([this]() -> Status {
      if (comm_.rank() == 0) {
        SP_RETURN_IF_ERROR(comm_.Send(out_.data(), kLatencyBytes, 1));
        return comm_.Recv(in_.data(), kLatencyBytes, 1);
      }
      SP_RETURN_IF_ERROR(comm_.Recv(in_.data(), kLatencyBytes, 0));
      return comm_.Send(out_.data(), kLatencyBytes, 0);
    });
  }
  StatusOr<MessageTime> OneWay(int from, size_t bytes) {
    return Time([this, from, bytes]() -> Status {
      const int peer = 1 - comm_.rank();
      if (comm_.rank() == from) {
        SP_RETURN_IF_ERROR(comm_.Send(out_.data(), bytes, peer));
        return comm_.Recv(in_.data(), kLatencyBytes, peer);
      }
      SP_RETURN_IF_ERROR(comm_.Recv(in_.data(), bytes, peer));
      return comm_.Send(out_.data(), kLatencyBytes, peer);
    });
  }
  StatusOr<MessageTime> BothWays(size_t bytes) {
    return Time([this, bytes] {
      const int peer = 1 - comm_.rank();
      return comm_.SendRecv(out_.data(), bytes, peer, in_.data(), bytes, peer);
    });
  }

 private:
  StatusOr<MessageTime> Time(const Operation &operation) {
    SP_ASSIGN_OR_RETURN(const Timing t,
                        Measure(comm_, Stream::Inline(), operation, timing_));
    return MessageTime{.median_us = t.median_us,
                       .low_us = t.interval_low_us,
                       .high_us = t.interval_high_us};
  }

  const Communicator &comm_;
  const MeasureOptions &timing_;
  std::vector<std::byte> out_, in_;
};

// The answer of 8 bytes is no part of the message.
MessageTime Less(const MessageTime &t, const MessageTime &answer) {
  // What noise makes negative is at least the wire's share of the whole.
  const auto less = [&](double us) {
    return std::max(us - answer.median_us, us / 2);
  };
  return {.median_us = less(t.median_us),
          .low_us = less(t.low_us),
          .high_us = less(t.high_us)};
}

StatusOr<PairTimes> MeasureBoth(const Communicator &pair,
                                const PairPlan &plan) {
  const int64_t most =
      plan.bytes.empty()
          ? kLatencyBytes
          : std::max(kLatencyBytes, *std::ranges::max_element(plan.bytes));
  Pair both(pair, plan.timing, static_cast<size_t>(most));
  PairTimes times;
  SP_ASSIGN_OR_RETURN(times.latency, both.RoundTrip());
  for (double *us : {&times.latency.median_us, &times.latency.low_us,
                     &times.latency.high_us}) {
    *us /= 2;
  }
  for (const int64_t size : plan.bytes) {
    const auto bytes = static_cast<size_t>(size);
    SP_ASSIGN_OR_RETURN(const MessageTime forward, both.OneWay(0, bytes));
    SP_ASSIGN_OR_RETURN(const MessageTime backward, both.OneWay(1, bytes));
    times.forward.push_back(Less(forward, times.latency));
    times.backward.push_back(Less(backward, times.latency));
    if (!plan.both) continue;
    SP_ASSIGN_OR_RETURN(const MessageTime exchange, both.BothWays(bytes));
    times.both.push_back(exchange);
  }
  return times;
}

std::vector<MessageTime *> Members(PairTimes &times) {
  std::vector<MessageTime *> out = {&times.latency};
  for (auto *list : {&times.forward, &times.backward, &times.both}) {
    for (MessageTime &t : *list) out.push_back(&t);
  }
  return out;
}

}  // namespace

double MessageTime::RelativeError() const {
  return median_us > 0 ? (high_us - low_us) / (2 * kNormal95 * median_us) : 0;
}

StatusOr<PairTimes> MeasurePair(const Communicator &comm, int a, int b,
                                const PairPlan &plan) {
  const bool taking_part = comm.rank() == a || comm.rank() == b;
  SP_ASSIGN_OR_RETURN(
      const Communicator pair,
      comm.Split(taking_part ? 0 : -1, comm.rank() == a ? 0 : 1));
  PairTimes times;
  if (taking_part) {
    SP_ASSIGN_OR_RETURN(times, MeasureBoth(pair, plan));
  } else {
    times.forward.resize(plan.bytes.size());
    times.backward.resize(plan.bytes.size());
    if (plan.both) times.both.resize(plan.bytes.size());
  }
  std::string text;
  for (const MessageTime *t : Members(times)) {
    text.append(reinterpret_cast<const char *>(t), sizeof(*t));
  }
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                      comm.ExchangeControl(text));
  const std::string &measured = all[static_cast<size_t>(a)];
  if (measured.size() != text.size()) {
    return Internal("ranks measured different numbers of messages");
  }
  size_t offset = 0;
  for (MessageTime *t : Members(times)) {
    std::memcpy(t, measured.data() + offset, sizeof(*t));
    offset += sizeof(*t);
  }
  return times;
}

PairTimes Combine(const std::vector<PairTimes> &rounds) {
  PairTimes out = rounds.front();
  const std::vector<MessageTime *> members = Members(out);
  std::vector<PairTimes> copies = rounds;
  for (size_t m = 0; m < members.size(); ++m) {
    std::vector<double> medians, errors, distances;
    for (PairTimes &round : copies) {
      const MessageTime &t = *Members(round)[m];
      medians.push_back(t.median_us);
      errors.push_back(t.RelativeError() * t.median_us);
    }
    const double middle = MedianOrNaN(medians);
    for (const double us : medians) distances.push_back(std::abs(us - middle));
    const double half =
        kNormal95 * std::hypot(MedianOrNaN(errors),
                               kMadToDeviation * MedianOrNaN(distances));
    *members[m] = {
        .median_us = middle, .low_us = middle - half, .high_us = middle + half};
  }
  return out;
}

}  // namespace shardproof
