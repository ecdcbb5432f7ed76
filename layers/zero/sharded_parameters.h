// Parameters and gradients of data-parallel ranks, in blocks of which each rank
// owns a part: what zero.h and others who have an order of their own (a pipeline)
// step through.
//
// Contract: g ranks (`shard`) share each copy of what is sharded, and r groups of
// them (`replica`) hold the same. Rank s of g owns part BalancedChunk(n_l, g, s)
// of block l; in stage 0 everything. A step is a list of uses, the same on every
// rank of both groups, of which each reads a block, makes some of its gradient,
// or both. With D_{q,u} what rank q makes in use u, after Finish
//
//     own part of G_l = sum over ranks q of shard and replica, uses u of l
//                       of D_{q,u}
//
// and it holds and sends, U and V being how many uses read a block, and how many
// make gradients of it:
//
//     stage   parameters  gradients  sends of each block
//     0       all         all        all_reduce of G
//     1       all         all        reduce_scatter of G; GatherParameters:
//                                    all_gather of W
//     2       all         own        V reduce_scatters; the same
//     3       own         own        U all_gathers, V reduce_scatters
//
// What a rank owns of G is all_reduced among its replicas besides, after the last
// use. With overlap, what is sent goes through a stream and communicators of its
// own: the next block is gathered while this one is computed with, and gradients
// are reduced while others are made. A buffer is used again only when its last
// reduction is done.
//
//     SP_ASSIGN_OR_RETURN(ShardedParameters sharded, ShardedParameters::Create(
//         {.shard = data_parallel}, {.stage = 3, .blocks = {m, n},
//          .uses = {{0}, {1}, {1, true, true}, {0, true, true}}}));
//     sharded.Load(blocks);
//     for (each use) {
//       SP_ASSIGN_OR_RETURN(const ShardedParameters::Use use, sharded.Begin());
//       ... compute with use.parameters, and make use.gradients ...
//       SP_RETURN_IF_ERROR(sharded.End());
//     }
//     SP_RETURN_IF_ERROR(sharded.Finish(OkStatus()));
//     ... an optimizer's step of own parts ...
//     SP_RETURN_IF_ERROR(sharded.GatherParameters());
//
// Sources: as zero.h.
#ifndef SHARDPROOF_LAYERS_ZERO_SHARDED_PARAMETERS_H_
#define SHARDPROOF_LAYERS_ZERO_SHARDED_PARAMETERS_H_

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/device.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// Ranks with the same parts of different copies are each other's replicas: rank
// i of `shard` has the same i in every group that `replica` connects. An invalid
// replica: one copy.
struct ZeroGroups {
  Communicator shard;
  Communicator replica = {};
};

struct ParameterUse {
  size_t block = 0;
  bool reads = true;
  bool gradient = false;
};

// Equal on all ranks.
struct ShardedParametersConfig {
  int stage = 1;                        // 0 to 3.
  std::vector<int64_t> blocks = {};     // Elements of each.
  std::vector<ParameterUse> uses = {};  // Of a step.
  bool overlap = false;
  DType dtype = DType::kF32;
  DType gradient_dtype = DType::kF32;
};

// `mine`, agreed on by the ranks of both groups: the same error on all of them.
// Every rank of a group of `shard` has come to the same before its replicas are
// asked.
Status AgreeOnBoth(const ZeroGroups& groups, const Status& mine);
// kInvalidArgument unless all ranks give the same text; it names this one.
Status AgreeOnSharding(const ZeroGroups& groups, std::string_view text);

class ShardedParameters {
 public:
  // Of the current use.
  struct Use {
    const void* parameters = nullptr;  // The whole block, where it is read.
    // As long as the block: becomes what the use makes of its gradient, or gains
    // it.
    void* gradients = nullptr;
    bool accumulate = false;
  };

  // Collective over both groups; the same error on every rank. kInvalidArgument
  // where ranks differ, for a stage that there is not, a negative size, or a use
  // of no block; kOutOfMemory; kUnavailable where there is no thread for the
  // stream. All memory is asked for here.
  static StatusOr<ShardedParameters> Create(
      const ZeroGroups& groups, const ShardedParametersConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // A local call: parameters from whole blocks. kInvalidArgument for more or
  // fewer than there are.
  Status Load(std::span<const void* const> blocks);

  // Collective. The next use of the step; what it gives is valid until End.
  // kInvalidArgument after the last one.
  StatusOr<Use> Begin();
  Status End();
  // Ends a step, after `passes` came of it: also after an error, since what is
  // queued works on memory of ours. The first error of both.
  Status Finish(const Status& passes);
  // Collective. Every part from its owner, in stages 1 and 2.
  Status GatherParameters();
  // Collective. The whole block, whatever the stage, to `to`.
  Status Collect(size_t block, void* to);

  // The part of block `block` that this rank owns, and its memory: the
  // parameters, and the gradients that the last step summed.
  const Chunk& own(size_t block) const { return blocks_[block].own; }
  void* own_parameters(size_t block) const;
  void* own_gradients(size_t block) const;
  // The whole block; null in stage 3.
  const void* parameters(size_t block) const;
  size_t size() const { return blocks_.size(); }

  // Bytes held by this rank, counted where they are allocated.
  int64_t parameter_bytes() const;
  int64_t gradient_bytes() const;
  int64_t buffer_bytes() const;

 private:
  struct Block {
    int64_t count = 0;
    int64_t begin = 0;      // In the whole model.
    int64_t own_begin = 0;  // Among the parts that this rank owns.
    Chunk own;
    std::vector<int64_t> counts;  // Of each rank's part.
    size_t last = 0;              // Its last use with gradients.
    bool made = false;            // In this step, a part of its gradient.
  };

  ShardedParameters(const ShardedParametersConfig& config,
                    const CollectiveFamily& collectives)
      : config_(config), collectives_(collectives) {}
  Status SetUp(const ZeroGroups& groups);
  Status Allocate();
  // The number of the first use from `use` on that reads.
  size_t NextRead(size_t use) const;
  Status BeginGather(size_t use);
  // The parameters that the current use reads; begins the next gather.
  StatusOr<const void*> Acquire();
  Status Reduce(const Block& block, bool first, bool last);
  Status ReduceNow(const Block& block, const void* whole, bool first,
                   bool last);
  Status AllReduceOwn(const Communicator& comm, const Block& block);
  bool has_replicas() const { return replica_.valid() && replica_.size() > 1; }

  ShardedParametersConfig config_;
  CollectiveFamily collectives_;
  Communicator shard_;
  // Of the stream: duplicates with overlap.
  Communicator queued_shard_, replica_;
  std::vector<Block> blocks_;
  int64_t count_ = 0, own_count_ = 0, largest_ = 0, largest_own_ = 0;
  Buffer parameters_, gradients_;
  std::array<Buffer, 2> gathered_, partial_;
  std::array<Event, 2> gather_done_, partial_free_;
  size_t use_ = 0;      // The current one, or the next.
  size_t reads_ = 0;    // Of this step, so far.
  size_t gathers_ = 0;  // Begun.
  int turn_ = 0;        // Which partial buffer is next.
  Buffer reduced_;      // A part, before it is added.
  Stream stream_;       // Ended before anything that it works on.
};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_ZERO_SHARDED_PARAMETERS_H_
