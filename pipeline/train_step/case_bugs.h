// Bugs to plant into a training step: wrong groups and wrong scales. For case.cc.
#ifndef SHARDPROOF_PIPELINE_TRAIN_STEP_CASE_BUGS_H_
#define SHARDPROOF_PIPELINE_TRAIN_STEP_CASE_BUGS_H_

#include <functional>
#include <string>
#include <vector>

#include "pipeline/train_step/case_setup.h"
#include "pipeline/train_step/train_step.h"

namespace shardproof::train_step {

struct PlantedBug {
  std::string name;
  TrainStepParts parts;
  // Where it can show.
  std::function<bool(const P&)> applies;
};

std::vector<PlantedBug> BugsOf(Model model);

}  // namespace shardproof::train_step

#endif  // SHARDPROOF_PIPELINE_TRAIN_STEP_CASE_BUGS_H_
