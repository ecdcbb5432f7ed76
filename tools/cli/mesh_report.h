// What a training step sends along each dimension of its mesh, as people read it:
// how much of it leaves a node, and how much would in the usual order.
//
//     fmt::print("{}", *MeshReport(config, 4));
//
//     along  ranks  stride      sent  transfers  between nodes of 4
//     tp         4       2   216 KiB       1408       108 KiB  50 %
//     ..
//     pp=2,tp=4 sends 138 KiB between nodes of 4 ranks; tp=4,pp=2 sends ..
//
// Numbers are those of PredictMeshCost, over all ranks.
#ifndef SHARDPROOF_TOOLS_CLI_MESH_REPORT_H_
#define SHARDPROOF_TOOLS_CLI_MESH_REPORT_H_

#include <optional>
#include <string>
#include <vector>

#include "pipeline/train_step/train_step.h"
#include "reference/status.h"
#include "tools/cli/jobs.h"
#include "tools/harness/registry.h"

namespace shardproof {

// Ranks of a node where nobody says how many: half of them, but not above 8.
int NodeOf(int ranks);

// The step as a line, the table, the comparison, and what the numbers leave open.
// Errors are those of PredictMeshCost.
StatusOr<std::string> MeshReport(const TrainStepConfig& config,
                                 int ranks_per_node);
// The comparison alone, as a sentence. Of a mesh that is in the usual order, that
// it is.
StatusOr<std::string> OrderSentence(const TrainStepConfig& config,
                                    int ranks_per_node);

// Of an instance that is a training step on a mesh; of any other none.
std::optional<TrainStepConfig> TrainStepOf(const Instance& instance);
// Why a case of training steps takes no such mesh, of any of its models; empty
// for one that does, and for another case.
std::string WhyNotOnMesh(const CaseInfo& info, const std::string& mesh);
// A line on stderr for each mesh among the jobs that is not in the usual order.
void PrintNotesOnOrder(const std::vector<Job>& jobs);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_MESH_REPORT_H_
