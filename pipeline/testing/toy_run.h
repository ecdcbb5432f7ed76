// Steps of the toy model on every rank of a world, for tests.
//
//     EXPECT_EQ(RunToy(schedule, ToyElements(schedule, 7)).ToString(), "ok");
#ifndef SHARDPROOF_PIPELINE_TESTING_TOY_RUN_H_
#define SHARDPROOF_PIPELINE_TESTING_TOY_RUN_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "collectives/communicator.h"
#include "pipeline/execution/pipeline_executor.h"
#include "pipeline/schedule.h"
#include "pipeline/testing/toy_stage.h"

namespace shardproof {

// The stages of a rank's chunks, and which pipeline each is in.
struct ToyChunks {
  std::vector<std::unique_ptr<ToyStage>> stages;
  std::vector<PipelineStage*> chunks;
  std::vector<ToyModel> models;
  std::vector<int> pipelines;
};
ToyChunks MakeToyChunks(const Schedule& schedule, int rank,
                        const std::vector<int64_t>& elements);
// kInternal, naming the chunk, where results are not those of the model.
Status CheckToyResults(const Schedule& schedule, const ToyChunks& chunks);

// As many for each micro-batch, but a third for the last one.
std::vector<int64_t> ToyElements(const Schedule& schedule, int64_t elements);
std::vector<int64_t> ToyBytes(const std::vector<int64_t>& elements);

// Two steps, the results of each checked. Collective.
Status RunToySteps(const Communicator& comm, const Schedule& schedule,
                   const std::vector<int64_t>& elements);

// Runs f on the ranks of a fresh world of threads. A world that has not ended
// after 40 s hangs, and is aborted.
Status RunUnderDeadline(int ranks,
                        const std::function<Status(const Communicator&)>& f);
Status RunToy(const Schedule& schedule, const std::vector<int64_t>& elements);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_TESTING_TOY_RUN_H_
