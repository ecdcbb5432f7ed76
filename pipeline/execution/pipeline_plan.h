// What a rank does in a step of a pipeline, worked out before it begins: which
// buffers its actions use, which messages there are, and when each of them is
// started and waited for. A schedule is fixed, so all of this is, and a step asks
// for nothing.
//
// There are two kinds of buffers, all of the size of the largest message.
//
//     slots      what actions read: an x from its F to the visit's last action (B or
//                W), a dy during its B or from its I to its W. As few as the
//                schedule can do with. What a stage makes for the next one on the
//                same rank is made in the other's slot: nothing is copied or sent.
//     outputs    what is sent: a y or a dx, from the action that makes it until its
//                send has ended. As many as are under way at once where F, I and W
//                take one unit of time each, and at least two.
//
// A receive into a slot is started as long before the action that needs it as the
// slot is free. Nothing is waited for but
//
//     before an action, the message that it needs
//     before an action, the send that is to leave the output it is to write
//     after all actions, the sends that are left
//
// No rank waits for ever where validator.h finds no deadlock of buffered messages:
// in the run with the unit costs above every output is used again only after the
// receive of what was sent from it has been started. So each rank's order, each
// dependency and each wait go forward in that run's time.
//
//     const PipelinePlan plan = PlanPipeline(schedule, rank);
//     plan.actions[3].receives    // Which of plan.receives start before action 3.
//
// Rejected: an output for every send of a step, as others keep them; that is the
// memory of GPipe for any schedule. Waiting for each send at once: a deadlock where
// two ranks send to one another (ZB-V).
#ifndef SHARDPROOF_PIPELINE_EXECUTION_PIPELINE_PLAN_H_
#define SHARDPROOF_PIPELINE_EXECUTION_PIPELINE_PLAN_H_

#include <vector>

#include "pipeline/schedule.h"

namespace shardproof {

// How many visits of each chunk of a rank are alive at once at most: from their F
// to their B or W. For a valid schedule.
std::vector<int> SlotsOfChunks(const Schedule& schedule, int rank);

// Its end on one rank.
struct PipelineMessage {
  int micro_batch = 0;
  int peer = 0;
  int tag = 0;     // Tells direction, sending stage and micro-batch.
  int buffer = 0;  // Slots first, then outputs.

  bool operator==(const PipelineMessage&) const = default;
};

struct PlannedAction {
  Action action;
  int stage = 0;
  int slot = 0;  // The chunk's, for StageVisit.
  // Buffers; -1 for none.
  int x = -1, dy = -1, y = -1, dx = -1;

  // Numbers in the plan's lists of messages; -1 for none.
  std::vector<int> receives;  // To start before the action,
  int frees = -1;             // the send to wait for before it,
  int arrives = -1;           // and the receive.
  int leaves = -1;            // The send to start after it.
};

struct PipelinePlan {
  std::vector<int> slots_of_chunks;
  int slots = 0;
  int outputs = 0;
  std::vector<PlannedAction> actions;
  std::vector<PipelineMessage> receives, sends;
};

// For a schedule that is valid with buffered messages.
PipelinePlan PlanPipeline(const Schedule& schedule, int rank);

// Tags are below 2 x stages x micro-batches; more than this is refused.
inline constexpr int kMostPipelineTags = 0x7000;

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_EXECUTION_PIPELINE_PLAN_H_
