// shardproof pipeline mesh: what the order of a mesh costs.
#ifndef SHARDPROOF_TOOLS_CLI_PIPELINE_MESH_H_
#define SHARDPROOF_TOOLS_CLI_PIPELINE_MESH_H_

#include <cstdint>
#include <functional>
#include <string>

#include "pipeline/train_step/train_step.h"
#include "reference/status.h"
#include "tools/cli/app_fwd.h"

namespace shardproof {

struct PipelineMeshOptions {
  std::string mesh;
  std::string model = "llama-3.1-8b";
  int ranks_per_node = 0;  // 0: NodeOf.
  std::string schedule = "one_f_one_b";
  int zero = 0;
  bool sequence_parallel = false;
  // 0, and empty: what the model comes with.
  int chunks = 0, micro_batches = 0;
  int64_t micro_batch = 0, sequence = 0;
  std::string attention, recompute;
};

// The step that they describe. A model of a train_step case (gpt, llama, mixtral)
// comes with that case's batch; any other with a micro-batch of one sequence of
// 4096 tokens, or as many as it has positions, and 8 of them, or two for each
// stage, in bf16. kInvalidArgument for a mesh that is none, of more than 4096
// ranks, or for a model of another kind than TrainStep has.
StatusOr<TrainStepConfig> StepOf(const PipelineMeshOptions& options);

void AddPipelineMesh(CLI::App& app, PipelineMeshOptions& options,
                     std::function<void(const Status&)> done);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_PIPELINE_MESH_H_
