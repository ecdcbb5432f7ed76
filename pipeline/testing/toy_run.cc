#include "pipeline/testing/toy_run.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "collectives/backend/thread/thread_world.h"

namespace shardproof {

ToyChunks MakeToyChunks(const Schedule& schedule, int rank,
                        const std::vector<int64_t>& elements) {
  const std::vector<int> slots = SlotsOfChunks(schedule, rank);
  ToyChunks made;
  made.stages.resize(slots.size());
  made.chunks.resize(slots.size());
  made.models.resize(slots.size());
  made.pipelines.resize(slots.size());
  for (size_t pipe = 0; pipe < schedule.pipelines.size(); ++pipe) {
    for (int stage = 0; stage < schedule.stages(); ++stage) {
      const Place& place = schedule.pipelines[pipe][static_cast<size_t>(stage)];
      if (place.rank != rank) continue;
      const auto c = static_cast<size_t>(place.chunk);
      made.models[c] = {stage, schedule.stages(), elements};
      made.pipelines[c] = static_cast<int>(pipe);
      made.stages[c] = std::make_unique<ToyStage>(made.models[c], slots[c]);
      made.chunks[c] = made.stages[c].get();
    }
  }
  return made;
}

Status CheckToyResults(const Schedule& schedule, const ToyChunks& chunks) {
  for (size_t c = 0; c < chunks.stages.size(); ++c) {
    const ToyResult expected =
        ToyExpected(chunks.models[c], [&](int micro_batch) {
          return schedule.PipelineOf(micro_batch) == chunks.pipelines[c];
        });
    if (chunks.stages[c]->result() == expected) continue;
    return Internal("chunk {}, stage {}: wrong results", c,
                    chunks.models[c].stage);
  }
  return OkStatus();
}

std::vector<int64_t> ToyElements(const Schedule& schedule, int64_t elements) {
  std::vector<int64_t> all(static_cast<size_t>(schedule.micro_batches),
                           elements);
  all.back() = elements / 3;
  return all;
}

std::vector<int64_t> ToyBytes(const std::vector<int64_t>& elements) {
  std::vector<int64_t> bytes;
  for (const int64_t n : elements) {
    bytes.push_back(n * static_cast<int64_t>(sizeof(uint64_t)));
  }
  return bytes;
}

Status RunToySteps(const Communicator& comm, const Schedule& schedule,
                   const std::vector<int64_t>& elements) {
  SP_ASSIGN_OR_RETURN(
      PipelineExecutor executor,
      PipelineExecutor::Create(
          comm, {.schedule = schedule, .message_bytes = ToyBytes(elements)}));
  const ToyChunks chunks = MakeToyChunks(schedule, comm.rank(), elements);
  for (int step = 0; step < 2; ++step) {
    for (const auto& stage : chunks.stages) stage->Clear();
    SP_RETURN_IF_ERROR(executor.Step(chunks.chunks));
    SP_RETURN_IF_ERROR(CheckToyResults(schedule, chunks));
  }
  return OkStatus();
}

Status RunUnderDeadline(int ranks,
                        const std::function<Status(const Communicator&)>& f) {
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<ThreadWorld> world,
                      ThreadWorld::Create({.ranks = ranks}));
  std::mutex mutex;
  std::condition_variable ended;
  bool done = false;
  std::thread watch([&] {
    std::unique_lock<std::mutex> lock(mutex);
    if (!ended.wait_for(lock, std::chrono::seconds(40), [&] { return done; })) {
      world->Abort("no end after 40 s");
    }
  });
  const Status status = world->Run(f);
  {
    const std::lock_guard<std::mutex> lock(mutex);
    done = true;
  }
  ended.notify_one();
  watch.join();
  return status;
}

Status RunToy(const Schedule& schedule, const std::vector<int64_t>& elements) {
  return RunUnderDeadline(schedule.ranks(), [&](const Communicator& comm) {
    return RunToySteps(comm, schedule, elements);
  });
}

}  // namespace shardproof
