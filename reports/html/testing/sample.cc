#include "reports/html/testing/sample.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

#include "reports/key.h"

namespace shardproof::testing {
namespace {

// Numbers in [0, 1) that look like noise and are the same everywhere.
class Noise {
 public:
  explicit Noise(uint64_t seed) : state_(seed) {}
  double operator()() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<double>(state_ >> 40U) / static_cast<double>(1U << 24U);
  }

 private:
  uint64_t state_;
};

Record::Time TimeAround(double us, int ranks, Noise& noise) {
  Record::Time t;
  t.samples = 2000;
  for (int i = 0; i < kKeptSamples; ++i) {
    const double tail = noise() > 0.95 ? 1.3 : 1.0;
    t.samples_us.push_back(us * tail * (0.97 + 0.06 * noise()));
  }
  for (int r = 0; r < ranks; ++r) {
    auto& samples = t.rank_samples_us.emplace_back();
    for (int i = 0; i < kKeptRankSamples; ++i) {
      const double slow = r == ranks - 1 && i % 12 == 3 ? 1.5 : 1.0;
      samples.push_back(us * slow * (0.9 + 0.08 * noise()));
    }
    t.per_rank_median.push_back(us * 0.94);
  }
  auto sorted = t.samples_us;
  std::sort(sorted.begin(), sorted.end());
  const auto at = [&](double q) {
    return sorted[static_cast<size_t>(q *
                                      static_cast<double>(sorted.size() - 1))];
  };
  t.median = at(0.5), t.p10 = at(0.1), t.p90 = at(0.9);
  t.min = sorted.front(), t.max = sorted.back();
  t.interval_low = at(0.45), t.interval_high = at(0.55);
  return t;
}

Record AllReduce(const std::string& variant, const std::string& dtype,
                 int64_t count, int ranks, double slowdown, Noise& noise) {
  Record r;
  r.case_name = "collectives/all_reduce";
  r.variant = variant;
  r.backend = "thread";
  r.ranks = ranks;
  r.params = {
      {"dtype", dtype}, {"count", fmt::format("{}", count)}, {"op", "sum"}};
  r.verdict = Verdict::kPassed;
  r.native = variant == "native";
  const double bytes = static_cast<double>(count) * (dtype == "bf16" ? 2 : 4);
  const bool ring = variant != "direct";
  const double us = slowdown * ((ring ? 2.4 * (ranks - 1) : 1.8) +
                                bytes / (ring ? 9e3 : 4.5e3));
  r.time_us = TimeAround(us, ranks, noise);
  r.algbw_gbps = bytes / r.time_us->median / 1e3;
  r.busbw_gbps = *r.algbw_gbps * 2 * (ranks - 1) / ranks;
  r.predicted_us = us * 1.04;
  r.floor_us = 0.4 + bytes / 1.4e4;
  r.error = Record::Error{.tier = "bounded",
                          .worst_ratio = 0.1 + 0.4 * noise(),
                          .max_abs = 1e-6,
                          .max_ulp = 1.5,
                          .compared = count};
  r.traffic = Record::Traffic{.bytes = count * 8, .messages = 6};
  return r;
}

std::vector<Record> Sweep(double slowdown, Noise& noise) {
  std::vector<Record> records;
  for (const char* variant : {"direct", "ring", "native"}) {
    for (const char* dtype : {"f32", "bf16"}) {
      for (const int ranks : {2, 4, 8}) {
        for (const int64_t count : {1024, 16384, 262144, 4194304}) {
          const bool hit =
              std::string(dtype) == "bf16" && ranks == 8 && variant[0] == 'r';
          records.push_back(AllReduce(variant, dtype, count, ranks,
                                      hit ? slowdown : 1.0, noise));
        }
      }
    }
  }
  return records;
}

Fingerprint Machine() {
  Fingerprint f;
  f.host = "node-a";
  f.cpu = "Example Xeon 8480, 56 cores";
  f.kernel = "Linux 6.1.0";
  f.cores = 56;
  f.memory_bytes = int64_t{512} << 30;
  f.topology = "9b1c77aa03f1e2d4";
  f.governor = "performance";
  f.mpi = "Open MPI 4.1.4";
  f.compiler = "gcc 12.2.0";
  f.version = "0.9";
  f.binary = std::string(64, 'a');
  f.label = "4f2c1d0";
  f.variables = {{"OMPI_MCA_btl", "self,vader,tcp"}};
  return f;
}

Comparison Compare(const Record& base, const Record& cand, Noise& noise) {
  Comparison c;
  c.key = KeyOf(cand);
  c.case_name = cand.case_name;
  c.variant = cand.variant;
  c.backend = cand.backend;
  c.params = ParamsText(cand);
  c.ranks = cand.ranks;
  c.base_us = base.time_us->median;
  c.cand_us = cand.time_us->median;
  c.effect = c.cand_us / c.base_us - 1;
  const double width = 0.006 + 0.02 * noise();
  c.interval_low = c.effect - width;
  c.interval_high = c.effect + width;
  c.hodges_lehmann = c.effect + 0.001;
  c.margin = 0.02;
  c.pairs = 10;
  c.screened_pairs = 5;
  c.suspect = c.effect > 0.02;
  c.p = c.suspect ? 0.0004 : 0.4;
  c.sign_flip_p = c.suspect ? 0.00098 : 0.42;
  c.adjusted_p = c.suspect ? 0.003 : 0.6;
  c.repro = fmt::format(
      "shardproof ab --base old --cand new --filter '^{}$' "
      "--variant {} --ranks {}",
      c.case_name, c.variant, c.ranks);
  if (c.suspect) {
    c.change = Change::kRegressed;
    c.reason = "slower in all of 10 pairs, and beyond the margin";
  } else if (width > 0.023) {
    c.change = Change::kInconclusive;
    c.reason = "the interval is wider than the margin";
    c.more_pairs = 12;
    c.more_seconds = 340;
  } else {
    c.change = Change::kEquivalent;
    c.reason = "the 90 percent interval is within 5 percent";
  }
  return c;
}

Interconnect Links(Noise& noise) {
  Interconnect links;
  PairMatrix m;
  m.backend = "mpi";
  m.ranks = 8;
  for (int r = 0; r < 8; ++r) {
    m.places.push_back(fmt::format("node{} core {}", r / 4, r % 4));
  }
  for (int from = 0; from < 8; ++from) {
    for (int to = 0; to < 8; ++to) {
      double us = from / 4 == to / 4 ? 0.42 : 14.0;
      us *= 0.96 + 0.08 * noise();
      if (from == 1 && to == 6) us = 61;
      m.median_us.push_back(from == to ? std::nan("") : us);
    }
  }
  m.slow.push_back({1, 6, "between nodes", 18.4, 61, 14.1});
  m.asymmetric.push_back({1, 6, 61, 14.2});
  links.p2p.push_back(m);
  m.bytes = 1 << 20;
  for (double& us : m.median_us) us = us * 7 + 80;
  m.slow.clear(), m.asymmetric.clear();
  links.p2p.push_back(m);
  for (const char* variant : {"direct", "ring"}) {
    const bool ring = variant[0] == 'r';
    Fit fit;
    fit.case_name = "collectives/all_reduce";
    fit.variant = variant;
    fit.backend = "mpi";
    fit.params = "dtype=f32 op=sum";
    fit.ranks = 8;
    const double alpha = ring ? 21 : 4, beta = ring ? 118 : 260;
    fit.pieces.push_back({64,
                          65536,
                          {alpha, alpha * 0.96, alpha * 1.04},
                          {beta * 1.1, beta, beta * 1.2},
                          {},
                          6});
    fit.pieces.push_back({131072,
                          67108864,
                          {alpha, alpha * 0.9, alpha * 1.1},
                          {beta, beta * 0.98, beta * 1.02},
                          Estimate{30, 26, 34},
                          10});
    for (int64_t bytes = 64; bytes <= (int64_t{64} << 20); bytes *= 4) {
      const double mib = static_cast<double>(bytes) / (1 << 20);
      const double fitted = alpha + beta * mib;
      const double measured = fitted * (0.97 + 0.06 * noise());
      fit.points.push_back({bytes, measured, measured * 0.97, measured * 1.03,
                            fitted, fitted * 1.06});
    }
    fit.worst_error = 0.031, fit.median_error = 0.012;
    fit.worst_prediction_error = 0.11, fit.median_prediction_error = 0.06;
    fit.half_bandwidth_bytes = alpha / beta * (1 << 20);
    fit.asymptotic_gbps = (1 << 20) / beta / 1e3;
    links.fits.push_back(fit);
  }
  links.crossovers.push_back({"collectives/all_reduce", "mpi",
                              "dtype=f32 op=sum", "direct", "ring", 8, 125000,
                              98000, 160000});
  for (const char* kind : {"strong", "weak", "pairs"}) {
    for (const int ranks : {2, 4, 8, 16}) {
      const double ideal = kind[0] == 's' ? 800.0 / ranks : 400;
      const double us = ideal * (1 + 0.04 * ranks);
      links.scaling.push_back({kind, "collectives/all_reduce", "ring", "mpi",
                               "dtype=f32 count=4194304", ranks, us, us * 0.98,
                               us * 1.02, ideal, ideal / us});
    }
  }
  links.findings = {
      "The link 1 -> 6 is 4.3 times slower than its class, in one direction "
      "only.",
      "From 122 KiB on, ring is faster than direct on 8 ranks."};
  return links;
}

History Past(const std::string& key, double jump, Noise& noise) {
  History h;
  h.key = key;
  h.machine = "1234567890abcdef";
  for (int i = 0; i < 48; ++i) {
    double us = 118 * (0.985 + 0.03 * noise());
    if (i >= 20) us *= 0.93;
    if (i >= 36) us *= jump;
    h.points.push_back({fmt::format("2026-10-{:02}T03:00:00Z", i % 30 + 1),
                        fmt::format("{:07x}", 0x4f2c100 + 17 * i), "aa", "e1",
                        us, 0.2 + (i >= 36 ? 0.25 : 0.0) + 0.02 * noise(),
                        i != 12});
  }
  h.epochs.push_back({20, "Open MPI 4.1.4 -> 4.1.5"});
  if (jump != 1) h.changes.push_back({36, jump - 1, 0.001});
  return h;
}

ShardDiagram Linear() {
  ShardDiagram d;
  d.case_name = "layers/column_linear";
  d.variant = "gather";
  d.what = "Column-parallel linear layer: y = x W, W cut by columns";
  d.ranks = 4;
  d.params = "dtype=f32 tokens=8 hidden=16 features=32";
  ShardDiagram::Tensor x{
      .name = "x", .dtype = "f32", .sharding = "replicated", .shape = {8, 16}};
  ShardDiagram::Tensor w{
      .name = "w", .dtype = "f32", .sharding = "shard(1)", .shape = {16, 32}};
  ShardDiagram::Tensor y{.name = "y",
                         .dtype = "f32",
                         .sharding = "zigzag",
                         .input = false,
                         .shape = {8, 32}};
  for (int64_t r = 0; r < 4; ++r) {
    x.blocks.push_back({{{0, 8}}, {{0, 16}}});
    w.blocks.push_back({{{0, 16}}, {{8 * r, 8 * r + 8}}});
    y.blocks.push_back(
        {{{0, 8}}, {{4 * r, 4 * r + 4}, {28 - 4 * r, 32 - 4 * r}}});
  }
  d.tensors = {x, w, y};
  for (int s = 1; s <= 3; ++s) {
    ShardDiagram::Step step{
        .number = s, .operation = "all_gather/ring", .kind = "message"};
    for (int r = 0; r < 4; ++r)
      step.transfers.push_back({r, (r + 1) % 4, 256, 1});
    d.steps.push_back(step);
  }
  return d;
}

}  // namespace

Report RichReport() {
  Noise noise(7);
  Report report;
  report.title = "Shardproof: nightly";
  report.written = "2026-11-22T11:00:00Z";
  for (int i = 0; i < 3; ++i) {
    Launch launch;
    launch.name = fmt::format("cand-{}.json", i + 1);
    launch.command = "shardproof bench --json " + launch.name;
    launch.started = fmt::format("2026-11-22T10:{:02}:00Z", 10 * i);
    launch.finished = fmt::format("2026-11-22T10:{:02}:40Z", 10 * i);
    launch.complete = true;
    launch.fingerprint = Machine();
    launch.before.load = 0.31, launch.after.load = 1.9;
    launch.before.mhz = launch.after.mhz = 2900;
    launch.records = Sweep(1.07, noise);
    report.launches.push_back(std::move(launch));
  }
  Launch& last = report.launches.back();
  last.left_out = {"attention/ring: 12 instances, the time budget was spent"};
  Record wrong = AllReduce("ring", "bf16", 1031, 3, 1, noise);
  wrong.verdict = Verdict::kIncorrect;
  wrong.reason = "y is wrong on ranks 1 and 2";
  wrong.repro =
      "shardproof verify --filter all_reduce --variant ring --ranks 3 "
      "--axis dtype=bf16,count=1031";
  wrong.error->worst_ratio = 41;
  wrong.error->diagnosis = "rank 2 counted twice in chunks 1 to 2";
  wrong.error->mismatches = {{"y", 1, {3}, 2.5, 4.25}};
  last.records.push_back(wrong);
  Record unsupported = AllReduce("rabenseifner", "f32", 1024, 3, 1, noise);
  unsupported.verdict = Verdict::kUnsupported;
  unsupported.reason = "needs a power of two of ranks";
  unsupported.time_us.reset();
  unsupported.error.reset();
  last.records.push_back(unsupported);
  Record gpu = unsupported;
  gpu.backend = "cuda";
  gpu.verdict = Verdict::kNotBuilt;
  gpu.reason = "built without CUDA";
  last.records.push_back(gpu);

  const std::vector<Record> base = Sweep(1.0, noise);
  for (size_t i = 0; i < base.size(); ++i) {
    report.comparisons.push_back(
        Compare(base[i], report.launches[0].records[i], noise));
  }
  report.base_fingerprint = Machine();
  report.base_fingerprint->label = "31aa0be";
  report.base_fingerprint->mpi = "Open MPI 4.1.5";
  GateOutcome gate;
  gate.exit_code = 1;
  gate.headline = "FAILED: 1 wrong result, 4 slow-downs";
  gate.notes = {"Policy: gate.toml, version 1; margin 2 percent."};
  gate.findings.push_back(
      {KeyOf(wrong), "incorrect", wrong.reason, wrong.repro});
  for (const Comparison& c : report.comparisons) {
    if (c.change != Change::kRegressed) continue;
    gate.findings.push_back({c.key, "regressed", c.reason, c.repro});
  }
  gate.findings.back().quarantined = true;
  gate.findings.back().quarantine =
      "ada: known since the new kernel, until "
      "2026-12-01";
  report.gate = gate;
  report.interconnect = Links(noise);
  report.histories = {
      Past(
          "collectives/all_reduce ring thread 8 dtype=bf16 count=262144 op=sum",
          1.07, noise),
      Past("layers/mlp gather thread 4 dtype=f32 tokens=512", 1, noise)};
  Calibration calibration;
  calibration.machine = "1234567890abcdef";
  calibration.measured = "2026-11-20T02:00:00Z";
  calibration.null_verdicts = 312;
  calibration.false_alarms = 1;
  calibration.false_alarms_high = 0.0177;
  calibration.power = {{0.01, 50, 4, 0.02, 0.011},
                       {0.05, 50, 49, 0.894, 0.051},
                       {0.10, 50, 50, 0.929, 0.101}};
  report.calibration = calibration;
  report.diagrams = {Linear()};
  return report;
}

Report LargeReport(int records) {
  Noise noise(11);
  Report report;
  report.written = "2026-11-22T11:00:00Z";
  Launch launch;
  launch.name = "large.json";
  launch.complete = true;
  launch.fingerprint = Machine();
  for (int i = 0; i < records; ++i) {
    Record r = AllReduce(i % 2 == 0 ? "ring" : "direct",
                         i % 3 == 0 ? "bf16" : "f32", 1 + i, 8, 1, noise);
    r.case_name = fmt::format("collectives/case_{}", i / 100);
    launch.records.push_back(std::move(r));
  }
  report.launches.push_back(std::move(launch));
  return report;
}

}  // namespace shardproof::testing
