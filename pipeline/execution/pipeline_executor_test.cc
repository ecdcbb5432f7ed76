// Schedules run, with stages whose results are known to the bit; what they hold;
// and what is made of bad input.
#include "pipeline/execution/pipeline_executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "layers/testing/allocations.h"
#include "pipeline/registry.h"
#include "pipeline/testing/random_schedule.h"
#include "pipeline/testing/toy_run.h"
#include "pipeline/testing/toy_stage.h"
#include "pipeline/validator.h"

namespace shardproof {
namespace {

// Small messages leave with their send, large ones are read from where they are.
constexpr int64_t kSmall = 7, kLarge = 1031;

// Two micro-batches for each rank, where that is enough; more, until it is.
StatusOr<Schedule> AnyOf(const ScheduleInfo& info, int ranks, int chunks) {
  StatusOr<Schedule> schedule = Unsupported("there is none");
  for (int m = 2 * ranks; m <= 4 * ranks && !schedule.ok(); ++m) {
    schedule = BuildSchedule(info.name, {ranks, m, chunks});
  }
  return schedule;
}

template <class F>
void EverySchedule(const F& f) {
  for (const ScheduleInfo& info : Schedules()) {
    for (const int ranks : {1, 2, 3, 4, 6}) {
      for (int chunks = 1; chunks <= (info.takes_chunks ? 3 : 1); ++chunks) {
        const auto schedule = AnyOf(info, ranks, chunks);
        if (!schedule.ok()) continue;
        SCOPED_TRACE(info.name + " " + std::to_string(ranks) + " ranks " +
                     std::to_string(chunks) + " chunks");
        f(*schedule);
        if (::testing::Test::HasFailure()) return;
      }
    }
  }
}

TEST(PipelineExecutor, MakesWhatTheModelMakes) {
  EverySchedule([](const Schedule& s) {
    for (const int64_t elements : {kSmall, kLarge, int64_t{0}}) {
      const Status ran = RunToy(s, ToyElements(s, elements));
      EXPECT_TRUE(ran.ok()) << ran.ToString();
    }
  });
}

// --- What is held ------------------------------------------------------------

// The most x and dy that a rank holds, all of one size; no x at a first stage, no
// dy at a last one.
double PeakOf(const Schedule& s, int rank, double bytes) {
  double held = 0, peak = 0;
  std::map<std::pair<int, int>, double> of;  // Of a micro-batch in a chunk.
  for (const Action& a : s.actions[static_cast<size_t>(rank)]) {
    const int stage = s.StageAt(a.micro_batch, {rank, a.chunk});
    double& now = of[{a.micro_batch, a.chunk}];
    held -= now;
    if (a.kind == ActionKind::kForward) now = stage > 0 ? bytes : 0;
    if (a.kind == ActionKind::kInput) now += stage + 1 < s.stages() ? bytes : 0;
    if (a.kind == ActionKind::kBackward || a.kind == ActionKind::kWeight) {
      now = 0;
    }
    held += now;
    peak = std::max(peak, held);
  }
  return peak;
}

// An x from F, and a dy from I, until their last action, but there is no x at the
// first stage and no dy at the last: what the simulator says with these sizes,
// where all stages of a rank have the same.
TEST(PipelineExecutor, KeepsWhatTheSimulatorSays) {
  EverySchedule([](const Schedule& s) {
    if (s.stages() > s.ranks()) return;
    const double bytes = 8 * kSmall;
    const std::vector<int64_t> elements(static_cast<size_t>(s.micro_batches),
                                        kSmall);
    const Status ran =
        RunUnderDeadline(s.ranks(), [&](const Communicator& comm) -> Status {
          SP_ASSIGN_OR_RETURN(
              PipelineExecutor executor,
              PipelineExecutor::Create(comm, {s, ToyBytes(elements)}));
          const ToyChunks chunks = MakeToyChunks(s, comm.rank(), elements);
          SP_RETURN_IF_ERROR(executor.Step(chunks.chunks));
          const double x = comm.rank() == 0 ? 0 : bytes;
          const double dy = comm.rank() == s.ranks() - 1 ? 0 : bytes;
          SP_ASSIGN_OR_RETURN(
              const Simulation simulated,
              Simulate(s, {.held_to_input = x, .held_to_weight = x + dy}));
          const PipelineMemory& memory = executor.memory();
          const bool two = s.pipelines.size() > 1;
          const double peak =
              two ? PeakOf(s, comm.rank(), bytes)
                  : simulated.peak[static_cast<size_t>(comm.rank())];
          if (static_cast<double>(memory.kept_peak) != peak ||
              memory.kept != 0) {
            return Internal("{} bytes were kept, {} are; {} was expected",
                            memory.kept_peak, memory.kept, peak);
          }
          // x alone: the slots of the chunk.
          if (!two && x > 0 &&
              executor.plan().slots_of_chunks[0] * bytes >
                  static_cast<double>(memory.kept_peak)) {
            return Internal("{} bytes in {} slots", memory.kept_peak,
                            executor.slots(0));
          }
          return OkStatus();
        });
    EXPECT_TRUE(ran.ok()) << ran.ToString();
  });
}

TEST(PipelineExecutor, AsksForNothingInAStep) {
  // Alone, nothing at all: two chunks that hand over to one another.
  const Schedule alone = *BuildSchedule("zb_v", {1, 4, 1});
  EXPECT_TRUE(RunThreads(1, [&](const Communicator& comm) -> Status {
                const std::vector<int64_t> elements = ToyElements(alone, 5);
                SP_ASSIGN_OR_RETURN(PipelineExecutor executor,
                                    PipelineExecutor::Create(
                                        comm, {alone, ToyBytes(elements)}));
                const ToyChunks chunks = MakeToyChunks(alone, 0, elements);
                SP_RETURN_IF_ERROR(executor.Step(chunks.chunks));
                for (const auto& stage : chunks.stages) stage->Clear();
                const int64_t before = Allocations();
                SP_RETURN_IF_ERROR(executor.Step(chunks.chunks));
                EXPECT_EQ(Allocations(), before);
                return OkStatus();
              }).ok());
  // On several ranks, nothing of the size of a message: the thread backend makes
  // a small note of each that is under way, the first time.
  const Schedule several = *BuildSchedule("zb_h1", {3, 6, 1});
  EXPECT_TRUE(RunThreads(3, [&](const Communicator& comm) -> Status {
                const std::vector<int64_t> elements(6, kLarge);
                SP_ASSIGN_OR_RETURN(PipelineExecutor executor,
                                    PipelineExecutor::Create(
                                        comm, {several, ToyBytes(elements)}));
                const ToyChunks chunks =
                    MakeToyChunks(several, comm.rank(), elements);
                SP_RETURN_IF_ERROR(executor.Step(chunks.chunks));
                for (const auto& stage : chunks.stages) stage->Clear();
                SP_RETURN_IF_ERROR(comm.Barrier());
                const int64_t before = LargeAllocations();
                SP_RETURN_IF_ERROR(executor.Step(chunks.chunks));
                EXPECT_EQ(LargeAllocations(), before);
                return OkStatus();
              }).ok());
}

TEST(PipelineExecutor, TellsWhenItsActionsWere) {
  const Schedule s = *BuildSchedule("one_f_one_b", {2, 4, 1});
  EXPECT_TRUE(RunThreads(2, [&](const Communicator& comm) -> Status {
                const std::vector<int64_t> elements = ToyElements(s, 5);
                SP_ASSIGN_OR_RETURN(
                    PipelineExecutor executor,
                    PipelineExecutor::Create(comm, {s, ToyBytes(elements)}));
                const ToyChunks chunks =
                    MakeToyChunks(s, comm.rank(), elements);
                SP_RETURN_IF_ERROR(executor.Step(chunks.chunks));
                EXPECT_EQ(executor.times().size(), 8U);
                double now = 0;
                for (const TimeSpan& t : executor.times()) {
                  EXPECT_GE(t.start, now);
                  EXPECT_GT(t.end, t.start);
                  now = t.end;
                }
                return OkStatus();
              }).ok());
}

// --- Two pipelines -----------------------------------------------------------

TEST(PipelineExecutor, RunsTwoPipelinesOverTheSameRanks) {
  Schedule s;
  s.name = "both ways";
  s.micro_batches = 4;
  s.pipelines = {{{0, 0}, {1, 0}, {2, 0}}, {{2, 1}, {1, 1}, {0, 1}}};
  s.pipeline_of = {0, 1, 1, 0};
  s.actions.resize(3);
  for (std::vector<Action>& actions : s.actions) {
    for (const int m : {0, 1, 2, 3}) {
      actions.push_back({ActionKind::kForward, m, s.PipelineOf(m)});
    }
    for (const int m : {0, 1, 2, 3}) {
      actions.push_back({ActionKind::kInput, m, s.PipelineOf(m)});
    }
    for (const int m : {3, 2, 1, 0}) {
      actions.push_back({ActionKind::kWeight, m, s.PipelineOf(m)});
    }
  }
  for (const int64_t elements : {kSmall, kLarge}) {
    const Status ran = RunToy(s, ToyElements(s, elements));
    EXPECT_TRUE(ran.ok()) << ran.ToString();
  }
}

// --- Errors ------------------------------------------------------------------

// The errors of all ranks.
std::vector<Status> Errors(
    int ranks, const std::function<Status(const Communicator&)>& f) {
  std::vector<Status> errors(static_cast<size_t>(ranks));
  static_cast<void>(RunUnderDeadline(ranks, [&](const Communicator& comm) {
    Status& mine = errors[static_cast<size_t>(comm.rank())];
    mine = f(comm);
    return OkStatus();
  }));
  return errors;
}

// What all ranks say of what they cannot be made for.
std::string Refusal(
    int ranks, const std::function<PipelineExecutorConfig(int rank)>& config) {
  const std::vector<Status> errors =
      Errors(ranks, [&](const Communicator& comm) {
        return PipelineExecutor::Create(comm, config(comm.rank())).status();
      });
  for (const Status& error : errors) {
    EXPECT_EQ(error.ToString(), errors[0].ToString());
  }
  return errors[0].ToString();
}

TEST(PipelineExecutor, RefusesOnAllRanksAlike) {
  const Schedule right = *BuildSchedule("one_f_one_b", {2, 3, 1});
  const std::vector<int64_t> bytes(3, 8);
  EXPECT_EQ(Refusal(2,
                    [&](int) {
                      Schedule s = *BuildSchedule("naive", {2, 2, 1});
                      std::swap(s.actions[1][1], s.actions[1][2]);
                      return PipelineExecutorConfig{s, {8, 8}};
                    }),
            "invalid argument: schedule naive: rank 0 receives B0 from rank 1, "
            "which receives F1 from rank 0: a deadlock (buffered messages)");
  EXPECT_EQ(Refusal(3,
                    [&](int) {
                      return PipelineExecutorConfig{right, bytes};
                    }),
            "invalid argument: schedule one_f_one_b is for 2 ranks; there are "
            "3");
  EXPECT_EQ(Refusal(2,
                    [&](int) {
                      return PipelineExecutorConfig{right, {8, 8}};
                    }),
            "invalid argument: schedule one_f_one_b has 3 micro-batches, and 2 "
            "have a size");
  EXPECT_EQ(Refusal(2,
                    [&](int) {
                      return PipelineExecutorConfig{right, {8, -8, 8}};
                    }),
            "invalid argument: messages of -8 bytes");
  // Not the same on all ranks.
  EXPECT_EQ(Refusal(2,
                    [&](int rank) {
                      Schedule s = right;
                      if (rank == 1) {
                        std::swap(s.actions[0][0], s.actions[0][1]);
                      }
                      return PipelineExecutorConfig{s, bytes};
                    }),
            "invalid argument: rank 1 runs another pipeline than rank 0: \"f 8 "
            "8 8 bytes; rank 0: F1.0 F0.0 B0.0 F2.0 B1.0 \", not \"f 8 8 8 "
            "bytes; rank 0: F0.0 F1.0 B0.0 F2.0 B1.0 \"");
  const std::string sizes = Refusal(2, [&](int rank) {
    return PipelineExecutorConfig{right, {8, 8, rank == 0 ? 8 : 16}};
  });
  EXPECT_EQ(sizes.find("invalid argument: rank 1 runs another pipeline"), 0U)
      << sizes;
  // A rank without a layer still has all its actions to do: it passes on.
  EXPECT_EQ(Refusal(2,
                    [&](int) {
                      Schedule s = right;
                      s.actions[1].clear();
                      return PipelineExecutorConfig{s, bytes};
                    }),
            "invalid argument: schedule one_f_one_b: rank 1 never does F0, of "
            "stage 1");
  Schedule chunky = right;
  chunky.pipelines[0][1].chunk = 1 << 30;
  for (Action& a : chunky.actions[1]) a.chunk = 1 << 30;
  EXPECT_EQ(Refusal(2,
                    [&](int) {
                      return PipelineExecutorConfig{chunky, bytes};
                    }),
            "invalid argument: schedule one_f_one_b has 2 chunks; rank 1 has "
            "no 1073741824");
  const Schedule many =
      *BuildSchedule("gpipe", {2, kMostPipelineTags / 4 + 1, 1});
  EXPECT_EQ(
      Refusal(2,
              [&](int) {
                return PipelineExecutorConfig{
                    many, std::vector<int64_t>(
                              static_cast<size_t>(many.micro_batches))};
              }),
      "unsupported: schedule gpipe of 2 stages and 7169 micro-batches: of "
      "each direction there can be 14336 messages");
}

// A toy stage that fails once.
class Failing : public ToyStage {
 public:
  Failing(const ToyModel& model, int slots, ActionKind kind, int micro_batch)
      : ToyStage(model, slots), kind_(kind), micro_batch_(micro_batch) {}

  Status Forward(const StageVisit& visit, const void* x, void* y) override {
    SP_RETURN_IF_ERROR(Fail(ActionKind::kForward, visit));
    return ToyStage::Forward(visit, x, y);
  }
  Status BackwardWeight(const StageVisit& visit, const void* x,
                        const void* dy) override {
    SP_RETURN_IF_ERROR(Fail(ActionKind::kWeight, visit));
    return ToyStage::BackwardWeight(visit, x, dy);
  }

 private:
  Status Fail(ActionKind kind, const StageVisit& visit) const {
    if (kind != kind_ || visit.micro_batch != micro_batch_) return OkStatus();
    return DataLoss("a file is gone");
  }
  ActionKind kind_;
  int micro_batch_;
};

// In the middle of the step, and in its very last action, when the others have
// nothing left to wait for.
TEST(PipelineExecutor, EndsTheStepOfAllRanksWhereAStageFails) {
  const Schedule s = *BuildSchedule("zb_h1", {3, 4, 1});
  struct Failure {
    ActionKind kind;
    int micro_batch;
    std::string where;
  };
  for (const Failure& failure :
       {Failure{ActionKind::kForward, 2, "rank 1, action 3, F2 of stage 1"},
        Failure{ActionKind::kWeight, 3, "rank 1, action 11, W3 of stage 1"}}) {
    for (const int64_t count : {kSmall, kLarge}) {
      const std::vector<int64_t> elements(4, count);
      const std::vector<Status> errors =
          Errors(3, [&](const Communicator& comm) -> Status {
            SP_ASSIGN_OR_RETURN(
                PipelineExecutor executor,
                PipelineExecutor::Create(comm, {s, ToyBytes(elements)}));
            const ToyModel model = {comm.rank(), 3, elements};
            Failing fails(model, executor.slots(0), failure.kind,
                          failure.micro_batch);
            ToyStage works(model, executor.slots(0));
            PipelineStage* const chunks[] = {comm.rank() == 1 ? &fails
                                                              : &works};
            return executor.Step(chunks);
          });
      const std::string text = failure.where + ": a file is gone";
      EXPECT_EQ(errors[1].ToString(), "data loss: " + text);
      for (const int other : {0, 2}) {
        const Status& error = errors[static_cast<size_t>(other)];
        EXPECT_EQ(error.code(), StatusCode::kAborted);
        EXPECT_NE(error.message().find(text), std::string::npos)
            << error.ToString();
      }
    }
  }
}

TEST(PipelineExecutor, RefusesOtherChunksThanTheScheduleHas) {
  const Schedule s = *BuildSchedule("gpipe", {2, 2, 1});
  for (const int wrong : {0, 1, 2}) {
    const std::vector<Status> errors =
        Errors(2, [&](const Communicator& comm) -> Status {
          SP_ASSIGN_OR_RETURN(PipelineExecutor executor,
                              PipelineExecutor::Create(comm, {s, {8, 8}}));
          ToyStage stage({comm.rank(), 2, {1, 1}}, executor.slots(0));
          std::vector<PipelineStage*> chunks = {&stage};
          if (comm.rank() == 1 && wrong == 0) chunks.clear();
          if (comm.rank() == 1 && wrong == 1) chunks.push_back(&stage);
          if (comm.rank() == 1 && wrong == 2) chunks[0] = nullptr;
          return executor.Step(chunks);
        });
    EXPECT_EQ(errors[1].message(),
              wrong == 2 ? "chunk 0 of rank 1 is null"
                         : "rank 1 has 1 chunks in schedule gpipe, not " +
                               std::to_string(2 * wrong));
    EXPECT_EQ(errors[0].code(), StatusCode::kAborted);
    EXPECT_NE(errors[0].message().find(errors[1].message()), std::string::npos);
  }
}

// --- Anything that is valid --------------------------------------------------

TEST(PipelineExecutor, RunsAnythingThatIsValid) {
  std::mt19937_64 random(5);
  int ran = 0, ran_broken = 0, refused = 0;
  while (ran < 150) {
    Schedule s = RandomSchedule(random, 5);
    const auto breaks = static_cast<int>(random() % 4);
    for (int i = 0; i < breaks; ++i) BreakAtRandom(random, s);
    const Status valid = ValidateSchedule(s, MessageSemantics::kBuffered);
    if (!valid.ok()) {
      ++refused;
      continue;
    }
    ++ran;
    if (breaks > 0) ++ran_broken;
    const int64_t elements = ran % 3 == 0 ? kLarge : kSmall;
    const Status status = RunToy(s, ToyElements(s, elements));
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  EXPECT_GT(ran_broken, 40);
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace shardproof
