// main() of a case's benchmark: every instance to measure becomes a Google
// Benchmark.
//
//     all_reduce_bench [--backend=thread|mpi] [--ranks=2,4] [--seed=S]
//                      [--streaming] [--smoke] [Google Benchmark's flags]
//
// The time is the median that Measure finds: the maximum over ranks of each
// sample. Google Benchmark is given one iteration of that length, since it
// predicts iteration counts per process, and counts that differ between ranks
// hang. An instance whose answer is wrong has an error and no time; what does
// not run here has an error that begins with "unsupported".
//
// --smoke verifies and measures the smallest instances once, shortly, and says
// on stdout what is unsupported.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tools/harness/allocator.h"
#include "tools/harness/command_line.h"
#include "tools/harness/runner.h"

namespace shardproof {
namespace {

struct Settings {
  std::string backend = "thread";
  std::vector<int> ranks;
  uint64_t seed = 1;
  bool smoke = false, streaming = false;
};

// Where another process prints.
class NoReporter final : public ::benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context& /*context*/) override { return true; }
  void ReportRuns(const std::vector<Run>& /*runs*/) override {}
};

RunOptions Options(const Settings& settings) {
  RunOptions options;
  options.seed = settings.seed;
  options.backend = settings.backend;
  options.launched = settings.backend == "mpi";
  options.repro_prefix = "shardproof bench";
  options.measure = true;
  options.repeats = 1;
  if (settings.streaming) options.timing.cadence = Cadence::kStreaming;
  if (settings.smoke) {
    options.timing.warmup_seconds = 0.0005;
    options.timing.max_seconds = 0.002;
    options.timing.min_samples = options.timing.max_samples = 3;
  }
  return options;
}

void Report(const Record& r, ::benchmark::State& state) {
  for (auto _ : state) {
    if (r.verdict == Verdict::kPassed && r.time_us.has_value()) {
      state.SetIterationTime(r.time_us->median * 1e-6);
    } else {
      state.SkipWithError(
          fmt::format("{}: {}; {}", Name(r.verdict), r.reason, r.repro)
              .c_str());
      break;
    }
  }
  if (r.verdict != Verdict::kPassed || !r.time_us.has_value()) return;
  if (r.algbw_gbps.has_value()) {
    state.counters["algbw_GB/s"] = *r.algbw_gbps;
    state.counters["busbw_GB/s"] = *r.busbw_gbps;
  }
  if (r.gflops.has_value()) state.counters["GFLOP/s"] = *r.gflops;
  state.counters["samples"] = r.time_us->samples;
  std::string label;
  for (const std::string& flag : r.time_us->flags) {
    label += (label.empty() ? "" : ", ") + flag;
  }
  state.SetLabel(label);
}

std::string BenchmarkName(const CaseInfo& info, const ErasedVariant& variant,
                          const Instance& instance) {
  std::string name =
      fmt::format("{}/{}/ranks:{}", info.name, variant.name, instance.ranks);
  for (const auto& [axis, value] : instance.values) {
    name += fmt::format("/{}:{}", axis, value);
  }
  return name;
}

void RegisterOne(World& world, const Settings& settings, const CaseInfo& info,
                 const ErasedVariant& variant, const Instance& instance) {
  const std::string name = BenchmarkName(info, variant, instance);
  if (settings.smoke) {
    // What is unsupported is no error of a smoke test, and an error is all that
    // Google Benchmark can say.
    const Record r =
        RunOnWorld(world, info, variant, instance, Options(settings));
    if (r.verdict == Verdict::kUnsupported) {
      if (world.is_leader()) {
        fmt::print("{}: unsupported: {}\n", name, r.reason);
      }
      return;
    }
  }
  ::benchmark::RegisterBenchmark(
      name.c_str(),
      [&world, &settings, &info, &variant,
       instance](::benchmark::State& state) {
        Report(RunOnWorld(world, info, variant, instance, Options(settings)),
               state);
      })
      ->Iterations(1)
      ->UseManualTime()
      ->Unit(::benchmark::kMicrosecond);
}

// As many ranks as there are cores; for a case that has no instance for them
// (it may want a square, or a cube), the next larger number that it has
// instances for, or the next smaller.
StatusOr<int> RanksFor(const CaseInfo& info, Purpose purpose) {
  constexpr int kMost = 8;
  const int cores =
      std::max(2, static_cast<int>(std::thread::hardware_concurrency()));
  std::vector<int> tried;
  for (int ranks = cores; ranks <= kMost; ++ranks) tried.push_back(ranks);
  for (int ranks = cores; ranks > 0; --ranks) tried.push_back(ranks);
  for (const int ranks : tried) {
    SP_ASSIGN_OR_RETURN(const std::vector<Instance> instances,
                        info.expand(purpose, ranks, {}));
    if (!instances.empty()) return ranks;
  }
  return cores;
}

Status RegisterAll(World& world, const Settings& settings) {
  const Purpose purpose = settings.smoke ? Purpose::kSmoke : Purpose::kBench;
  for (const CaseInfo& info : Registry::Get().cases()) {
    std::vector<int> all_ranks = settings.ranks;
    if (all_ranks.empty()) {
      SP_ASSIGN_OR_RETURN(const int ranks, RanksFor(info, purpose));
      all_ranks = {ranks};
    }
    for (const int ranks : all_ranks) {
      SP_ASSIGN_OR_RETURN(const std::vector<Instance> instances,
                          info.expand(purpose, ranks, {}));
      for (const Instance& instance : instances) {
        for (const ErasedVariant& variant : info.variants) {
          if (variant.refuses(instance, nullptr).has_value()) continue;
          RegisterOne(world, settings, info, variant, instance);
        }
      }
    }
  }
  return OkStatus();
}

StatusOr<Settings> ReadSettings(int* argc, char** argv) {
  Settings s;
  SP_RETURN_IF_ERROR(TakeFlag(argc, argv, "backend", &s.backend));
  SP_RETURN_IF_ERROR(TakeFlag(argc, argv, "ranks", &s.ranks));
  SP_RETURN_IF_ERROR(TakeFlag(argc, argv, "seed", &s.seed));
  s.smoke = TakeSwitch(argc, argv, "smoke");
  s.streaming = TakeSwitch(argc, argv, "streaming");
  return s;
}

int Fail(const Status& status, int exit_code) {
  fmt::print(stderr, "{}\n", status.message());
  return exit_code;
}

int Main(int argc, char** argv) {
  StatusOr<Settings> settings = ReadSettings(&argc, argv);
  if (!settings.ok()) return Fail(settings.status(), 2);
  StatusOr<std::unique_ptr<World>> world = CreateWorld(settings->backend);
  if (!world.ok()) return Fail(world.status(), 6);
  if (settings->ranks.empty() && settings->backend != "thread") {
    settings->ranks = {(*world)->max_ranks()};
  }
  ::benchmark::Initialize(&argc, argv);
  if (::benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const Status registered = RegisterAll(**world, *settings);
  if (!registered.ok()) return Fail(registered, 2);
  std::fflush(stdout);
  NoReporter silent;
  if ((*world)->is_leader()) {
    ::benchmark::RunSpecifiedBenchmarks();
  } else {
    ::benchmark::RunSpecifiedBenchmarks(&silent);
  }
  ::benchmark::Shutdown();
  return 0;
}

}  // namespace
}  // namespace shardproof

int main(int argc, char** argv) {
  shardproof::KeepFreedMemory();
  return shardproof::Main(argc, argv);
}
