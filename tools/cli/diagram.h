// Pictures of layers for the report: which rank holds which block of every
// tensor of a case, and what moves between ranks, as seen in one execution.
//
//     SP_ASSIGN_OR_RETURN(
//         ShardDiagram d, DiagramOf(world, info, variant, instance));
//     report.diagrams = DiagramsOf(world, LayerCases(), {.ranks = 4}).diagrams;
//
// Contract: blocks are TensorSpec::BlockOf of each rank, and steps are those of
// TraceSteps (trace.h), which `explain` prints as text.
#ifndef SHARDPROOF_TOOLS_CLI_DIAGRAM_H_
#define SHARDPROOF_TOOLS_CLI_DIAGRAM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "reference/status.h"
#include "reports/report.h"
#include "tools/harness/registry.h"
#include "tools/harness/world.h"

namespace shardproof {

// Runs `variant` once at `instance`. Errors are those of TraceSteps. The steps
// of a library under test are not seen: it has none, and the note says so.
StatusOr<ShardDiagram> DiagramOf(World& world, const CaseInfo& info,
                                 const ErasedVariant& variant,
                                 const Instance& instance, uint64_t seed = 1);

// The registered cases of layers and attention.
std::vector<const CaseInfo*> LayerCases();

struct DiagramOptions {
  int ranks = 4;
  // No case is begun after this time; one takes a few milliseconds at its
  // smallest size.
  double seconds = 20;
  uint64_t seed = 1;
};

struct Diagrams {
  std::vector<ShardDiagram> diagrams = {};
  std::vector<std::string> left_out = {};  // "layers/mlp: the time was spent"
};

// Of each case the first instance to smoke-run and the first variant of ours
// that runs there and says what it costs.
Diagrams DiagramsOf(World& world, const std::vector<const CaseInfo*>& cases,
                    const DiagramOptions& options = {});

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_DIAGRAM_H_
