// A model whose every result is known to the bit, for tests of what runs
// schedules: stage s is y = a_s x + b_s, elementwise, in integers modulo 2^64.
//
//     a_s = 2 s + 3, b_s = 7 s + 1      dw_s = sum dy x, db_s = sum dy
//
// The first stage makes its own x, and the last, of its y, its own dy. A stage
// checks what it is promised: addresses that are null or not, x and dy as they
// were, and a slot that no other visit has.
//
//     ToyStage stage({.stage = 0, .stages = 4, .elements = {8, 8, 3}}, slots);
//     ... steps ...
//     EXPECT_EQ(stage.result(), ToyExpected(model, 0));
#ifndef SHARDPROOF_PIPELINE_TESTING_TOY_STAGE_H_
#define SHARDPROOF_PIPELINE_TESTING_TOY_STAGE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "pipeline/execution/pipeline_stage.h"
#include "reference/status.h"

namespace shardproof {

using ToyWords = std::vector<uint64_t>;

struct ToyModel {
  int stage = 0, stages = 1;
  std::vector<int64_t> elements;  // Of each micro-batch.

  uint64_t a() const { return 2 * static_cast<uint64_t>(stage) + 3; }
  uint64_t b() const { return 7 * static_cast<uint64_t>(stage) + 1; }
  ToyModel At(int other) const { return {other, stages, elements}; }
};

// What a stage has made of all micro-batches, and the visits that it had.
struct ToyResult {
  uint64_t dw = 0, db = 0;
  std::vector<ToyWords> y, dx;  // Of the last stage, and of the first.

  bool operator==(const ToyResult&) const = default;
};

// Of the first stage, and of the last from its y.
uint64_t ToyInput(int micro_batch, int64_t element);
uint64_t ToyUpstream(int micro_batch, int64_t element, uint64_t y);

// What a stage should make of the micro-batches for which `mine` holds.
ToyResult ToyExpected(const ToyModel& model,
                      const std::function<bool(int micro_batch)>& mine = {});

class ToyStage : public PipelineStage {
 public:
  ToyStage(const ToyModel& model, int slots);

  Status Forward(const StageVisit& visit, const void* x, void* y) override;
  Status Backward(const StageVisit& visit, const void* x, const void* dy,
                  void* dx) override;
  Status BackwardInput(const StageVisit& visit, const void* x, const void* dy,
                       void* dx) override;
  Status BackwardWeight(const StageVisit& visit, const void* x,
                        const void* dy) override;

  const ToyResult& result() const { return result_; }
  // Forgets the results.
  void Clear();

 private:
  // What is kept of a visit.
  struct Slot {
    int micro_batch = -1;
    const void* x = nullptr;
    ToyWords input, output;    // As they were.
    const void* dy = nullptr;  // From I to W.
    ToyWords upstream;
  };

  int64_t Count(const StageVisit& visit) const {
    return model_.elements[static_cast<size_t>(visit.micro_batch)];
  }
  Status CheckAddresses(const StageVisit& visit, const void* in,
                        const void* out, bool has_in, bool has_out) const;
  Status Check(const StageVisit& visit, const void* x) const;
  void MakeInput(const StageVisit& visit, const void* dy, void* dx);
  void MakeWeight(const StageVisit& visit);

  ToyModel model_;
  std::vector<Slot> slots_;
  ToyResult result_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_TESTING_TOY_STAGE_H_
