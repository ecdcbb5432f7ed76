// Attention whose keys and values go around while queries stay: one ring, or a
// ring of rings.
//
// Contract, for P = O I ranks, rank o I + i in the inner ring o: in step t = a I +
// b it has the keys of rank ((o - a) mod O) I + ((i - b) mod I).
//
//     forward    O, lse of the rank's queries are merged with those of each
//                step's keys
//     backward   the same steps; dQ stays, dK and dV travel with their block,
//                are added to on every rank and arrive at its owner after P hops
//
// Between steps of an inner ring a block moves to the next rank of it. What a
// rank has in the first step of an inner ring it also sends to the next inner
// ring, which needs it I steps later: that message, over the slower link, has as
// long. Gradients go where their keys are next. With O = 1 this is a ring.
//
//                  a rank sends                              messages
//     forward      K and V of P - 1 ranks                    2 (P - 1)
//     backward     the same again, and dK and dV of P ranks  2 (P - 1) + 2 P
//                  in the accumulator's type
//
// Empty blocks are not sent. dK and dV are summed in the order of the steps, in
// the accumulator's type, and rounded by their owner, if at all.
//
//     kInTurn          a block is sent, then computed with
//     kOverlapped      non-blocking messages, started before a block is computed
//                      and waited for behind it
//     kMessageThread   the same, and a thread of the rank's own waits for them
//                      (layers/overlap/message_thread.h says when that pays); one
//                      more for what goes between inner rings
//
// Sources: Liu et al., arXiv:2310.01889 (ring); Gu et al., LoongTrain,
// arXiv:2406.18485, section 4.3 (double ring).
#ifndef SHARDPROOF_ATTENTION_SHARDED_ROTATING_ATTENTION_H_
#define SHARDPROOF_ATTENTION_SHARDED_ROTATING_ATTENTION_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "attention/sharded/sharded_attention.h"
#include "collectives/communicator.h"
#include "collectives/traffic.h"
#include "reference/status.h"

namespace shardproof {

enum class RingMode : uint8_t { kInTurn, kOverlapped, kMessageThread };

// One step of the last pass, in seconds: computing, of the thread's processor
// time, and waiting for what the next step needs, of the wall's.
struct RingStep {
  double compute = 0;
  double waited = 0;
};

// Equal on all ranks.
struct RotationConfig {
  // Of the heads that all ranks have; the longest runs are found from `runs`.
  FlashShape shape;
  Visibility visibility = {};
  std::vector<std::vector<TokenRun>> runs = {};  // Of each rank.
  int inner = 0;  // Ranks of an inner ring, which divide all; 0: all.
  RingMode mode = RingMode::kOverlapped;
  // Backward gives dk and dv in the accumulator's type, to who adds to them.
  bool wide_gradients = false;
};

class RotatingAttention {
 public:
  // Collective; the same error on every rank: kInvalidArgument for inner rings
  // that do not divide the ranks or runs that are not of all of them, what
  // FlashAttention::Create refuses, kOutOfMemory, kUnavailable where no thread
  // can be started. All memory that is ever needed is asked for here.
  static StatusOr<RotatingAttention> Create(
      const Communicator& comm, const RotationConfig& config,
      const AttentionKernels& kernels = {});

  // Collective, on the caller's thread. Errors are those of the transport.
  Status Forward(const AttentionForwardArgs& args) const;
  Status Backward(const AttentionBackwardArgs& args) const;

  int64_t local_tokens() const;
  // What it works in, on this rank, in bytes.
  int64_t working_bytes() const;
  // Of the last pass; not while one is under way.
  std::span<const RingStep> steps() const;

 private:
  class State;
  explicit RotatingAttention(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

// What one pass of `config` over all ranks sends.
Cost RotationForwardCost(const RotationConfig& config);
Cost RotationBackwardCost(const RotationConfig& config);
// working_bytes() of a rank but for what the kernel itself works in: two blocks
// of keys and values for each kind of ring, three of gradients, and what partial
// results and gradients of the rank's queries take.
int64_t RotationBytes(const RotationConfig& config, int rank);
// How many partial results become one, at most.
int64_t RotationMerges(const RotationConfig& config);

// That of a scheme whose ranks all have all heads.
RotationConfig RotationOver(int64_t ranks, const ShardedAttentionConfig& config,
                            RingMode mode);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_SHARDED_ROTATING_ATTENTION_H_
