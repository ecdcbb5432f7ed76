// Proves that a schedule runs, or says what is wrong with it first.
//
// Contract: ok if and only if
//
//   * every stage of every pipeline has a place of its own, and every micro-batch
//     has, at every stage of its pipeline, one F and one B, or one F, I and W, all
//     on the rank where the stage is and in this order;
//   * a pair, which can be computed together, is an F and a B of two micro-batches;
//   * with messages that wait as `semantics` say, every rank comes to the end of
//     its actions, one after the other; and with buffered messages also where a
//     pair waits for all that it needs before it sends anything.
//
// Between ranks an F sends its output to the next stage, a B or I the gradient of
// its input to the stage before; the receiver takes it right in front of the
// action that needs it.
//
//     kBuffered    a send returns at once (non-blocking sends)
//     kGrouped     what an action sends and what the next one receives are one
//                  group, which ends when all of it has met its other end
//                  (ncclGroupStart, batch_isend_irecv)
//     kBlocking    each send and receive ends when it has met its other end, one
//                  after the other
//
// What runs blocking runs grouped, and what runs grouped runs buffered.
//
//     rank 0 sends F1 to rank 1, which sends B0 to rank 0: a deadlock
#ifndef SHARDPROOF_PIPELINE_VALIDATOR_H_
#define SHARDPROOF_PIPELINE_VALIDATOR_H_

#include <cstdint>
#include <string_view>

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

enum class MessageSemantics : uint8_t { kBuffered, kGrouped, kBlocking };
// "buffered", "grouped", "blocking".
std::string_view Name(MessageSemantics semantics);

// kInvalidArgument, naming the first rank and action that is wrong: of the lowest
// rank that can see alone that something is, the first action that has no meaning
// there, repeats what was done, or needs what comes later or never; else what the
// rank never does, micro-batch by micro-batch. If no rank can, the lowest that
// waits for ever, what for, and who for whom in turn.
Status ValidateSchedule(const Schedule& schedule, MessageSemantics semantics);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_VALIDATOR_H_
