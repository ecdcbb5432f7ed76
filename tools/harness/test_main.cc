// main() of a case's conformance test: every registered case, variant and
// number of ranks becomes a GoogleTest.
//
//     all_reduce_test [--backend=thread|mpi] [--ranks=1,2,3] [--seed=S]
//                     [--timeout=SECONDS] [--every=N] [GoogleTest's flags]
//
//     collectives/all_reduce.ring/ranks4            every instance must pass
//     collectives/all_reduce.ring/ranks4/ordinary   memory that peers cannot
//                                                   address (mpi)
//     collectives/all_reduce.mutant/short           some instance must not
//
// --every=N, or SHARDPROOF_TEST_EVERY=N in the environment, runs every Nth
// instance of each variant: for builds that are many times slower.
//
// With --backend=mpi all processes of the launcher run the same tests, each
// over all ranks; only rank 0 prints and writes files. Bazel's shards divide
// the tests between programs, never the ranks of one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "tools/harness/allocator.h"
#include "tools/harness/command_line.h"
#include "tools/harness/deadline.h"
#include "tools/harness/runner.h"

namespace shardproof {
namespace {

constexpr int kWatchdogExit = 124;
constexpr size_t kReported = 5;  // Failures in full, per test.

struct Settings {
  std::string backend = "thread";
  std::vector<int> ranks;
  uint64_t seed = 1;
  double timeout = 120;  // Seconds per test.
  uint64_t every = 1;
};

// Aborts what runs when its time is over, and ends the process when that does
// not help.
class Watchdog {
 public:
  Watchdog(World& world, double seconds)
      : soft_(seconds,
              [&world, seconds] {
                std::string where;
                for (const std::string& s : world.Whereabouts()) {
                  where += "; " + s;
                }
                world.Abort(fmt::format("no end after {} s{}", seconds, where));
              }),
        hard_(seconds + 10, [&world] {
          fmt::print(stderr, "the ranks cannot be stopped\n");
          world.Terminate(kWatchdogExit);
        }) {}

 private:
  Deadline soft_, hard_;
};

RunOptions Options(const Settings& settings, bool ordinary) {
  RunOptions options;
  options.seed = settings.seed;
  options.backend = settings.backend;
  options.launched = settings.backend == "mpi";
  options.ordinary_memory = ordinary;
  return options;
}

// Every instance of one variant on `ranks` ranks.
class Conformance final : public ::testing::Test {
 public:
  Conformance(World& world, const Settings& settings, const CaseInfo& info,
              const ErasedVariant& variant, int ranks, bool ordinary)
      : world_(world),
        settings_(settings),
        info_(info),
        variant_(variant),
        ranks_(ranks),
        ordinary_(ordinary) {}

  void TestBody() override {
    const Watchdog watchdog(world_, settings_.timeout);
    const auto instances = info_.expand(Purpose::kVerify, ranks_, {});
    ASSERT_TRUE(instances.ok()) << instances.status().ToString();
    size_t passed = 0, failed = 0;
    double worst = 0;  // e / likely bound, of those that passed.
    std::string refused = fmt::format("no instance for {} ranks", ranks_);
    for (size_t i = 0; i < instances->size(); i += settings_.every) {
      const Instance& instance = (*instances)[i];
      ASSERT_TRUE(world_.healthy()) << "an earlier failure ended the world";
      const Record r = RunOnWorld(world_, info_, variant_, instance,
                                  Options(settings_, ordinary_));
      switch (r.verdict) {
        case Verdict::kPassed:
          ++passed;
          if (r.error) worst = std::max(worst, r.error->worst_ratio);
          break;
        case Verdict::kUnsupported:
        case Verdict::kNotBuilt:
          refused = r.reason;
          break;
        default:
          if (++failed <= kReported) {
            ADD_FAILURE() << Name(r.verdict) << ": " << ParamsText(r) << ": "
                          << r.reason << "\n  " << r.repro;
          }
      }
    }
    if (failed > kReported) {
      ADD_FAILURE() << "... and " << failed - kReported << " more instances";
    }
    if (failed == 0 && passed == 0) GTEST_SKIP() << refused;
    RecordProperty("instances", static_cast<int>(passed + failed));
    RecordProperty("worst_ratio", fmt::format("{:.3g}", worst));
  }

 private:
  World& world_;
  const Settings& settings_;
  const CaseInfo& info_;
  const ErasedVariant& variant_;
  int ranks_;
  bool ordinary_;
};

// A planted bug must be found on some instance where it applies.
class Kill final : public ::testing::Test {
 public:
  Kill(World& world, const Settings& settings, const CaseInfo& info,
       const ErasedVariant& mutant)
      : world_(world), settings_(settings), info_(info), mutant_(mutant) {}

  void TestBody() override {
    const Watchdog watchdog(world_, settings_.timeout);
    size_t tried = 0;
    for (const int ranks : settings_.ranks) {
      const auto instances = info_.expand(Purpose::kVerify, ranks, {});
      ASSERT_TRUE(instances.ok()) << instances.status().ToString();
      for (const Instance& instance : *instances) {
        if (!mutant_.applies(instance)) continue;
        RunOptions options = Options(settings_, false);
        options.repeats = 1;
        const Record r = RunOnWorld(world_, info_, mutant_, instance, options);
        if (Kills(r)) return SUCCEED();
        tried += r.verdict == Verdict::kPassed ? 1 : 0;
      }
    }
    FAIL() << "survived " << tried << " instances where it applies";
  }

 private:
  World& world_;
  const Settings& settings_;
  const CaseInfo& info_;
  const ErasedVariant& mutant_;
};

template <class Make>
void Register(const std::string& suite, const std::string& name, Make make) {
  ::testing::RegisterTest(suite.c_str(), name.c_str(), nullptr, nullptr,
                          __FILE__, __LINE__,
                          [make]() -> ::testing::Test* { return make(); });
}

void RegisterAll(World& world, const Settings& settings) {
  const bool threads = settings.backend == "thread";
  for (const CaseInfo& info : Registry::Get().cases()) {
    for (const ErasedVariant& v : info.variants) {
      for (const int ranks : settings.ranks) {
        for (const bool ordinary : {false, true}) {
          // Threads address one another's memory wherever it comes from.
          if (ordinary && threads) continue;
          Register(info.name,
                   fmt::format("{}/ranks{}{}", v.name, ranks,
                               ordinary ? "/ordinary" : ""),
                   [&world, &settings, &info, &v, ranks, ordinary] {
                     return std::make_unique<Conformance>(world, settings, info,
                                                          v, ranks, ordinary)
                         .release();
                   });
        }
      }
    }
    if (!threads) continue;
    for (const ErasedVariant& m : info.mutants) {
      Register(info.name, "mutant/" + m.name, [&world, &settings, &info, &m] {
        return std::make_unique<Kill>(world, settings, info, m).release();
      });
    }
  }
}

StatusOr<Settings> ReadSettings(int* argc, char** argv) {
  Settings s;
  if (const char* every = std::getenv("SHARDPROOF_TEST_EVERY")) {
    s.every = std::strtoull(every, nullptr, 10);
  }
  SP_RETURN_IF_ERROR(TakeFlag(argc, argv, "backend", &s.backend));
  SP_RETURN_IF_ERROR(TakeFlag(argc, argv, "ranks", &s.ranks));
  SP_RETURN_IF_ERROR(TakeFlag(argc, argv, "seed", &s.seed));
  SP_RETURN_IF_ERROR(TakeFlag(argc, argv, "timeout", &s.timeout));
  SP_RETURN_IF_ERROR(TakeFlag(argc, argv, "every", &s.every));
  if (s.every < 1) {
    return InvalidArgument("--every {}: at least 1 is meant", s.every);
  }
  return s;
}

// Prints and writes nothing where another process does.
void Quiet() {
  for (const char* name : {"XML_OUTPUT_FILE", "GTEST_OUTPUT"}) unsetenv(name);
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  const std::unique_ptr<::testing::TestEventListener> gone(
      listeners.Release(listeners.default_result_printer()));
}

int Main(int argc, char** argv) {
  StatusOr<Settings> settings = ReadSettings(&argc, argv);
  if (!settings.ok()) {
    fmt::print(stderr, "{}\n", settings.status().message());
    return 2;
  }
  StatusOr<std::unique_ptr<World>> world = CreateWorld(settings->backend);
  if (!world.ok()) {
    fmt::print(stderr, "{}\n", world.status().message());
    return 6;
  }
  if (settings->ranks.empty()) {
    if (settings->backend == "thread") {
      settings->ranks = {1, 2, 3, 4, 5, 7, 8};
    } else {
      settings->ranks = {(*world)->max_ranks()};
    }
  }
  const bool leader = (*world)->is_leader();
  if (!leader) Quiet();
  ::testing::InitGoogleTest(&argc, argv);
  if (!leader) Quiet();
  if (argc > 1) {
    fmt::print(stderr, "unknown argument {}\n", argv[1]);
    return 2;
  }
  if (Registry::Get().cases().empty()) {
    fmt::print(stderr, "no case is linked into this test\n");
    return 2;
  }
  RegisterAll(**world, *settings);
  const int result = RUN_ALL_TESTS();
  // A process that ends with an error has the launcher end the others, who may
  // not have written their reports yet.
  if ((*world)->healthy()) {
    static_cast<void>(
        (*world)->Run(settings->ranks.front(),
                      [](const Communicator& comm) { return comm.Barrier(); }));
  }
  return result;
}

}  // namespace
}  // namespace shardproof

int main(int argc, char** argv) {
  shardproof::KeepFreedMemory();
  return shardproof::Main(argc, argv);
}
