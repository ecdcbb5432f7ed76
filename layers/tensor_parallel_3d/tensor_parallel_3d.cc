#include "layers/tensor_parallel_3d/tensor_parallel_3d.h"

#include <span>
#include <utility>

#include "collectives/chunks.h"
#include "collectives/direct/queue.h"
#include "collectives/mesh.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/gemm.h"
#include "layers/tensor_parallel/agree.h"

namespace shardproof {
namespace {

struct Position {
  int tokens = 0, in = 0, out = 0;
};

Position PositionOf(const TensorParallel3dConfig& config, int side, int rank) {
  const int middle = rank / side % side, inner = rank % side;
  return {.tokens = rank / (side * side),
          .in = config.swapped ? inner : middle,
          .out = config.swapped ? middle : inner};
}

// Chunk `index` of a chunk.
Chunk ChunkOf(const Chunk& whole, int side, int index) {
  const Chunk part = BalancedChunk(whole.count, side, index);
  return {whole.begin + part.begin, part.count};
}

// `rows` rows of `columns` elements, cut by rows.
std::vector<int64_t> CountsOf(int64_t rows, int64_t columns, int side) {
  std::vector<int64_t> counts;
  for (int r = 0; r < side; ++r) {
    counts.push_back(BalancedChunk(rows, side, r).count * columns);
  }
  return counts;
}

// What the ranks of `group` hold, one after another in `all`; on one rank, what
// it holds itself.
StatusOr<const void*> Gather(const Stream& stream, const Communicator& group,
                             const CollectiveFamily& collectives,
                             const AllGatherVArgs& args) {
  if (group.size() == 1) return args.send;
  SP_RETURN_IF_ERROR(direct::Enqueue<AllGatherVArgs>(stream, group, args,
                                                     collectives.all_gather));
  return static_cast<const void*>(args.recv);
}

// This rank's part of the sum of all terms; on one rank it is there already.
Status Scatter(const Stream& stream, const Communicator& group,
               const CollectiveFamily& collectives,
               const ReduceScatterVArgs& args) {
  if (group.size() == 1) return OkStatus();
  return direct::Enqueue<ReduceScatterVArgs>(stream, group, args,
                                             collectives.reduce_scatter);
}

}  // namespace

MeshLinearBlocks BlocksIn3d(const TensorParallel3dConfig& config, int side,
                            int rank) {
  const MeshLinearConfig& linear = config.linear;
  const Position at = PositionOf(config, side, rank);
  const Chunk tokens = BalancedChunk(linear.tokens, side, at.tokens);
  const Chunk in = BalancedChunk(linear.in, side, at.in);
  const Chunk out = BalancedChunk(linear.out, side, at.out);
  const Chunk w = ChunkOf(out, side, at.tokens);
  return {.x = {ChunkOf(tokens, side, at.out), in},
          .w = {w, in},
          .y = {ChunkOf(tokens, side, at.in), out},
          .b = {w.begin, linear.bias ? w.count : 0}};
}

StatusOr<TensorParallel3dLinear> TensorParallel3dLinear::Create(
    const Communicator& comm, const TensorParallel3dConfig& config,
    const CollectiveFamily& collectives) {
  const char* const kind =
      config.swapped ? "on a cube, in and out exchanged" : "on a cube";
  const MeshLinearConfig& linear = config.linear;
  SP_RETURN_IF_ERROR(CheckMeshLinear(comm, linear, kind));
  TensorParallel3dLinear layer;
  const int side = layer.side_ = CubeSide(comm.size());
  if (side == 0) {
    return InvalidArgument(
        "{}: {} ranks are no q x q x q cube; 1, 8, 27, 64 and so on are",
        MeshLinearText(linear, kind), comm.size());
  }
  layer.config_ = config;
  layer.collectives_ = collectives;
  layer.blocks_ = BlocksIn3d(config, side, comm.rank());
  const Position at = PositionOf(config, side, comm.rank());
  layer.tokens_ = BalancedChunk(linear.tokens, side, at.tokens).count;
  layer.in_ = BalancedChunk(linear.in, side, at.in).count;
  layer.out_ = BalancedChunk(linear.out, side, at.out).count;
  layer.counts_ = {.x = CountsOf(layer.tokens_, layer.in_, side),
                   .w = CountsOf(layer.out_, layer.in_, side),
                   .y = CountsOf(layer.tokens_, layer.out_, side),
                   .b = CountsOf(layer.out_, 1, side)};
  SP_ASSIGN_OR_RETURN(
      const Mesh mesh,
      Mesh::Create(comm, {{.name = config.swapped ? "in" : "out", .size = side},
                          {.name = config.swapped ? "out" : "in", .size = side},
                          {.name = "tokens", .size = side}}));
  layer.along_tokens_ = mesh.Along("tokens");
  layer.along_in_ = mesh.Along("in");
  layer.along_out_ = mesh.Along("out");
  if (side == 1) return layer;
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, layer.AllocateWorkspaces(comm)));
  return layer;
}

Status TensorParallel3dLinear::AllocateWorkspaces(const Communicator& comm) {
  const auto allocate = [&](int64_t count, Buffer* buffer) -> Status {
    SP_ASSIGN_OR_RETURN(*buffer, comm.Allocate(static_cast<size_t>(
                                     count * SizeOf(config_.linear.dtype))));
    return OkStatus();
  };
  SP_RETURN_IF_ERROR(allocate(tokens_ * in_, &x_));
  SP_RETURN_IF_ERROR(allocate(out_ * in_, &w_));
  SP_RETURN_IF_ERROR(allocate(out_ * in_, &w_term_));
  SP_RETURN_IF_ERROR(allocate(tokens_ * out_, &y_));
  return allocate(config_.linear.bias ? out_ : 0, &bias_);
}

Status TensorParallel3dLinear::Forward(const MeshLinearForwardArgs& args,
                                       const Stream& stream) const {
  SP_RETURN_IF_ERROR(RunForward(args, stream));
  forward_done_ = true;
  return OkStatus();
}

Status TensorParallel3dLinear::RunForward(const MeshLinearForwardArgs& args,
                                          const Stream& stream) const {
  const DType dtype = config_.linear.dtype;
  SP_ASSIGN_OR_RETURN(const void* const x,
                      Gather(stream, along_out_, collectives_,
                             {.send = args.x,
                              .recv = x_.data(),
                              .counts = counts_.x,
                              .dtype = dtype}));
  SP_ASSIGN_OR_RETURN(const void* const w,
                      Gather(stream, along_tokens_, collectives_,
                             {.send = args.w,
                              .recv = w_.data(),
                              .counts = counts_.w,
                              .dtype = dtype}));
  void* const term = side_ == 1 ? args.y : y_.data();
  SP_RETURN_IF_ERROR(Gemm(stream, {.a = {dtype, {tokens_, in_}, x},
                                   .b = {dtype, {out_, in_}, w},
                                   .transpose_b = true,
                                   .c = {dtype, {tokens_, out_}, term}}));
  SP_RETURN_IF_ERROR(Scatter(
      stream, along_in_, collectives_,
      {.send = term, .recv = args.y, .counts = counts_.y, .dtype = dtype}));
  if (!config_.linear.bias) return OkStatus();
  SP_ASSIGN_OR_RETURN(const void* const b,
                      Gather(stream, along_tokens_, collectives_,
                             {.send = args.b,
                              .recv = bias_.data(),
                              .counts = counts_.b,
                              .dtype = dtype}));
  return AddBias(stream, dtype, blocks_.y.rows.count, out_, b, args.y);
}

Status TensorParallel3dLinear::Backward(const MeshLinearBackwardArgs& args,
                                        const Stream& stream) const {
  if (!std::exchange(forward_done_, false)) {
    return InvalidArgument("a backward pass without a forward pass before it");
  }
  const DType dtype = config_.linear.dtype;
  const bool alone = side_ == 1;
  SP_ASSIGN_OR_RETURN(const void* const gathered,
                      Gather(stream, along_in_, collectives_,
                             {.send = args.dy,
                              .recv = y_.data(),
                              .counts = counts_.y,
                              .dtype = dtype}));
  const ConstTensorView dy(dtype, {tokens_, out_}, gathered);
  void* const dw = alone ? args.dw : w_term_.data();
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dy,
                    .transpose_a = true,
                    .b = {dtype, {tokens_, in_}, alone ? args.x : x_.data()},
                    .c = {dtype, {out_, in_}, dw}}));
  // Only now: it is made where x was.
  void* const dx = alone ? args.dx : x_.data();
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dy,
                    .b = {dtype, {out_, in_}, alone ? args.w : w_.data()},
                    .c = {dtype, {tokens_, in_}, dx}}));
  SP_RETURN_IF_ERROR(Scatter(
      stream, along_out_, collectives_,
      {.send = dx, .recv = args.dx, .counts = counts_.x, .dtype = dtype}));
  SP_RETURN_IF_ERROR(Scatter(
      stream, along_tokens_, collectives_,
      {.send = dw, .recv = args.dw, .counts = counts_.w, .dtype = dtype}));
  if (!config_.linear.bias) return OkStatus();
  void* const db = alone ? args.db : bias_.data();
  SP_RETURN_IF_ERROR(ColumnSum(stream, dtype, tokens_, out_, gathered, db));
  return Scatter(
      stream, along_tokens_, collectives_,
      {.send = db, .recv = args.db, .counts = counts_.b, .dtype = dtype});
}

namespace {

using CostOfCounts = Cost (*)(std::span<const int64_t>, DType, Memory);

// A matrix of rows x columns on a face, cut by rows over the third direction:
// the groups in that direction work side by side.
Cost OnFace(int side, int64_t rows, int64_t columns, DType dtype, Memory memory,
            CostOfCounts cost) {
  Cost all;
  if (side == 1) return all;
  for (int i = 0; i < side; ++i) {
    for (int j = 0; j < side; ++j) {
      AddBeside(all, cost(CountsOf(BalancedChunk(rows, side, i).count,
                                   BalancedChunk(columns, side, j).count, side),
                          dtype, memory));
    }
  }
  return all;
}

// The bias, over and over for each chunk of inputs.
Cost OfBias(int side, const MeshLinearConfig& linear, Memory memory,
            CostOfCounts cost) {
  Cost all;
  if (side == 1 || !linear.bias) return all;
  for (int l = 0; l < side; ++l) {
    const int64_t out = BalancedChunk(linear.out, side, l).count;
    for (int j = 0; j < side; ++j) {
      AddBeside(all, cost(CountsOf(out, 1, side), linear.dtype, memory));
    }
  }
  return all;
}

}  // namespace

Cost TensorParallel3dForwardCost(int ranks,
                                 const TensorParallel3dConfig& config,
                                 const CollectiveFamily& collectives) {
  const auto& [tokens, in, out, dtype, bias] = config.linear;
  const int side = CubeSide(ranks);
  const Memory memory = collectives.memory;
  const CostOfCounts gather = collectives.all_gather_cost;
  return OnFace(side, tokens, in, dtype, memory, gather) +
         OnFace(side, out, in, dtype, memory, gather) +
         OnFace(side, tokens, out, dtype, memory,
                collectives.reduce_scatter_cost) +
         OfBias(side, config.linear, memory, gather);
}

Cost TensorParallel3dBackwardCost(int ranks,
                                  const TensorParallel3dConfig& config,
                                  const CollectiveFamily& collectives) {
  const auto& [tokens, in, out, dtype, bias] = config.linear;
  const int side = CubeSide(ranks);
  const Memory memory = collectives.memory;
  const CostOfCounts scatter = collectives.reduce_scatter_cost;
  return OnFace(side, tokens, out, dtype, memory, collectives.all_gather_cost) +
         OnFace(side, tokens, in, dtype, memory, scatter) +
         OnFace(side, out, in, dtype, memory, scatter) +
         OfBias(side, config.linear, memory, scatter);
}

}  // namespace shardproof
