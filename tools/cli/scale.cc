// shardproof scale: time over the number of ranks, and over that of pairs that
// exchange at once.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "reports/fitting/crossover.h"
#include "tools/cli/commands.h"
#include "tools/cli/congestion.h"
#include "tools/cli/interconnect_commands.h"
#include "tools/cli/jobs.h"
#include "tools/cli/pair_measurement.h"
#include "tools/cli/table.h"

namespace shardproof {
namespace {

constexpr double kSecondsPerTime = 0.2;
constexpr int64_t kDefaultBytes = 1 << 20;

// --- Cases -------------------------------------------------------------------

// What grows with the ranks in weak scaling: a rank of a collective gives
// `count` elements, and layers are cut along their tokens.
constexpr std::array<std::string_view, 3> kGrowing = {"count", "tokens",
                                                      "sequence"};

struct Scaled {
  std::string kind;
  Job job;
};

bool IsCollective(const CaseInfo& info) {
  return info.name.starts_with("collectives/");
}

std::optional<std::string> GrowingAxis(const CaseInfo& info) {
  for (const std::string_view name : kGrowing) {
    for (const AxisInfo& axis : info.axes) {
      if (axis.name == name) return axis.name;
    }
  }
  return std::nullopt;
}

// The largest bench value, or what --axis says.
StatusOr<int64_t> BaseOf(const Options& options, const CaseInfo& info,
                         const std::string& axis, int ranks) {
  Options one = options;
  one.filter = "^" + info.name + "$";
  SP_ASSIGN_OR_RETURN(const std::vector<Job> jobs,
                      ChooseJobs(one, Purpose::kBench, {ranks}));
  int64_t most = 0;
  for (const Job& job : jobs) {
    for (const auto& [name, text] : job.instance.values) {
      int64_t value = 0;
      if (name != axis) continue;
      std::from_chars(text.data(), text.data() + text.size(), value);
      most = std::max(most, value);
    }
  }
  return most;
}

// Of a collective `count` is one rank's share: weak keeps it, strong divides
// it. A layer's axes are of the whole: strong keeps them, weak multiplies.
StatusOr<std::vector<Scaled>> JobsOf(const Options& options,
                                     const std::vector<int>& ranks) {
  Options one = options;
  if (one.filter == Options().filter) one.filter = "^collectives/all_reduce$";
  if (one.variant.empty()) one.variant = "auto";
  if (one.dtype.empty() && one.datatype.empty()) one.dtype = "f32";
  one.min_bytes = one.max_bytes = one.step_factor = "";
  SP_ASSIGN_OR_RETURN(const std::vector<const CaseInfo*> cases,
                      ChooseCases(one));
  std::vector<Scaled> out;
  for (const CaseInfo* info : cases) {
    const auto axis = GrowingAxis(*info);
    if (!axis.has_value()) continue;
    std::vector<int> numbers;
    for (const int n : ranks) {
      // One rank has nobody to talk to.
      if (n > 1 || !IsCollective(*info)) numbers.push_back(n);
    }
    if (numbers.empty()) continue;
    SP_ASSIGN_OR_RETURN(const int64_t base,
                        BaseOf(one, *info, *axis, numbers.front()));
    for (const bool strong : {true, false}) {
      for (const int n : numbers) {
        const double factor = static_cast<double>(n) / numbers.front();
        double value = static_cast<double>(base);
        if (strong && IsCollective(*info)) value /= factor;
        if (!strong && !IsCollective(*info)) value *= factor;
        Options sized = one;
        sized.filter = "^" + info->name + "$";
        sized.axis.push_back(fmt::format(
            "{}={}", *axis, std::max<int64_t>(1, std::llround(value))));
        SP_ASSIGN_OR_RETURN(const std::vector<Job> jobs,
                            ChooseJobs(sized, Purpose::kBench, {n}));
        for (const Job& job : jobs) {
          out.push_back({strong ? "strong" : "weak", job});
        }
      }
    }
  }
  return out;
}

ScalePoint PointOf(const std::string& kind, const Record& record) {
  std::string params;
  for (const auto& [axis, value] : record.params) {
    if (std::ranges::find(kGrowing, axis) != kGrowing.end()) continue;
    params += fmt::format("{}{}={}", params.empty() ? "" : " ", axis, value);
  }
  return {.kind = kind,
          .case_name = record.case_name,
          .variant = record.variant,
          .backend = record.backend,
          .params = params,
          .ranks = record.ranks,
          .median_us = record.time_us->median,
          .low_us = record.time_us->interval_low,
          .high_us = record.time_us->interval_high};
}

// From the point of the fewest ranks of the same curve: weak scaling keeps the
// time, strong scaling divides it.
void FillIdeals(std::vector<ScalePoint>& points) {
  using Key = std::array<std::string, 4>;
  std::map<Key, ScalePoint> first;
  for (const ScalePoint& p : points) {
    const Key key = {p.kind, p.case_name, p.variant, p.params};
    const auto [found, is_new] = first.try_emplace(key, p);
    if (!is_new && p.ranks < found->second.ranks) found->second = p;
  }
  for (ScalePoint& p : points) {
    const ScalePoint& base =
        first.at({p.kind, p.case_name, p.variant, p.params});
    p.ideal_us = base.median_us;
    if (p.kind == "strong") {
      p.ideal_us *= static_cast<double>(base.ranks) / p.ranks;
    }
    p.efficiency = p.ideal_us / p.median_us;
  }
}

// --- Pairs -------------------------------------------------------------------

Status MeasureCongestion(Session& session, const Options& options,
                         Congestion& found) {
  const MeasureOptions timing = LinkTiming(options, kSecondsPerTime);
  const int pairs = found.ranks / 2;
  const auto run = [&](const std::string& what, int first, int count,
                       std::vector<MessageTime>& times) {
    MessageTime time;
    SP_RETURN_IF_ERROR(session.RunOnRanks(
        what, found.ranks, options.timeout,
        [&](const Communicator& comm) -> Status {
          SP_ASSIGN_OR_RETURN(const MessageTime mine,
                              MeasurePairs(comm, first, count, found.exchange,
                                           found.bytes, timing));
          if (comm.rank() == 0) time = mine;
          return OkStatus();
        }));
    times.push_back(time);
    return OkStatus();
  };
  SP_RETURN_IF_ERROR(session.RunOnRanks(
      "places", found.ranks, options.timeout,
      [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(std::vector<std::string> places, Places(comm));
        if (comm.rank() == 0) found.places = std::move(places);
        return OkStatus();
      }));
  for (int p = 0; p < pairs && session.GoOn(true); ++p) {
    SP_RETURN_IF_ERROR(run(fmt::format("pair {} alone", p), p, 1, found.alone));
    SP_RETURN_IF_ERROR(
        run(fmt::format("{} pairs", p + 1), 0, p + 1, found.together));
  }
  return OkStatus();
}

// The largest number of ranks of each curve, in words.
std::vector<std::string> Efficiencies(const std::vector<ScalePoint>& points) {
  std::vector<std::string> out;
  for (const ScalePoint& p : points) {
    const bool last = std::ranges::none_of(points, [&](const ScalePoint& q) {
      return q.kind == p.kind && q.case_name == p.case_name &&
             q.variant == p.variant && q.params == p.params &&
             q.ranks > p.ranks;
    });
    if (!last || p.kind == "pairs") continue;
    out.push_back(fmt::format(
        "{} {} ({}): {:.0f} % of ideal {} scaling at {} "
        "ranks",
        p.case_name, p.variant, p.params, 100 * p.efficiency, p.kind, p.ranks));
  }
  return out;
}

void Print(const std::vector<ScalePoint>& points) {
  Table table({"scaling", "case", "variant", "params", "ranks", "median",
               "ideal", "efficiency"});
  for (const ScalePoint& p : points) {
    table.Add({p.kind, p.case_name, p.variant, p.params,
               fmt::format("{}", p.ranks), TimeText(p.median_us),
               TimeText(p.ideal_us),
               fmt::format("{:.0f}%", 100 * p.efficiency)});
  }
  if (table.size() > 0) fmt::print("{}\n", table.Text());
}

// 1, 2, 4, .. and all that the launcher started.
std::vector<int> DefaultRanks(int most) {
  std::vector<int> out;
  for (int n = 1; n <= most; n *= 2) out.push_back(n);
  if (out.back() != most) out.push_back(most);
  return out;
}

}  // namespace

ExitCode RunScale(const Options& options) {
  const auto sizes = SizesOf(options, kDefaultBytes, kDefaultBytes, 2);
  if (!sizes.ok()) return Refuse(sizes.status());
  auto session = Session::Create(options);
  if (!session.ok()) return Refuse(session.status());
  Session& s = **session;
  auto ranks = s.Ranks({1, 2, 4});
  if (!ranks.ok()) return Refuse(ranks.status());
  if (s.world().of_processes() && options.ranks.empty()) {
    *ranks = DefaultRanks(s.world().max_ranks());
  }
  std::ranges::sort(*ranks);
  const auto jobs = JobsOf(options, *ranks);
  if (!jobs.ok()) return Refuse(jobs.status());

  Interconnect found;
  std::array<Congestion, 2> congestions;
  for (Congestion& congestion : congestions) {
    congestion.exchange = &congestion != congestions.data();
    congestion.bytes = sizes->back();
    congestion.ranks = ranks->back();
    if (congestion.ranks < 2) continue;
    const Status measured = MeasureCongestion(s, options, congestion);
    if (!measured.ok()) {
      if (!s.interrupted()) s.Note(Refuse(measured));
      return s.Finish();
    }
  }
  Summary summary;
  std::vector<Job> chosen;
  for (const Scaled& scaled : *jobs) chosen.push_back(scaled.job);
  size_t at = 0;
  s.Run(chosen,
        {.name = "scale",
         .budget = options.time_budget,
         .measure = true,
         .timing = LinkTiming(options, kSecondsPerTime),
         .repeats = 1},
        [&](const Job&, const Record& record) {
          summary.Add(record);
          const std::string& kind = (*jobs)[at++].kind;
          if (record.time_us.has_value()) {
            found.scaling.push_back(PointOf(kind, record));
          }
        });
  if (s.leader()) {
    FillIdeals(found.scaling);
    // Both ways, protocols get in the way of each other: only one way shows
    // what the links do.
    found.findings = Bottlenecks(congestions.front());
    for (std::string& e : Efficiencies(found.scaling)) {
      found.findings.push_back(std::move(e));
    }
    for (const Congestion& congestion : congestions) {
      for (ScalePoint& p :
           PointsOf(congestion, std::string(s.world().backend()))) {
        found.scaling.push_back(std::move(p));
      }
    }
    Print(found.scaling);
    fmt::print("{}", summary.Text());
    if (found.scaling.empty()) s.Note(kExitInvalid);
    Keep(s, std::move(found));
  }
  return s.Finish();
}

}  // namespace shardproof
