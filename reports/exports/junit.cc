#include "reports/exports/junit.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "reports/exports/text.h"
#include "reports/key.h"

namespace shardproof {
namespace {

using Finding = GateOutcome::Finding;

// What a testcase came to, and the element that says so.
enum class Outcome { kPassed, kFailure, kError, kSkipped };
constexpr std::array<std::string_view, 4> kElements = {"", "failure", "error",
                                                       "skipped"};

struct TestCase {
  std::string case_name = {}, name = {};
  Outcome outcome = Outcome::kPassed;
  std::string type = {}, message = {}, body = {};
  std::vector<std::pair<std::string, std::string>> properties = {};

  void Property(std::string_view key, std::string value) {
    properties.emplace_back(key, std::move(value));
  }
  void Property(std::string_view key, double value) {
    properties.emplace_back(key, NumberText(value));
  }
  void Property(std::string_view key, const std::optional<double>& value) {
    if (value.has_value()) Property(key, *value);
  }
};

struct Suite {
  std::string name = {}, timestamp = {}, host = {};
  std::vector<TestCase> cases = {};
};

bool IsPerformance(std::string_view kind) {
  return kind == "regressed" || kind == "improved" || kind == "invalid" ||
         kind == "missing" || kind == "inconclusive";
}

// The finding of the gate about a key; one that is not quarantined first.
const Finding* FindingOf(const Report& report, std::string_view key,
                         bool performance) {
  const Finding* best = nullptr;
  if (!report.gate.has_value()) return best;
  for (const Finding& f : report.gate->findings) {
    if (f.key != key || IsPerformance(f.kind) != performance) continue;
    if (best == nullptr || (best->quarantined && !f.quarantined)) best = &f;
  }
  return best;
}

void Quarantine(const Finding* finding, TestCase& test) {
  if (finding == nullptr || !finding->quarantined ||
      test.outcome == Outcome::kPassed) {
    return;
  }
  test.outcome = Outcome::kSkipped;
  test.message =
      fmt::format("quarantined by {}: {}", finding->quarantine, test.message);
}

std::string Body(std::string_view reason, std::string_view repro) {
  std::string body(reason);
  if (!repro.empty()) body += fmt::format("\nreproduce: {}", repro);
  return body;
}

// The key without the case, which is the class.
std::string NameWithin(std::string_view case_name, std::string_view key) {
  if (key.substr(0, case_name.size()) == case_name &&
      key.size() > case_name.size() + 1) {
    key.remove_prefix(case_name.size() + 1);
  }
  return std::string(key);
}

void Describe(const Record& r, TestCase& test) {
  if (r.time_us.has_value()) {
    const Record::Time& t = *r.time_us;
    test.Property("median_us", t.median);
    test.Property("interval_low_us", t.interval_low);
    test.Property("interval_high_us", t.interval_high);
    test.Property("p90_us", t.p90);
    test.Property("samples", std::to_string(t.samples));
    for (const std::string& flag : t.flags) test.Property("flag", flag);
  }
  test.Property("algbw_gbps", r.algbw_gbps);
  test.Property("busbw_gbps", r.busbw_gbps);
  test.Property("gflops", r.gflops);
  test.Property("predicted_us", r.predicted_us);
  test.Property("floor_us", r.floor_us);
  if (r.error.has_value()) {
    test.Property("tier", r.error->tier);
    test.Property("worst_ratio", r.error->worst_ratio);
    test.Property("max_abs", r.error->max_abs);
    test.Property("max_ulp", r.error->max_ulp);
  }
  if (r.traffic.has_value()) {
    test.Property("bytes", std::to_string(r.traffic->bytes));
    test.Property("messages", std::to_string(r.traffic->messages));
  }
}

std::string RecordBody(const Record& r) {
  std::string reason = r.reason;
  if (r.error.has_value()) {
    if (!r.error->diagnosis.empty()) reason += "\n" + r.error->diagnosis;
    for (const Record::Mismatch& m : r.error->mismatches) {
      reason += fmt::format("\n{}[{}] on rank {}: {} expected, got {}",
                            m.tensor, fmt::join(m.index, ", "), m.rank,
                            NumberText(m.expected), NumberText(m.got));
    }
  }
  return Body(reason, r.repro);
}

TestCase Of(const Record& r, const Finding* finding, std::string_view launch) {
  TestCase test{.case_name = r.case_name,
                .name = NameWithin(r.case_name, KeyOf(r)),
                .type = std::string(Name(r.verdict)),
                .message = r.reason,
                .body = RecordBody(r)};
  if (!launch.empty()) test.name += fmt::format(" [{}]", launch);
  switch (r.verdict) {
    case Verdict::kPassed:
      break;
    case Verdict::kIncorrect:
    case Verdict::kSuspect:
      test.outcome = Outcome::kFailure;
      break;
    case Verdict::kFailed:
      test.outcome = Outcome::kError;
      break;
    case Verdict::kUnsupported:
    case Verdict::kNotBuilt:
      test.outcome = Outcome::kSkipped;
      break;
  }
  Describe(r, test);
  Quarantine(finding, test);
  return test;
}

TestCase Of(const Comparison& c, const Finding* finding) {
  TestCase test{.case_name = c.case_name,
                .name = NameWithin(c.case_name, c.key),
                .type = std::string(Name(c.change)),
                .message = c.reason,
                .body = Body(c.reason, c.repro)};
  switch (c.change) {
    case Change::kInvalid:
      test.outcome = Outcome::kError;
      break;
    case Change::kRegressed:
      test.outcome = Outcome::kFailure;
      break;
    case Change::kInconclusive:
      test.outcome = finding != nullptr ? Outcome::kFailure : Outcome::kSkipped;
      break;
    case Change::kImproved:
    case Change::kEquivalent:
      break;
  }
  test.Property("base_us", c.base_us);
  test.Property("cand_us", c.cand_us);
  test.Property("effect", c.effect);
  test.Property("interval_low", c.interval_low);
  test.Property("interval_high", c.interval_high);
  test.Property("hodges_lehmann", c.hodges_lehmann);
  test.Property("p", c.p);
  test.Property("sign_flip_p", c.sign_flip_p);
  test.Property("adjusted_p", c.adjusted_p);
  test.Property("margin", c.margin);
  test.Property("pairs", std::to_string(c.pairs));
  test.Property("change", std::string(Name(c.change)));
  Quarantine(finding, test);
  return test;
}

TestCase Of(const Finding& f) {
  const std::string case_name = f.key.substr(0, f.key.find(' '));
  TestCase test{.case_name = case_name,
                .name = NameWithin(case_name, f.key),
                .outcome = f.kind == "missing" || f.kind == "invalid" ||
                                   f.kind == "failed"
                               ? Outcome::kError
                               : Outcome::kFailure,
                .type = f.kind,
                .message = f.reason,
                .body = Body(f.reason, f.repro)};
  Quarantine(&f, test);
  return test;
}

int64_t CountOf(const Suite& suite, Outcome outcome) {
  return std::count_if(
      suite.cases.begin(), suite.cases.end(),
      [&](const TestCase& test) { return test.outcome == outcome; });
}

std::string Counts(int64_t tests, int64_t failures, int64_t errors,
                   int64_t skipped) {
  return fmt::format(R"(tests="{}" failures="{}" errors="{}" skipped="{}")",
                     tests, failures, errors, skipped);
}

void Write(const TestCase& test, std::string& out) {
  std::string class_name = test.case_name;
  std::replace(class_name.begin(), class_name.end(), '/', '.');
  out += fmt::format("    <testcase classname=\"{}\" name=\"{}\">\n",
                     XmlAttribute(class_name), XmlAttribute(test.name));
  if (!test.properties.empty()) {
    out += "      <properties>\n";
    for (const auto& [key, value] : test.properties) {
      out += fmt::format("        <property name=\"{}\" value=\"{}\"/>\n",
                         XmlAttribute(key), XmlAttribute(value));
    }
    out += "      </properties>\n";
  }
  const std::string_view element = kElements[static_cast<size_t>(test.outcome)];
  if (test.outcome == Outcome::kSkipped) {
    out += fmt::format("      <skipped message=\"{}\"/>\n",
                       XmlAttribute(test.message));
  } else if (!element.empty()) {
    out += fmt::format("      <{0} type=\"{1}\" message=\"{2}\">{3}</{0}>\n",
                       element, XmlAttribute(test.type),
                       XmlAttribute(test.message), XmlText(test.body));
  }
  out += "    </testcase>\n";
}

void Write(const Suite& suite, std::string& out) {
  out += fmt::format(
      "  <testsuite name=\"{}\" {} timestamp=\"{}\" hostname=\"{}\">\n",
      suite.name,
      Counts(static_cast<int64_t>(suite.cases.size()),
             CountOf(suite, Outcome::kFailure), CountOf(suite, Outcome::kError),
             CountOf(suite, Outcome::kSkipped)),
      XmlAttribute(suite.timestamp), XmlAttribute(suite.host));
  for (const TestCase& test : suite.cases) Write(test, out);
  out += "  </testsuite>\n";
}

}  // namespace

std::string JUnit(const Report& report) {
  Suite correctness{.name = "correctness"};
  if (!report.launches.empty()) {
    correctness.timestamp = report.launches.front().started;
    correctness.host = report.launches.front().fingerprint.host;
  }
  Suite performance = correctness;
  performance.name = "performance";

  std::set<std::string> correct_keys;
  std::set<std::string> compared_keys;
  const bool several = report.launches.size() > 1;
  for (const Launch& launch : report.launches) {
    for (const Record& r : launch.records) {
      const std::string key = KeyOf(r);
      correctness.cases.push_back(
          Of(r, FindingOf(report, key, false), several ? launch.name : ""));
      correct_keys.insert(key);
    }
  }
  for (const Comparison& c : report.comparisons) {
    performance.cases.push_back(Of(c, FindingOf(report, c.key, true)));
    compared_keys.insert(c.key);
  }
  if (report.gate.has_value()) {
    for (const Finding& f : report.gate->findings) {
      const bool performs = IsPerformance(f.kind);
      auto& keys = performs ? compared_keys : correct_keys;
      if (!keys.insert(f.key).second) continue;
      (performs ? performance : correctness).cases.push_back(Of(f));
    }
  }
  const auto sum = [&](Outcome outcome) {
    return CountOf(correctness, outcome) + CountOf(performance, outcome);
  };
  std::string out = fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<testsuites name=\"{}\" {}>\n",
      XmlAttribute(report.title),
      Counts(static_cast<int64_t>(correctness.cases.size() +
                                  performance.cases.size()),
             sum(Outcome::kFailure), sum(Outcome::kError),
             sum(Outcome::kSkipped)));
  Write(correctness, out);
  Write(performance, out);
  return out + "</testsuites>\n";
}

}  // namespace shardproof
