#include "layers/tensor_parallel_2_5d/tensor_parallel_2_5d.h"

#include <string>

#include "collectives/chunks.h"
#include "collectives/direct/queue.h"
#include "collectives/mesh.h"
#include "layers/tensor_parallel/agree.h"

namespace shardproof {
namespace {

// The tokens of depth `k`: those of its q rows. Cut over q again, they are the
// chunks of all d q rows, since the longer ones come first in both.
Chunk TokensOf(const TensorParallel2p5dConfig& config, int side, int k) {
  const int64_t rows = int64_t{config.depth} * side;
  const Chunk last =
      BalancedChunk(config.linear.tokens, rows, (k + 1) * side - 1);
  const int64_t begin =
      BalancedChunk(config.linear.tokens, rows, k * side).begin;
  return {begin, last.begin + last.count - begin};
}

MeshLinearConfig PlaneOf(const TensorParallel2p5dConfig& config, int side,
                         int k) {
  MeshLinearConfig plane = config.linear;
  plane.tokens = TokensOf(config, side, k).count;
  return plane;
}

Status AddOver(const Stream& stream, const Communicator& group,
               const CollectiveFamily& collectives, DType dtype, int64_t count,
               void* data) {
  return direct::Enqueue<AllReduceArgs>(
      stream, group,
      {.send = data, .recv = data, .count = count, .dtype = dtype},
      collectives.all_reduce);
}

}  // namespace

MeshLinearBlocks BlocksIn2p5d(const TensorParallel2p5dConfig& config, int side,
                              int rank) {
  const int k = rank / (side * side);
  MeshLinearBlocks blocks =
      BlocksIn2d(PlaneOf(config, side, k), side, rank % (side * side));
  const int64_t begin = TokensOf(config, side, k).begin;
  blocks.x.rows.begin += begin;
  blocks.y.rows.begin += begin;
  return blocks;
}

StatusOr<TensorParallel2p5dLinear> TensorParallel2p5dLinear::Create(
    const Communicator& comm, const TensorParallel2p5dConfig& config,
    const CollectiveFamily& collectives) {
  const std::string kind = fmt::format("on a mesh of depth {}", config.depth);
  SP_RETURN_IF_ERROR(CheckMeshLinear(comm, config.linear, kind));
  const std::string text = MeshLinearText(config.linear, kind);
  if (config.depth < 1) {
    return InvalidArgument("{}: the depth must be at least 1", text);
  }
  const int plane_ranks = comm.size() / config.depth;
  const int side = SquareSide(plane_ranks);
  if (side == 0 || plane_ranks * config.depth != comm.size()) {
    return InvalidArgument(
        "{}: {} ranks are no q x q x {} mesh; {}, {}, {} and so on are", text,
        comm.size(), config.depth, config.depth, int64_t{4} * config.depth,
        int64_t{9} * config.depth);
  }
  SP_ASSIGN_OR_RETURN(
      const Mesh mesh,
      Mesh::Create(comm, {{.name = "plane", .size = plane_ranks},
                          {.name = "depth", .size = config.depth}}));
  StatusOr<TensorParallel2dLinear> plane = TensorParallel2dLinear::Create(
      mesh.Along("plane"), PlaneOf(config, side, mesh.Coordinate("depth")),
      collectives);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, plane.status()));
  TensorParallel2p5dLinear layer(*std::move(plane));
  layer.config_ = config;
  layer.blocks_ = BlocksIn2p5d(config, side, comm.rank());
  layer.depth_ = mesh.Along("depth");
  layer.collectives_ = collectives;
  return layer;
}

Status TensorParallel2p5dLinear::Forward(const MeshLinearForwardArgs& args,
                                         const Stream& stream) const {
  return plane_.Forward(args, stream);
}

Status TensorParallel2p5dLinear::Backward(const MeshLinearBackwardArgs& args,
                                          const Stream& stream) const {
  SP_RETURN_IF_ERROR(plane_.Backward(args, stream));
  if (config_.depth == 1) return OkStatus();
  const DType dtype = config_.linear.dtype;
  SP_RETURN_IF_ERROR(
      AddOver(stream, depth_, collectives_, dtype, blocks_.w.count(), args.dw));
  // A row of ranks with the same depths has it or has it not.
  if (blocks_.b.count == 0) return OkStatus();
  return AddOver(stream, depth_, collectives_, dtype, blocks_.b.count, args.db);
}

Cost TensorParallel2p5dForwardCost(int ranks,
                                   const TensorParallel2p5dConfig& config,
                                   const CollectiveFamily& collectives) {
  const int plane_ranks = ranks / config.depth;
  const int side = SquareSide(plane_ranks);
  Cost cost;
  for (int k = 0; k < config.depth; ++k) {
    AddBeside(cost, TensorParallel2dForwardCost(
                        plane_ranks, PlaneOf(config, side, k), collectives));
  }
  return cost;
}

Cost TensorParallel2p5dBackwardCost(int ranks,
                                    const TensorParallel2p5dConfig& config,
                                    const CollectiveFamily& collectives) {
  const int plane_ranks = ranks / config.depth;
  const int side = SquareSide(plane_ranks);
  Cost cost, weights, biases;
  for (int k = 0; k < config.depth; ++k) {
    AddBeside(cost, TensorParallel2dBackwardCost(
                        plane_ranks, PlaneOf(config, side, k), collectives));
  }
  if (config.depth == 1) return cost;
  for (int rank = 0; rank < plane_ranks; ++rank) {
    const MeshLinearBlocks blocks = BlocksIn2p5d(config, side, rank);
    const auto all_reduce = [&](int64_t count) {
      return collectives.all_reduce_cost(
          config.depth, count, config.linear.dtype, collectives.memory);
    };
    AddBeside(weights, all_reduce(blocks.w.count()));
    if (blocks.b.count > 0) AddBeside(biases, all_reduce(blocks.b.count));
  }
  return cost + weights + biases;
}

}  // namespace shardproof
