// Tokens that are dealt to ranks in one layout, dealt in another.
//
// Contract, for n tokens of `width` elements in each of S sequences over P ranks,
// rank r with the tokens of RunsOf(from, r) before and RunsOf(to, r) after
// (layout/layout.h): y on the ranks is x on the ranks, token for token, to the
// bit. Rows are in the order of the runs, sequence by sequence. What a rank has
// in both layouts stays; each other token travels once, in one message from one
// rank to another for all sequences together, so that a rank sends at most
// (P - 1)/P of its tokens where the layouts have nothing in common.
//
// What a rotary embedding turns a rank's rows by is positions(): those of the
// whole sequence, whatever the layout, which begin with 0 on one rank only.
//
//     SP_ASSIGN_OR_RETURN(Relayout to_zigzag,
//         Relayout::Create(comm, {.tokens = 8192, .width = 4096,
//                                 .to = SequenceLayout::kZigzag}));
//     SP_RETURN_IF_ERROR(to_zigzag.Run(x, y));
//     RopeTable::Create(config, to_zigzag.positions());
#ifndef SHARDPROOF_ATTENTION_RELAYOUT_RELAYOUT_H_
#define SHARDPROOF_ATTENTION_RELAYOUT_RELAYOUT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "attention/layout/layout.h"
#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// Equal on all ranks.
struct RelayoutConfig {
  int64_t sequences = 1;
  int64_t tokens = 0;  // Of each sequence.
  int64_t width = 0;   // Elements of a token.
  SequenceLayout from = SequenceLayout::kContiguous;
  SequenceLayout to = SequenceLayout::kContiguous;
  DType dtype = DType::kF32;
};

class Relayout {
 public:
  // Collective; the same error on every rank: kInvalidArgument for a negative
  // size, a layout that the tokens do not fit, or where ranks differ;
  // kOutOfMemory. All memory that is ever needed is asked for here.
  static StatusOr<Relayout> Create(
      const Communicator& comm, const RelayoutConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Collective. x [S, tokens of `from`, width], y [S, tokens of `to`, width];
  // they do not overlap. Errors are those of the transport.
  Status Run(const void* x, void* y,
             const Stream& stream = Stream::Inline()) const;

  // Of each token of a sequence that this rank has in y.
  const std::vector<int64_t>& positions() const;
  int64_t working_bytes() const;

 private:
  class State;
  explicit Relayout(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// What it sends. The family must have costs.
Cost RelayoutCost(int ranks, const RelayoutConfig& config,
                  const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_RELAYOUT_RELAYOUT_H_
