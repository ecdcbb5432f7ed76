// A pipeline schedule as data: what each rank computes, in which order.
//
// A model is cut into stages 0 .. s - 1, which micro-batches 0 .. m - 1 go
// through: forward in this order, backward in the opposite one. A rank has one
// or more chunks of the model, each a stage. An action is one of
//
//     F   forward of a micro-batch through a chunk
//     B   its whole backward pass, of inputs and weights
//     I   that of inputs alone, which the stage before waits for
//     W   that of weights alone, for which there is time later
//
// and every micro-batch has, at every stage of its pipeline, an F, and a B or an
// I and a W. It needs, of the same micro-batch,
//
//     F of stage s        F of stage s - 1
//     B or I of stage s   F of stage s, and B or I of stage s + 1
//     W of stage s        I of stage s
//
// A schedule has one pipeline, or two that go opposite ways over the same ranks,
// with two copies of the weights. Which chunk is which stage of which pipeline is
// data too: stage s on rank s mod p (looping), or to the last rank and back (a
// V).
//
// One representation for all: builders (a folder each) make it, validator.h
// proves that it runs, simulator.h says how long it takes and what it holds,
// schedule_csv.h reads and writes it.
//
//     SP_ASSIGN_OR_RETURN(const Schedule schedule,
//         BuildSchedule("zb_h1", {.ranks = 4, .micro_batches = 8}));
//
// Sources: Huang et al., GPipe, arXiv:1811.06965; Narayanan et al.,
// arXiv:2104.04473 (1F1B, interleaved); Qi et al., arXiv:2401.10241 (split
// backward, ZB).
#ifndef SHARDPROOF_PIPELINE_SCHEDULE_H_
#define SHARDPROOF_PIPELINE_SCHEDULE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "reference/status.h"

namespace shardproof {

enum class ActionKind : uint8_t { kForward, kBackward, kInput, kWeight };
// 'F', 'B', 'I', 'W'.
char Letter(ActionKind kind);

struct Action {
  ActionKind kind = ActionKind::kForward;
  int micro_batch = 0;
  int chunk = 0;  // Of the rank.
  // An F and a B, in any order, that can be computed together, so that one
  // communicates while the other computes: the first of the two has it. Whoever
  // ignores it does one after the other.
  bool with_next = false;

  bool operator==(const Action&) const = default;
};

// Where a stage is.
struct Place {
  int rank = 0;
  int chunk = 0;

  bool operator==(const Place&) const = default;
};

struct Schedule {
  std::string name;
  int micro_batches = 0;
  // Of each pipeline, its stages in order; as many in each.
  std::vector<std::vector<Place>> pipelines;
  // Of each micro-batch; empty: all go through the first.
  std::vector<int> pipeline_of;
  std::vector<std::vector<Action>> actions;  // Of each rank, in order.

  int ranks() const { return static_cast<int>(actions.size()); }
  int stages() const {
    return pipelines.empty() ? 0 : static_cast<int>(pipelines[0].size());
  }
  int PipelineOf(int micro_batch) const {
    return pipeline_of.empty() ? 0
                               : pipeline_of[static_cast<size_t>(micro_batch)];
  }
  // Of a micro-batch's pipeline.
  const Place& PlaceOf(int micro_batch, int stage) const {
    return pipelines[static_cast<size_t>(PipelineOf(micro_batch))]
                    [static_cast<size_t>(stage)];
  }
  // Whether number i of a rank's actions and the next one are such a pair.
  bool IsPair(int rank, size_t i) const;
  // The stage of its pipeline that is in a place; -1 where none is.
  int StageAt(int micro_batch, const Place& place) const;
  // "F3" or, of a rank with several chunks, "F3.1".
  std::string Text(const Action& action) const;
};

// Of all chunks of a rank together, for one micro-batch. Not negative.
struct StageCosts {
  double forward = 1;
  double input = 1;  // B takes both.
  double weight = 1;
  double latency = 0;  // Of a message between ranks.
  // The F and B of a pair: they begin together, when what both need is there, and
  // end together. Unset: one after the other, for the sum.
  std::optional<double> overlapped = {};
  // What is held from F to B or I, and from I to W.
  double held_to_input = 1;
  double held_to_weight = 1;

  double Of(ActionKind kind) const;
};

// What a builder is asked for.
struct ScheduleShape {
  int ranks = 1;
  int micro_batches = 1;
  int chunks = 1;  // Of each rank, where the schedule takes several.
  // For schedules that are searched for: the most that a rank may hold, in the
  // unit of the costs (0: p micro-batches, as 1F1B), and what actions cost.
  double memory_limit = 0;
  StageCosts costs = {};
};

// Stage s on rank s mod p, chunk s / p.
std::vector<Place> LoopingStages(int ranks, int chunks);
// Down the ranks and back up: stage s < p on rank s, chunk 0, stage s >= p on rank
// 2p - 1 - s, chunk 1.
std::vector<Place> VStages(int ranks);
// Two pipelines that meet: stage s on rank s, chunk 0, and on rank p - 1 - s,
// chunk 1.
std::vector<std::vector<Place>> OppositeStages(int ranks);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_SCHEDULE_H_
