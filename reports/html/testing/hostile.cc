#include <cmath>
#include <limits>

#include "reports/html/testing/sample.h"

namespace shardproof::testing {
namespace {

// Every text member gets all of the texts in turn, so that each place of the
// page sees each of them as a report has several of everything.
class Enemy {
 public:
  std::string operator()() {
    const std::string text = texts_[next_ % texts_.size()];
    ++next_;
    return text;
  }
  double Number() {
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    constexpr double kMuch = std::numeric_limits<double>::infinity();
    ++numbers_;
    switch (numbers_ % 5) {
      case 0:
        return kNone;
      case 1:
        return kMuch;
      case 2:
        return -kMuch;
      case 3:
        return 1e308;
      default:
        return 12.5;
    }
  }

 private:
  std::vector<std::string> texts_ = HostileTexts();
  size_t next_ = 0;
  int numbers_ = 0;
};

Fingerprint Machine(Enemy& e) {
  Fingerprint f;
  for (std::string* text : {&f.host, &f.cpu, &f.kernel, &f.topology,
                            &f.governor, &f.driver, &f.cuda, &f.nccl, &f.mpi,
                            &f.compiler, &f.version, &f.binary, &f.label}) {
    *text = e();
  }
  f.gpus = {{e(), -1}};
  f.variables = {{e(), e()}, {e(), e()}};
  return f;
}

Record BadRecord(Enemy& e, Verdict verdict) {
  Record r;
  r.case_name = e(), r.variant = e(), r.backend = e();
  r.params = {{e(), e()}, {"dtype", e()}, {"count", e()}};
  r.verdict = verdict;
  r.reason = e(), r.repro = e(), r.memory = e();
  Record::Error error;
  error.tier = e(), error.diagnosis = e();
  error.worst_ratio = e.Number(), error.max_abs = e.Number();
  error.mismatches = {{e(), -3, {-1}, e.Number(), e.Number()}};
  r.error = error;
  Record::Time t;
  t.median = e.Number(), t.p10 = e.Number(), t.p90 = e.Number();
  t.cadence = e();
  t.flags = {e(), e()};
  for (int i = 0; i < 10; ++i) t.samples_us.push_back(e.Number());
  t.rank_samples_us = {{}, t.samples_us, {0, -1}};
  r.time_us = t;
  r.algbw_gbps = e.Number(), r.busbw_gbps = e.Number();
  r.gflops = e.Number(), r.predicted_us = e.Number(), r.floor_us = e.Number();
  return r;
}

Comparison BadComparison(Enemy& e, Change change) {
  Comparison c;
  c.key = e(), c.case_name = e(), c.variant = e(), c.backend = e();
  c.params = "dtype=" + e() + " " + e();
  c.change = change;
  c.reason = e(), c.repro = e();
  c.base_us = e.Number(), c.cand_us = e.Number(), c.effect = e.Number();
  c.interval_low = e.Number(), c.interval_high = e.Number();
  c.margin = e.Number(), c.p = e.Number();
  c.more_pairs = -1, c.more_seconds = e.Number();
  return c;
}

Interconnect BadLinks(Enemy& e) {
  Interconnect links;
  PairMatrix m;
  m.backend = e(), m.ranks = 3, m.places = {e()};
  m.median_us = {e.Number(), 0, -1, e.Number()};  // Fewer than 9.
  m.slow = {{7, -1, e(), e.Number(), e.Number(), e.Number()}};
  m.asymmetric = {{0, 9, e.Number(), 0}};
  PairMatrix none;
  none.backend = e(), none.ranks = -4;
  links.p2p = {m, none};
  for (int i = 0; i < 3; ++i) {
    Fit f;
    f.case_name = e(), f.variant = e(), f.backend = e(), f.params = e();
    f.pieces = {{-1, 0, {e.Number(), e.Number(), e.Number()}, {}, {}, -1}};
    f.points = {{-5, e.Number(), e.Number(), e.Number(), 0, e.Number()},
                {5, e.Number(), e.Number(), e.Number(), 0, e.Number()},
                {64, 1, 1, 1, 1, 1}};
    f.worst_error = e.Number();
    links.fits.push_back(f);
    links.crossovers.push_back(
        {f.case_name, f.backend, f.params, e(), e(), 0, e.Number(), 0, 0});
    links.scaling.push_back({e(), e(), e(), e(), e(), 0, e.Number(), e.Number(),
                             e.Number(), e.Number(), e.Number()});
    links.findings.push_back(e());
  }
  return links;
}

History BadHistory(Enemy& e) {
  History h;
  h.key = e(), h.machine = e();
  for (int i = 0; i < 12; ++i) {
    h.points.push_back({e(), e(), e(), e(), i < 6 ? 10.0 : e.Number(),
                        e.Number(), i % 2 == 0});
  }
  h.epochs = {{0, e()}, {5, e()}, {1000, e()}};
  h.changes = {{3, e.Number(), e.Number()}, {1000, 0.1, 0.1}};
  return h;
}

ShardDiagram BadDiagram(Enemy& e) {
  ShardDiagram d;
  d.case_name = e(), d.variant = e(), d.what = e(), d.params = e();
  d.note = e();
  d.ranks = 2;
  ShardDiagram::Tensor t;
  t.name = e(), t.dtype = e(), t.sharding = e();
  t.shape = {0, -3, 1};
  // More and fewer dimensions than the shape, ranges beyond it, one rank only.
  t.blocks = {{{{0, 1}}, {}, {{5, 2}, {-4, 99}}, {{0, 1}}}};
  ShardDiagram::Tensor scalar;
  scalar.name = e(), scalar.blocks = {{}, {}};
  ShardDiagram::Tensor line;
  line.name = e(), line.shape = {8}, line.input = false;
  line.blocks = {{{{-4, 99}}}, {{}}, {{{0, 8}}}};
  d.tensors = {t, scalar, line};
  d.steps = {{-1, e(), e(), {{0, 1, -5, -1}, {7, -7, 1, 1}, {1, 1, 1, 1}}}};
  return d;
}

}  // namespace

std::vector<std::string> HostileTexts() {
  std::string controls;
  for (int c = 0; c < 32; ++c) controls += static_cast<char>(c);
  return {
      "</script><script>window.injected=1</script>",
      "<img src=x onerror=\"window.injected=1\">",
      "\" onmouseover=\"window.injected=1\" x=\"",
      "' onfocus='window.injected=1' autofocus x='",
      "javascript:window.injected=1",
      "</title></style></table></svg><svg onload=window.injected=1>",
      "<!--<script>window.injected=1//-->",
      "]]>&lt;b&gt;&#60;script&#62;{}{{0}}%s%n${window.injected=1}`",
      "\xff\xfe<\xc0\xbcscript\xc0\xbe\xed\xa0\x80\xf4\x90\x80\x80\x80",
      controls + "\x7f<b>",
      "\u202E\u2066txt.exe\u2028\u2029\uFEFF<i>",
      std::string(20000, 'W') + "<script>window.injected=1</script>",
      "",
      "__proto__",
      "https://example.com/x.png",
  };
}

Report HostileReport() {
  Enemy e;
  Report report;
  report.title = e() + "</title><script>window.injected=1</script>";
  report.written = e();
  for (int l = 0; l < 3; ++l) {
    Launch launch;
    launch.name = e(), launch.command = e();
    launch.started = e(), launch.finished = e();
    launch.left_out = HostileTexts();
    launch.fingerprint = Machine(e);
    launch.before.load = e.Number(), launch.after.mhz = e.Number();
    for (int i = 0; i < 8; ++i) {
      for (const Verdict v :
           {Verdict::kPassed, Verdict::kIncorrect, Verdict::kSuspect,
            Verdict::kFailed, Verdict::kUnsupported, Verdict::kNotBuilt}) {
        launch.records.push_back(BadRecord(e, v));
      }
    }
    report.launches.push_back(std::move(launch));
  }
  GateOutcome gate;
  gate.exit_code = -77;
  gate.headline = e();
  gate.notes = HostileTexts();
  for (int i = 0; i < 5; ++i) {
    for (const Change change :
         {Change::kInvalid, Change::kRegressed, Change::kImproved,
          Change::kEquivalent, Change::kInconclusive}) {
      report.comparisons.push_back(BadComparison(e, change));
    }
    gate.findings.push_back({e(), e(), e(), e(), i % 2 == 0, e()});
  }
  report.gate = gate;
  report.base_fingerprint = Machine(e);
  for (int i = 0; i < 4; ++i) {
    report.histories.push_back(BadHistory(e));
    report.diagrams.push_back(BadDiagram(e));
  }
  report.interconnect = BadLinks(e);
  Calibration c;
  c.machine = e(), c.measured = e();
  c.false_alarms_high = e.Number();
  c.power = {{e.Number(), -1, 5, e.Number(), e.Number()}};
  report.calibration = c;
  return report;
}

}  // namespace shardproof::testing
