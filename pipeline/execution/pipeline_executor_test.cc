// Schedules run, with stages whose results are known to the bit; what they hold;
// and what is made of bad input.
#include "pipeline/execution/pipeline_executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "layers/testing/allocations.h"
#include "pipeline/registry.h"
#include "pipeline/testing/toy_stage.h"
#include "pipeline/validator.h"

namespace shardproof {
namespace {

// The stages of a rank's chunks, and which pipeline each is in.
struct ToyChunks {
  std::vector<std::unique_ptr<ToyStage>> stages;
  std::vector<PipelineStage*> chunks;
  std::vector<ToyModel> models;
  std::vector<int> pipelines;
};

ToyChunks MakeChunks(const Schedule& s, int rank,
                     const std::vector<int64_t>& elements) {
  const std::vector<int> slots = SlotsOfChunks(s, rank);
  ToyChunks made;
  made.stages.resize(slots.size());
  made.chunks.resize(slots.size());
  made.models.resize(slots.size());
  made.pipelines.resize(slots.size());
  for (size_t pipe = 0; pipe < s.pipelines.size(); ++pipe) {
    for (int stage = 0; stage < s.stages(); ++stage) {
      const Place& place = s.pipelines[pipe][static_cast<size_t>(stage)];
      if (place.rank != rank) continue;
      const auto c = static_cast<size_t>(place.chunk);
      made.models[c] = {stage, s.stages(), elements};
      made.pipelines[c] = static_cast<int>(pipe);
      made.stages[c] = std::make_unique<ToyStage>(made.models[c], slots[c]);
      made.chunks[c] = made.stages[c].get();
    }
  }
  return made;
}

Status CheckResults(const Schedule& s, const ToyChunks& chunks) {
  for (size_t c = 0; c < chunks.stages.size(); ++c) {
    const ToyResult expected =
        ToyExpected(chunks.models[c], [&](int micro_batch) {
          return s.PipelineOf(micro_batch) == chunks.pipelines[c];
        });
    if (chunks.stages[c]->result() == expected) continue;
    return Internal("chunk {}, stage {}: wrong results", c,
                    chunks.models[c].stage);
  }
  return OkStatus();
}

std::vector<int64_t> Bytes(const std::vector<int64_t>& elements) {
  std::vector<int64_t> bytes;
  for (const int64_t n : elements) {
    bytes.push_back(n * static_cast<int64_t>(sizeof(uint64_t)));
  }
  return bytes;
}

// All micro-batches of `elements`, the last one of a third.
std::vector<int64_t> Uneven(const Schedule& s, int64_t elements) {
  std::vector<int64_t> all(static_cast<size_t>(s.micro_batches), elements);
  all.back() = elements / 3;
  return all;
}

// Runs two steps, and checks the results of each on every rank.
Status RunSteps(const Communicator& comm, const Schedule& s,
                const std::vector<int64_t>& elements) {
  SP_ASSIGN_OR_RETURN(
      PipelineExecutor executor,
      PipelineExecutor::Create(
          comm, {.schedule = s, .message_bytes = Bytes(elements)}));
  const ToyChunks chunks = MakeChunks(s, comm.rank(), elements);
  for (int step = 0; step < 2; ++step) {
    for (const auto& stage : chunks.stages) stage->Clear();
    SP_RETURN_IF_ERROR(executor.Step(chunks.chunks));
    SP_RETURN_IF_ERROR(CheckResults(s, chunks));
  }
  return OkStatus();
}

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
    for (const int ranks : {1, 2, 3, 4, 5, 8}) {
      for (int chunks = 1; chunks <= (info.takes_chunks ? 3 : 1); ++chunks) {
        const auto schedule = AnyOf(info, ranks, chunks);
        if (!schedule.ok()) continue;
        SCOPED_TRACE(info.name + " " + std::to_string(ranks) + " ranks " +
                     std::to_string(chunks) + " chunks");
        f(*schedule);
      }
    }
  }
}

TEST(PipelineExecutor, MakesWhatTheModelMakes) {
  EverySchedule([](const Schedule& s) {
    for (const int64_t elements : {kSmall, kLarge, int64_t{0}}) {
      const Status ran = RunThreads(s.ranks(), [&](const Communicator& comm) {
        return RunSteps(comm, s, Uneven(s, elements));
      });
      EXPECT_TRUE(ran.ok()) << ran.ToString();
    }
  });
}

}  // namespace
}  // namespace shardproof
