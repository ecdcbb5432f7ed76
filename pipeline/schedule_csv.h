// Schedules as comma-separated values: a row for each rank, its actions in order,
//
//     0F0,0F1,,0B0,0B1
//     ,1F0,1B0,1F1,1B1
//
// each the stage, the letter of the kind (F, B, I, W) and the micro-batch; a pair,
// which can be computed together, is (0F4;7B1)OVERLAP_F_B. Empty cells, which
// others write for idle time, mean nothing. This is the format of
// torch.distributed.pipelining.
//
// A stage is on the rank that has it; a rank's chunks are its stages in their
// order. So only schedules of one pipeline can be written.
#ifndef SHARDPROOF_PIPELINE_SCHEDULE_CSV_H_
#define SHARDPROOF_PIPELINE_SCHEDULE_CSV_H_

#include <string>
#include <string_view>

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

// kInvalidArgument for a schedule of two pipelines. What is marked as a pair and
// is none is written as two actions.
StatusOr<std::string> ToCsv(const Schedule& schedule);

// kDataLoss, naming line and cell, for what is no action, for a stage on two
// ranks, or on none. What the actions mean is for validator.h.
StatusOr<Schedule> FromCsv(std::string_view text, std::string name);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_SCHEDULE_CSV_H_
