// Data-parallel training that does not keep everything d times: ZeRO, stages 1
// to 3, and hybrid sharding.
//
// A model is a list of blocks of parameters, one per layer. g ranks (`shard`)
// share each copy of what is sharded, and r groups of them (`replica`) hold the
// same: d = g r data-parallel ranks, each with micro-batches of its own. Rank s
// of g owns part BalancedChunk(n_l, g, s) of block l, whatever the stage; parts
// may be empty. A Step is, with D_{q,m} the gradient of micro-batch m on rank q,
//
//     G = sum over ranks q, micro-batches m of D_{q,m}
//     W = one optimizer step (layers/optimizer) with factor G
//
// and holds and sends, per rank, for Psi parameters of e bytes and M
// micro-batches:
//
//     stage   parameters  gradients  states   sends
//     1       all         all        own      reduce_scatter of G, all_gather of W
//     2       all         own        own      M reduce_scatters, all_gather of W
//     3       own         own        own      M x (all_gather forward, all_gather
//                                             and reduce_scatter backward)
//
// each (g - 1) / g Psi e. With bf16 or f16 and Adam that is 4 + 12/g, 2 + 14/g
// and 16/g bytes per parameter. With several groups, what a rank owns of G is
// all_reduced among its replicas, once a step: 2 (r - 1) / r Psi e / g more.
//
// Besides, stages 2 and 3 hold the gradients of one block on their way (two with
// overlap), stage 3 a block of gathered parameters (two with overlap), and with
// M > 1 both a reduced part. memory() says what is really held.
//
// With overlap, what is sent goes through a stream and duplicated communicators
// of its own: stage 3 gathers the next block while this one is computed with,
// and gradients are reduced while the backward pass goes on. A buffer is used
// again only when its last reduction is done.
//
//     SP_ASSIGN_OR_RETURN(Zero zero, Zero::Create({.shard = node},
//         {.stage = 3, .blocks = model.blocks(), .micro_batches = 4,
//          .optimizer = {.settings = ..., .dtype = DType::kBF16,
//                        .gradient_dtype = DType::kBF16}}));
//     zero.Load(blocks);                        // at first, whole blocks
//     SP_RETURN_IF_ERROR(zero.Step(model, 1.0 / tokens_of_all_ranks));
//
// Gradients are summed, never averaged: the one division is `factor`, and is the
// same in every stage and with every g (PyTorch's hybrid form once had its own).
//
// Rejected: giving each rank whole parameters, so that blocks need not be cut
// (what small models allow): uneven sizes, and no 16/g. Rejected: buckets over
// blocks; a caller who wants larger messages makes larger blocks.
//
// Sources: Rajbhandari et al., ZeRO, arXiv:1910.02054, sections 5 and 7; Zhao et
// al., PyTorch FSDP, arXiv:2304.11277, sections 3.2 and 3.3 (prefetching, hybrid
// sharding).
#ifndef SHARDPROOF_LAYERS_ZERO_ZERO_H_
#define SHARDPROOF_LAYERS_ZERO_ZERO_H_

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/optimizer/optimizer.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/zero/sharded_parameters.h"
#include "reference/status.h"

namespace shardproof {

// Whose blocks these are: computes with parameters that come and go.
class ZeroModel {
 public:
  virtual ~ZeroModel() = default;
  // Block `block` forward on micro-batch `micro`. `parameters`: the whole block,
  // valid during the call only.
  virtual Status Forward(int micro, size_t block, const void* parameters) = 0;
  // And backward: `gradients`, as long as the block, becomes the gradient, or
  // gains it.
  virtual Status Backward(int micro, size_t block, const void* parameters,
                          void* gradients, bool accumulate) = 0;
};

// The sizes of a Zero, equal on all ranks.
struct ZeroConfig {
  int stage = 1;                     // 1, 2 or 3.
  std::vector<int64_t> blocks = {};  // Elements of each.
  int micro_batches = 1;             // Per rank and step.
  bool overlap = true;
  ParallelOptimizerConfig optimizer = {};
};

// Bytes held by one rank, counted where they are allocated.
struct ZeroMemory {
  int64_t parameters = 0;
  int64_t gradients = 0;
  int64_t states = 0;   // Master weights and moments.
  int64_t buffers = 0;  // Gathered parameters, gradients on their way.
  int64_t Model() const { return parameters + gradients + states; }
  int64_t Total() const { return Model() + buffers; }
};

class Zero {
 public:
  // Collective over both groups; the same error on every rank.
  // kInvalidArgument where ranks differ, for a stage that there is not, a
  // negative size, or no micro-batch; those of ParallelOptimizer; kOutOfMemory;
  // kUnavailable where there is no thread for the stream. All memory is asked
  // for here.
  static StatusOr<Zero> Create(
      const ZeroGroups& groups, const ZeroConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives,
      const OptimizerKernels& kernels = {});

  // A local call: parameters from whole blocks, and the optimizer as it begins.
  Status Load(std::span<const void* const> blocks);

  // Collective. Both passes of every micro-batch, the reduction of gradients,
  // and the optimizer's step. Computes on the calling thread and returns when
  // all is done. Errors are those of the model and the transport. A model that
  // fails on one rank is not told to the others, which wait for what that rank
  // would send: a rank that fails alone must Abort or end its run.
  Status Step(ZeroModel& model, double factor = 1);

  // The part of block `block` that this rank owns.
  const Chunk& own(size_t block) const { return sharded_.own(block); }
  // Own part: the parameters, and the gradients that the last step summed.
  const void* own_parameters(size_t block) const {
    return sharded_.own_parameters(block);
  }
  const void* own_gradients(size_t block) const {
    return sharded_.own_gradients(block);
  }
  // The whole block; null in stage 3.
  const void* parameters(size_t block) const {
    return sharded_.parameters(block);
  }
  const ParallelOptimizer& optimizer() const { return *optimizer_; }
  ZeroMemory memory() const;

 private:
  Zero(const ZeroConfig& config, ShardedParameters sharded)
      : config_(config), sharded_(std::move(sharded)) {}
  Status RunPasses(ZeroModel& model);

  ZeroConfig config_;
  ShardedParameters sharded_;
  std::optional<ParallelOptimizer> optimizer_;
  std::vector<OptimizerMemory> step_memory_;
};

// What one step sends: `shards` ranks to a copy, `replicas` copies. The family
// must have costs.
Cost ZeroStepCost(int shards, int replicas, const ZeroConfig& config,
                  const CollectiveFamily& collectives);
// What `rank` of `shards` must hold at least: Model() of its ZeroMemory.
int64_t ZeroModelBytes(int shards, int rank, const ZeroConfig& config);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_ZERO_ZERO_H_
