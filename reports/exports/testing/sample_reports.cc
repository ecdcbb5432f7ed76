#include "reports/exports/testing/sample_reports.h"

#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include "reports/key.h"

namespace shardproof {
namespace {

Record Timed(std::string variant, double us) {
  Record r{.case_name = "collectives/all_reduce",
           .variant = std::move(variant),
           .backend = "thread",
           .ranks = 2,
           .params = {{"dtype", "f32"}, {"count", "1024"}},
           .verdict = Verdict::kPassed};
  r.time_us = Record::Time{
      .median = us,
      .p10 = us - 1,
      .p90 = us + 2,
      .min = us - 2,
      .max = us + 3,
      .interval_low = us - 0.5,
      .interval_high = us + 0.5,
      .samples = 3,
      .per_rank_median = {us, us - 1},
      .samples_us = {us, us + 1, us - 1},
      .rank_samples_us = {{us, us - 1, us - 2}, {us - 1, us + 1, us - 1}}};
  r.algbw_gbps = 1.5;
  r.busbw_gbps = 3;
  return r;
}

Record Bad(Verdict verdict, std::string variant, std::string reason) {
  Record r{.case_name = "layers/norm/rms_norm",
           .variant = std::move(variant),
           .backend = "mpi",
           .ranks = 4,
           .params = {{"rows", "7"}},
           .verdict = verdict,
           .reason = std::move(reason),
           .repro = "shardproof verify --filter rms_norm"};
  if (verdict == Verdict::kIncorrect) {
    r.error = Record::Error{.tier = "exact",
                            .worst_ratio = 4,
                            .mismatches = {{"y", 2, {3, 1}, 0.5, -0.25}},
                            .diagnosis = "rank 1 missing"};
  }
  return r;
}

Comparison Compared(Change change, const std::string& variant, double effect) {
  return {.key = "collectives/all_reduce " + variant + " thread 2",
          .case_name = "collectives/all_reduce",
          .variant = variant,
          .backend = "thread",
          .params = "",
          .ranks = 2,
          .change = change,
          .reason = "because of " + variant,
          .base_us = 100,
          .cand_us = 100 * (1 + effect),
          .effect = effect,
          .interval_low = effect - 0.01,
          .interval_high = effect + 0.01,
          .p = 0.001,
          .adjusted_p = 0.01,
          .margin = 0.02,
          .pairs = 10,
          .repro = "shardproof ab --filter " + variant};
}

}  // namespace

Report TypicalReport() {
  Report report;
  report.written = "2026-11-22T12:00:00Z";
  Launch launch{.name = "results.json",
                .started = "2026-11-22T11:00:00Z",
                .complete = true,
                .left_out = {"backend cuda: there is no GPU"}};
  launch.fingerprint.host = "node0";
  launch.records = {
      Timed("ring", 100),
      Timed("direct", 50),
      Bad(Verdict::kIncorrect, "wrong", "1 of 4 elements is wrong"),
      Bad(Verdict::kSuspect, "doubtful", "between the bounds"),
      Bad(Verdict::kFailed, "crashed", "rank 2 died"),
      Bad(Verdict::kUnsupported, "native", "no such operation"),
      Bad(Verdict::kNotBuilt, "device", "CUDA is not built"),
      Bad(Verdict::kIncorrect, "known", "an old one")};
  report.launches = {launch};
  report.comparisons = {Compared(Change::kEquivalent, "ring", 0.001),
                        Compared(Change::kRegressed, "tree", 0.07),
                        Compared(Change::kRegressed, "slower", 0.12),
                        Compared(Change::kImproved, "direct", -0.2),
                        Compared(Change::kInvalid, "hot", 0),
                        Compared(Change::kInconclusive, "noisy", 0.04),
                        Compared(Change::kInconclusive, "counted", 0.03)};
  GateOutcome gate{.exit_code = 1, .headline = "FAILED: 1 wrong result"};
  const auto find = [&](std::string key, std::string kind) -> auto& {
    auto& f = gate.findings.emplace_back();
    f.key = std::move(key);
    f.kind = std::move(kind);
    f.reason = "of the gate";
    f.repro = "shardproof gate";
    return f;
  };
  find(KeyOf(launch.records[2]), "incorrect");
  find("collectives/all_reduce counted thread 2", "inconclusive");
  find("collectives/gone ring thread 2 count=1", "missing");
  auto& known = find(KeyOf(launch.records[7]), "incorrect");
  known.quarantined = true;
  known.quarantine = "ada: ticket 7, until 2027-01-01";
  auto& tree = find("collectives/all_reduce tree thread 2", "regressed");
  tree.quarantined = true;
  tree.quarantine = "bob: new switch, until 2027-02-01";
  gate.notes = {"policy gate.toml, version 3"};
  report.gate = gate;
  report.calibration = Calibration{.machine = "m",
                                   .null_verdicts = 300,
                                   .false_alarms = 1,
                                   .false_alarms_high = 0.0157,
                                   .noise = 0.013,
                                   .power = {{0.05, 50, 49, 0.909, 0.05}}};
  return report;
}

std::vector<std::string> HostileStrings() {
  using std::string_view_literals::operator""sv;
  std::vector<std::string> all;
  for (const std::string_view text : {"]]>"sv,
                                      "</script><script>alert(1)</script>"sv,
                                      "<!-- --!>"sv,
                                      "\" onload=\"alert(1)"sv,
                                      "'; DROP TABLE runs; --"sv,
                                      "&lt;&#0;&nosuch;"sv,
                                      "two\nlines"sv,
                                      "two\r\nlines\r"sv,
                                      "nul\0inside"sv,
                                      "\x01\x08\x0B\x0C\x1B[31m\x7F"sv,
                                      "\xFF\xFE"sv,
                                      "over\xC0\x80long"sv,
                                      "sur\xED\xA0\x80rogate"sv,
                                      "far\xF4\x90\x80\x80out"sv,
                                      "no\xEF\xBF\xBE char\xEF\xBF\xBF"sv,
                                      "caf\xC3\xA9 \xF0\x9F\x9A\x80"sv,
                                      "=cmd|' /C calc'!A0"sv,
                                      "+1+cmd"sv,
                                      "-2+3"sv,
                                      "@SUM(A1)"sv,
                                      "\t=1"sv,
                                      "\r=1"sv,
                                      "a,b;c\td"sv,
                                      "\"quoted\""sv,
                                      "a|b `c` *d* _e_ ~f~ # g"sv,
                                      "[x](javascript:alert(1))"sv,
                                      "![x](http://evil.example/x.png)"sv,
                                      "www.evil.example"sv,
                                      "\\\"} 1\n# EOF"sv,
                                      "{{7*7}}"sv,
                                      "# EOF"sv,
                                      "ends with \\"sv,
                                      " "sv,
                                      "-"sv,
                                      "="sv}) {
    all.emplace_back(text);
  }
  return all;
}

Report HostileReport() {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  Report report;
  GateOutcome gate{.exit_code = 1};
  int number = 0;
  for (const std::string& text : HostileStrings()) {
    // Of its own kind, so that no two keys are the same.
    const std::string own = text + std::to_string(number++);
    report.title = gate.headline = text;
    gate.notes.push_back(text);
    Record r{.case_name = own,
             .variant = text,
             .backend = text,
             .ranks = 2,
             .params = {{text, text}},
             .verdict = static_cast<Verdict>(number % 6),
             .reason = text,
             .repro = text,
             .memory = text};
    r.error = Record::Error{.tier = text,
                            .worst_ratio = nan,
                            .mismatches = {{text, 0, {1}, nan, -infinity}},
                            .diagnosis = text};
    r.time_us = Record::Time{.median = nan,
                             .p10 = -infinity,
                             .p90 = infinity,
                             .cadence = text,
                             .rank_samples_us = {{1, nan, 3}, {infinity, 2}},
                             .flags = {text}};
    Launch launch{.name = text,
                  .command = text,
                  .started = text,
                  .left_out = {text},
                  .records = {r}};
    launch.fingerprint.host = launch.fingerprint.cpu = text;
    launch.fingerprint.label = launch.fingerprint.mpi = text;
    report.launches.push_back(launch);
    report.comparisons.push_back({.key = KeyOf(r),
                                  .case_name = own,
                                  .variant = text,
                                  .backend = text,
                                  .params = text,
                                  .change = static_cast<Change>(number % 5),
                                  .reason = text,
                                  .base_us = nan,
                                  .cand_us = infinity,
                                  .effect = nan,
                                  .interval_low = -infinity,
                                  .interval_high = infinity,
                                  .repro = text});
    gate.findings.push_back({.key = own,
                             .kind = number % 2 == 0 ? "missing" : text,
                             .reason = text,
                             .repro = text,
                             .quarantined = number % 3 == 0,
                             .quarantine = text});
  }
  report.gate = gate;
  report.calibration = Calibration{.machine = "]]>", .measured = "</script>"};
  return report;
}

}  // namespace shardproof
