// What is read out of the history.
#include <algorithm>
#include <map>
#include <regex>
#include <utility>

#include "reports/json_io.h"
#include "reports/store/store.h"

namespace shardproof {
namespace {

using Json = nlohmann::ordered_json;

// Of a column that holds JSON.
StatusOr<Json> Parse(const std::string& text, const std::string& path) {
  auto json = ParseJson(text, path);
  if (json.ok()) return *std::move(json);
  return DataLoss(
      "{} holds something that is not JSON: save what can be read with "
      "`sqlite3 {} .dump`, then move it away",
      path, path);
}

StatusOr<std::regex> Compile(const std::string& filter) {
  try {
    return std::regex(filter);
  } catch (const std::regex_error& error) {
    return InvalidArgument("the filter \"{}\" is not a regular expression: {}",
                           filter, error.what());
  }
}

// The keys that match, remembered: a regular expression is slow, and every
// launch has the same keys.
class KeyFilter {
 public:
  static StatusOr<KeyFilter> Create(const std::string& filter) {
    SP_ASSIGN_OR_RETURN(std::regex regex, Compile(filter));
    return KeyFilter(filter.empty(), std::move(regex));
  }
  bool Matches(const std::string& key) {
    if (all_) return true;
    const auto [it, added] = known_.try_emplace(key, false);
    if (added) it->second = std::regex_search(key, regex_);
    return it->second;
  }

 private:
  KeyFilter(bool all, std::regex regex) : all_(all), regex_(std::move(regex)) {}
  bool all_;
  std::regex regex_;
  std::map<std::string, bool> known_;
};

std::vector<std::string> Lines(const Json& json) {
  std::vector<std::string> lines;
  for (const Json& line : json) {
    if (line.is_string()) lines.push_back(line.get<std::string>());
  }
  return lines;
}

}  // namespace

StatusOr<std::vector<std::string>> Store::Keys(const std::string& filter) {
  SP_ASSIGN_OR_RETURN(KeyFilter keys, KeyFilter::Create(filter));
  SP_ASSIGN_OR_RETURN(
      Statement select,
      database_.Prepare("SELECT DISTINCT key FROM records ORDER BY key"));
  std::vector<std::string> found;
  while (true) {
    SP_ASSIGN_OR_RETURN(const bool row, select.Step());
    if (!row) return found;
    if (std::string key = select.Text(0); keys.Matches(key)) {
      found.push_back(std::move(key));
    }
  }
}

StatusOr<std::vector<History>> Store::Histories(const HistoryQuery& query) {
  SP_ASSIGN_OR_RETURN(KeyFilter keys, KeyFilter::Create(query.filter));
  SP_ASSIGN_OR_RETURN(
      Statement select,
      database_.Prepare(
          "SELECT key, machine, started, label, binary, epoch, median_us, "
          "worst_ratio, verdict, l.id "
          "FROM records r JOIN launches l ON r.launch = l.id "
          "WHERE verdict NOT IN ('unsupported', 'not_built') "
          "AND (?1 = '' OR machine = ?1) AND started >= ?2 "
          "ORDER BY key, machine, started, l.id, r.id"));
  select.Bind(query.machine, query.since);
  std::vector<History> histories;
  // The launch of every point that starts an epoch, and of the one before it.
  struct Turn {
    size_t history = 0;
    int64_t before = 0, after = 0;
  };
  std::vector<Turn> turns;
  int64_t previous_launch = 0;
  while (true) {
    SP_ASSIGN_OR_RETURN(const bool row, select.Step());
    if (!row) break;
    std::string key = select.Text(0);
    if (!keys.Matches(key)) continue;
    std::string machine = select.Text(1);
    if (histories.empty() || histories.back().key != key ||
        histories.back().machine != machine) {
      histories.push_back(
          {.key = std::move(key), .machine = std::move(machine)});
    }
    History& history = histories.back();
    const int64_t launch = select.Int(9);
    history.points.push_back(
        {.started = select.Text(2),
         .label = select.Text(3),
         .binary = select.Text(4),
         .epoch = select.Text(5),
         .median_us = select.Real(6),
         .worst_ratio = select.Real(7),
         .passed = select.Text(8) == Name(Verdict::kPassed)});
    const size_t n = history.points.size();
    if (n > 1 && history.points[n - 1].epoch != history.points[n - 2].epoch) {
      history.epochs.push_back({.first = n - 1});
      turns.push_back({.history = histories.size() - 1,
                       .before = previous_launch,
                       .after = launch});
    }
    previous_launch = launch;
  }
  // Many keys turn at the same two launches.
  SP_ASSIGN_OR_RETURN(
      Statement print,
      database_.Prepare("SELECT fingerprint FROM launches WHERE id = ?"));
  const auto fingerprint = [&](int64_t id) -> StatusOr<Fingerprint> {
    SP_ASSIGN_OR_RETURN(const bool row, print.Bind(id).Step());
    if (!row) return Fingerprint();  // Pruned in this moment.
    SP_ASSIGN_OR_RETURN(const Json json, Parse(print.Text(0), path()));
    return FingerprintFromJson(json);
  };
  std::map<std::pair<int64_t, int64_t>, std::string> labels;
  std::vector<size_t> next(histories.size());
  for (const Turn& turn : turns) {
    std::string& label = labels[{turn.before, turn.after}];
    if (label.empty()) {
      SP_ASSIGN_OR_RETURN(const Fingerprint before, fingerprint(turn.before));
      SP_ASSIGN_OR_RETURN(const Fingerprint after, fingerprint(turn.after));
      label = EpochChange(before, after);
    }
    histories[turn.history].epochs[next[turn.history]++].label = label;
  }
  return histories;
}

StatusOr<std::vector<Record>> Store::Records(int64_t launch,
                                             const std::string& filter) {
  SP_ASSIGN_OR_RETURN(KeyFilter keys, KeyFilter::Create(filter));
  SP_ASSIGN_OR_RETURN(
      Statement select,
      database_.Prepare(
          "SELECT key, record FROM records WHERE launch = ? ORDER BY id"));
  select.Bind(launch);
  std::vector<Record> records;
  while (true) {
    SP_ASSIGN_OR_RETURN(const bool row, select.Step());
    if (!row) return records;
    if (!keys.Matches(select.Text(0))) continue;
    SP_ASSIGN_OR_RETURN(const Json json, Parse(select.Text(1), path()));
    auto record = RecordFromJson(json);
    if (!record.ok()) return record.status().WithContext(path());
    records.push_back(*std::move(record));
  }
}

StatusOr<std::vector<Launch>> Store::Launches(const LaunchQuery& query) {
  SP_RETURN_IF_ERROR(Compile(query.filter).status());
  SP_ASSIGN_OR_RETURN(
      Statement select,
      database_.Prepare(
          "SELECT id, name, command, started, finished, complete, interrupted, "
          "left_out, fingerprint, before, after FROM launches "
          "WHERE (?1 = '' OR machine = ?1) AND (?2 = '' OR epoch = ?2) "
          "AND (?3 = '' OR label = ?3) AND (?4 IS NULL OR id = ?4) "
          "AND (?5 = 0 OR id < ?5) AND (complete OR NOT ?6) "
          "ORDER BY started DESC, id DESC"));
  select.Bind(query.machine, query.epoch, query.label, query.id,
              query.before_id, query.complete_only);
  std::vector<Launch> launches;
  while (query.last <= 0 || static_cast<int>(launches.size()) < query.last) {
    SP_ASSIGN_OR_RETURN(const bool row, select.Step());
    if (!row) break;
    Launch launch{.name = select.Text(1),
                  .command = select.Text(2),
                  .started = select.Text(3),
                  .finished = select.Text(4),
                  .complete = select.Int(5) != 0,
                  .interrupted = select.Int(6) != 0};
    const int64_t id = select.Int(0);
    if (launch.name.empty()) {
      launch.name = fmt::format("launch {} of the history", id);
    }
    SP_ASSIGN_OR_RETURN(const Json left_out, Parse(select.Text(7), path()));
    launch.left_out = Lines(left_out);
    SP_ASSIGN_OR_RETURN(const Json fingerprint, Parse(select.Text(8), path()));
    launch.fingerprint = FingerprintFromJson(fingerprint);
    SP_ASSIGN_OR_RETURN(const Json before, Parse(select.Text(9), path()));
    launch.before = ConditionsFromJson(before);
    SP_ASSIGN_OR_RETURN(const Json after, Parse(select.Text(10), path()));
    launch.after = ConditionsFromJson(after);
    SP_ASSIGN_OR_RETURN(launch.records, Records(id, query.filter));
    if (!query.filter.empty() && launch.records.empty()) continue;
    launches.push_back(std::move(launch));
  }
  std::reverse(launches.begin(), launches.end());
  return launches;
}

StatusOr<std::vector<Store::SamePair>> Store::LaunchesOfSameBinary(
    const std::string& machine, int most) {
  SP_ASSIGN_OR_RETURN(
      Statement launches,
      database_.Prepare("SELECT id, epoch, binary FROM launches "
                        "WHERE machine = ? AND binary <> '' AND complete "
                        "ORDER BY started DESC, id DESC"));
  launches.Bind(machine);
  SP_ASSIGN_OR_RETURN(
      Statement keys,
      database_.Prepare(
          "SELECT a.key, a.median_us, b.median_us FROM records a "
          "JOIN records b ON a.key = b.key "
          "WHERE a.launch = ? AND b.launch = ? "
          "AND a.verdict = 'passed' AND b.verdict = 'passed' "
          "AND a.median_us > 0 AND b.median_us > 0 ORDER BY a.id"));
  // The launch of each (epoch, binary) that waits for its partner.
  std::map<std::pair<std::string, std::string>, int64_t> alone;
  std::vector<SamePair> pairs;
  for (int found = 0; found < most;) {
    SP_ASSIGN_OR_RETURN(const bool row, launches.Step());
    if (!row) break;
    const int64_t id = launches.Int(0);
    const std::string binary = launches.Text(2);
    const auto [it, added] = alone.try_emplace({launches.Text(1), binary}, id);
    if (added) continue;
    const int64_t later = it->second;
    alone.erase(it);
    keys.Bind(id, later);
    const size_t before = pairs.size();
    while (true) {
      SP_ASSIGN_OR_RETURN(const bool key, keys.Step());
      if (!key) break;
      pairs.push_back({.key = keys.Text(0),
                       .binary = binary,
                       .first_launch = id,
                       .second_launch = later,
                       .first_us = keys.Real(1),
                       .second_us = keys.Real(2)});
    }
    if (pairs.size() > before) ++found;
  }
  return pairs;
}

}  // namespace shardproof
