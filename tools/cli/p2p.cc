// shardproof p2p: latency and bandwidth between all pairs of ranks.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "reports/fitting/crossover.h"
#include "reports/fitting/outliers.h"
#include "tools/cli/commands.h"
#include "tools/cli/interconnect_commands.h"
#include "tools/cli/pair_measurement.h"
#include "tools/cli/table.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;

// Every pair is measured so many times, the others in between: what disturbs
// one of three times leaves their median alone.
constexpr int kRounds = 3;
constexpr double kSecondsPerTime = 0.04;
constexpr int kMostRanksPrinted = 16;

// Everything that is measured, by pair with a < b.
struct Survey {
  int ranks = 0;
  std::vector<std::string> places = {};
  Topology topology = {};
  std::vector<int64_t> sizes = {};
  std::map<std::pair<int, int>, std::vector<PairTimes>> pairs = {};  // Rounds.
};

Status MeasureAll(Session &session, const Options &options, Survey &survey) {
  SP_RETURN_IF_ERROR(session.RunOnRanks(
      "places", survey.ranks, options.timeout,
      [&](const Communicator &comm) -> Status {
        SP_ASSIGN_OR_RETURN(std::vector<std::string> places, Places(comm));
        if (comm.rank() != 0) return OkStatus();
        survey.places = std::move(places);
        survey.topology = comm.topology();
        return OkStatus();
      }));
  const PairPlan plan{.bytes = survey.sizes,
                      .timing = LinkTiming(options, kSecondsPerTime)};
  const auto start = Clock::now();
  std::vector<std::pair<int, int>> pairs;
  for (int a = 0; a < survey.ranks; ++a) {
    for (int b = a + 1; b < survey.ranks; ++b) pairs.emplace_back(a, b);
  }
  for (size_t i = 0; i < kRounds * pairs.size(); ++i) {
    const auto [a, b] = pairs[i % pairs.size()];
    const double spent =
        std::chrono::duration<double>(Clock::now() - start).count();
    // However short the time, there is something to show for it.
    if (!session.GoOn(i == 0 || options.time_budget <= 0 ||
                      spent < options.time_budget)) {
      session.LeftOut(
          fmt::format("p2p: {} of {} measurements of pairs left out ({})",
                      kRounds * pairs.size() - i, kRounds * pairs.size(),
                      session.interrupted() ? "interrupted" : "out of time"));
      return OkStatus();
    }
    SP_RETURN_IF_ERROR(session.RunOnRanks(
        fmt::format("p2p {} <-> {}", a, b), survey.ranks, options.timeout,
        [&, a = a, b = b](const Communicator &comm) -> Status {
          SP_ASSIGN_OR_RETURN(PairTimes times, MeasurePair(comm, a, b, plan));
          if (comm.rank() == 0) {
            survey.pairs[{a, b}].push_back(std::move(times));
          }
          return OkStatus();
        }));
  }
  return OkStatus();
}

enum class What { kLatency, kOneWay, kBothWays };

struct Matrix {
  PairMatrix matrix;
  LinkFindings findings;
};

Matrix MatrixOf(const Survey &survey, const std::string &backend, What what,
                size_t size) {
  const auto n = static_cast<size_t>(survey.ranks);
  Matrix out;
  PairMatrix &m = out.matrix;
  m = {.backend = backend,
       .ranks = survey.ranks,
       .bytes = what == What::kLatency ? kLatencyBytes : survey.sizes[size],
       .bidirectional = what == What::kBothWays,
       .places = survey.places};
  m.median_us.assign(n * n, std::numeric_limits<double>::quiet_NaN());
  std::vector<LinkTime> links;
  for (const auto &[pair, rounds] : survey.pairs) {
    const auto [a, b] = pair;
    const PairTimes times = Combine(rounds);
    const auto add = [&](int from, int to, const MessageTime &t) {
      m.median_us[static_cast<size_t>(from) * n + static_cast<size_t>(to)] =
          t.median_us;
      links.push_back({.from = from,
                       .to = to,
                       .link_class = LinkClass(survey.topology, from, to),
                       .median_us = t.median_us,
                       .relative_error = t.RelativeError()});
    };
    add(a, b,
        what == What::kLatency  ? times.latency
        : what == What::kOneWay ? times.forward[size]
                                : times.both[size]);
    add(b, a,
        what == What::kLatency  ? times.latency
        : what == What::kOneWay ? times.backward[size]
                                : times.both[size]);
  }
  out.findings = FindOutliers(links);
  m.slow = out.findings.links;
  // Only one-way times tell directions apart.
  if (what == What::kOneWay) m.asymmetric = out.findings.asymmetric;
  return out;
}

std::string Title(const PairMatrix &m) {
  if (m.bytes == kLatencyBytes && !m.bidirectional) {
    return "latency, us (half of a round trip of 8 bytes)";
  }
  return fmt::format("{}, {} messages, MB/s in each direction",
                     m.bidirectional ? "both directions at once" : "one way",
                     BytesText(static_cast<double>(m.bytes)));
}

void Print(const PairMatrix &m, bool latency) {
  std::vector<double> values;
  const auto n = static_cast<size_t>(m.ranks);
  const auto value = [&](double us) {
    return latency ? us : static_cast<double>(m.bytes) / us;
  };
  for (const double us : m.median_us) {
    if (!std::isnan(us)) values.push_back(value(us));
  }
  if (values.empty()) return;
  fmt::print("{}: {:.4g} to {:.4g}, median {:.4g}\n", Title(m),
             std::ranges::min(values), std::ranges::max(values),
             MedianOrNaN(values));
  if (m.ranks > kMostRanksPrinted) return;
  std::vector<std::string> header = {"from \\ to"};
  for (size_t to = 0; to < n; ++to) header.push_back(fmt::format("{}", to));
  Table table(std::move(header));
  for (size_t from = 0; from < n; ++from) {
    std::vector<std::string> row = {
        fmt::format("rank {} ({})", from, m.places[from])};
    for (size_t to = 0; to < n; ++to) {
      const double us = m.median_us[from * n + to];
      row.push_back(std::isnan(us) ? "-" : fmt::format("{:.4g}", value(us)));
    }
    table.Add(std::move(row));
  }
  fmt::print("{}\n", table.Text());
}

// "42.1 ms, 6.23 MB/s" or "31.2 us".
std::string Amount(const PairMatrix &m, double us, bool latency) {
  return latency ? TimeText(us)
                 : fmt::format("{}, {}", TimeText(us),
                               RateText(static_cast<double>(m.bytes), us));
}

std::vector<std::string> Sentences(const Matrix &found, bool latency) {
  const PairMatrix &m = found.matrix;
  const std::string what =
      latency ? "latency"
              : fmt::format("{}{}", BytesText(static_cast<double>(m.bytes)),
                            m.bidirectional ? " both ways" : "");
  const auto place = [&](int rank) {
    return m.places[static_cast<size_t>(rank)];
  };
  std::vector<std::string> out;
  std::set<int> named;
  for (const auto &e : found.findings.endpoints) {
    named.insert(e.rank);
    out.push_back(fmt::format(
        "{}: all links of rank {} ({}) are {}: they take {:.3g} times as long "
        "as the others {}",
        what, e.rank, place(e.rank), e.factor > 1 ? "slow" : "fast", e.factor,
        e.link_class));
  }
  for (const PairMatrix::Slow &s : m.slow) {
    if (named.contains(s.from) || named.contains(s.to)) continue;
    out.push_back(fmt::format(
        "{}: the link {} -> {} ({} -> {}) is {}: {}, where the median {} is {} "
        "(z = {:.3g})",
        what, s.from, s.to, place(s.from), place(s.to),
        s.z > 0 ? "slow" : "fast", Amount(m, s.median_us, latency),
        s.link_class, Amount(m, s.class_median_us, latency), s.z));
  }
  for (const PairMatrix::Asymmetry &a : m.asymmetric) {
    out.push_back(fmt::format(
        "{}: ranks {} and {} ({}, {}) are asymmetric: {} one way and {} back",
        what, a.a, a.b, place(a.a), place(a.b), Amount(m, a.a_to_b_us, latency),
        Amount(m, a.b_to_a_us, latency)));
  }
  return out;
}

// What to think of links that stand out where ranks take turns on the cores of
// a node; empty where each can have one.
std::string Crowding(const Topology &topology) {
  std::map<int, int> ranks_of;
  for (const int node : topology.node_of) ++ranks_of[node];
  int most = 0;
  for (const auto &[node, ranks] : ranks_of) most = std::max(most, ranks);
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  if (cores < 1 || most <= cores) return "";
  return fmt::format(
      "{} ranks share the {} of a node, and waiting for a turn is in their "
      "times: what stands out may be the scheduler's doing, not a link's",
      most, cores == 1 ? "one core" : fmt::format("{} cores", cores));
}

Interconnect Describe(const Survey &survey, const std::string &backend) {
  Interconnect found;
  const auto add = [&](What what, size_t size) {
    const bool latency = what == What::kLatency;
    Matrix m = MatrixOf(survey, backend, what, size);
    Print(m.matrix, latency);
    // Of the sizes in between, the file has the matrices.
    if (latency || size + 1 == survey.sizes.size()) {
      for (std::string &s : Sentences(m, latency)) {
        found.findings.push_back(std::move(s));
      }
    }
    if (latency) {
      for (const std::string &name : m.findings.too_few) {
        found.findings.push_back(fmt::format(
            "fewer than 3 links {}: nothing to compare them with", name));
      }
    }
    found.p2p.push_back(std::move(m.matrix));
  };
  add(What::kLatency, 0);
  for (size_t i = 0; i < survey.sizes.size(); ++i) add(What::kOneWay, i);
  for (size_t i = 0; i < survey.sizes.size(); ++i) add(What::kBothWays, i);
  if (found.findings.empty()) {
    found.findings.emplace_back("no link stands out, and none is asymmetric");
  }
  if (std::string crowding = Crowding(survey.topology); !crowding.empty()) {
    found.findings.push_back(std::move(crowding));
  }
  return found;
}

}  // namespace

ExitCode RunP2p(const Options &options) {
  const auto sizes = SizesOf(options, 64 << 10, 4 << 20, 8);
  if (!sizes.ok()) return Refuse(sizes.status());
  auto session = Session::Create(options);
  if (!session.ok()) return Refuse(session.status());
  Session &s = **session;
  const auto ranks = s.Ranks({4});
  if (!ranks.ok()) return Refuse(ranks.status());
  if (ranks->size() != 1 || ranks->front() < 2) {
    return Refuse(
        InvalidArgument("--ranks {}: p2p takes one number of ranks, at least 2",
                        fmt::join(*ranks, ",")));
  }
  Survey survey{.ranks = ranks->front(), .sizes = *sizes};
  const Status measured = MeasureAll(s, options, survey);
  if (!measured.ok() && !s.interrupted()) s.Note(Refuse(measured));
  if (s.leader() && !survey.pairs.empty()) {
    Keep(s, Describe(survey, std::string(s.world().backend())));
  } else if (s.leader() && measured.ok()) {
    s.Note(kExitInvalid);
    fmt::print("no pair was measured\n");
  }
  return s.Finish();
}

}  // namespace shardproof
