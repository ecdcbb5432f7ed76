// Weights that were saved at one (tensor-parallel t, pipeline p) are loaded at
// another.
//
// Contract, for saved shards n of layout `from`, each held by some rank, and new
// shard r of layout `to` on rank r (shard_layout.h says what either holds):
//
//     loaded_r[l, i, j] = the element (l, i, j) of the parameter, from a saved
//                         shard that holds it; 0 where i is padding
//
// bit for bit, whatever the type. Resharding t1 -> t2 -> t1 is the identity, but
// for padding, which comes back as zeros: what a saved shard has in its padding
// is no part of the model, and goes nowhere.
//
// Every rank gets what it needs from those that have it, in one all_to_all_v: of
// a parameter of Psi elements that is cut t ways and was cut otherwise, at most
// Psi/t in per rank, and nothing that it has already. No rank ever has more than
// its shards, and what it sends or gets of them; the whole parameter is nowhere.
// (Rejected: gather on one rank and cut again, which needs memory for all of it
// and sends it all twice.)
//
//     const ReshardConfig config = {
//         .parameter = {.cut = ParameterCut::kQkv, .layers = 32, .rows = 6144,
//                       .columns = 4096, .heads = 32, .kv_heads = 8,
//                       .head_dim = 128, .dtype = DType::kBF16},
//         .from = {.tensor = 2, .pipeline = 4},
//         .to = {.tensor = 8}};
//     SP_ASSIGN_OR_RETURN(const Reshard reshard,
//         Reshard::Create(comm, config, {{.layout = config.from, .shard = 3,
//                                         .bytes = file_size}}));
//     SP_RETURN_IF_ERROR(reshard.Run({data}, loaded));
//
// One parameter at a time: a model is a loop over its parameters, and the memory
// needed beside the shards is that of the largest.
//
// Sources: the layouts are those of Shoeybi et al., Megatron-LM,
// arXiv:1909.08053, whose tools/checkpoint goes through one process with the
// whole model; plans of intersecting intervals are those of PyTorch's
// distributed checkpoint (torch.distributed.checkpoint.planner).
#ifndef SHARDPROOF_LAYERS_RESHARD_RESHARD_H_
#define SHARDPROOF_LAYERS_RESHARD_RESHARD_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "layers/reshard/reshard_plan.h"
#include "layers/reshard/shard_layout.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/status.h"

namespace shardproof {

// A shard that this rank has, as its own metadata describes it.
struct SavedShard {
  ShardLayout layout;
  int shard = 0;
  int64_t bytes = 0;
};

class Reshard {
 public:
  // Collective; the same error on every rank. A rank may have several saved
  // shards, or none; together they have each once. kInvalidArgument
  //   * where ranks differ in what they want, or CheckLayout refuses it,
  //   * for more new shards than ranks,
  //   * for a shard whose metadata names another layout, whose number is none of
  //     the layout's, or whose size is not that of its part,
  //   * for a shard that no rank has, or that is there twice.
  // kOutOfMemory for the workspaces: what is sent, and what is received.
  static StatusOr<Reshard> Create(
      const Communicator& comm, const ReshardConfig& config,
      const std::vector<SavedShard>& saved,
      const CollectiveFamily& collectives = kAutoCollectives,
      const ReshardRules& rules = {});

  // Collective. `saved` are this rank's shards, in the order in which Create
  // was told of them; `loaded` has loaded_elements(), and is null on ranks
  // without a new shard. Nothing may overlap. Errors are those of the transport,
  // and kInvalidArgument for another number of shards, which ends the run of the
  // other ranks, kAborted.
  Status Run(std::span<const void* const> saved, void* loaded,
             const Stream& stream = Stream::Inline()) const;

  // Elements of this rank's new shard, padding included.
  int64_t loaded_elements() const;
  // Of both workspaces, in bytes on this rank.
  int64_t working_bytes() const;
  const ReshardPlan& plan() const;

 private:
  struct State;
  explicit Reshard(std::shared_ptr<const State> state);

  std::shared_ptr<const State> state_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_RESHARD_RESHARD_H_
