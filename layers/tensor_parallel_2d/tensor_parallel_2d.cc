#include "layers/tensor_parallel_2d/tensor_parallel_2d.h"

#include "collectives/chunks.h"
#include "collectives/direct/queue.h"
#include "collectives/mesh.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/gemm.h"
#include "layers/tensor_parallel/agree.h"

namespace shardproof {
namespace {

// What the root of `group` has: there, on one rank; else a copy at args.recv.
StatusOr<const void*> Panel(const Stream& stream, const Communicator& group,
                            const CollectiveFamily& collectives,
                            const BroadcastArgs& args) {
  if (group.size() == 1) return args.send;
  SP_RETURN_IF_ERROR(direct::Enqueue<BroadcastArgs>(stream, group, args,
                                                    collectives.broadcast));
  return static_cast<const void*>(args.recv);
}

}  // namespace

MeshLinearBlocks BlocksIn2d(const MeshLinearConfig& config, int side,
                            int rank) {
  const int row = rank / side, column = rank % side;
  const Chunk tokens = BalancedChunk(config.tokens, side, row);
  const Chunk out = BalancedChunk(config.out, side, column);
  return {.x = {tokens, BalancedChunk(config.in, side, column)},
          .w = {out, BalancedChunk(config.in, side, row)},
          .y = {tokens, out},
          .b = {out.begin, row == 0 && config.bias ? out.count : 0}};
}

StatusOr<TensorParallel2dLinear> TensorParallel2dLinear::Create(
    const Communicator& comm, const MeshLinearConfig& config,
    const CollectiveFamily& collectives) {
  const char* const kind = "on a square mesh";
  SP_RETURN_IF_ERROR(CheckMeshLinear(comm, config, kind));
  TensorParallel2dLinear layer;
  layer.side_ = SquareSide(comm.size());
  if (layer.side_ == 0) {
    return InvalidArgument(
        "{}: {} ranks are no q x q mesh; 1, 4, 9, 16 and so on are",
        MeshLinearText(config, kind), comm.size());
  }
  layer.config_ = config;
  layer.collectives_ = collectives;
  layer.blocks_ = BlocksIn2d(config, layer.side_, comm.rank());
  SP_ASSIGN_OR_RETURN(
      const Mesh mesh,
      Mesh::Create(comm, {{.name = "column", .size = layer.side_},
                          {.name = "row", .size = layer.side_}}));
  layer.row_ = mesh.Along("column");
  layer.column_ = mesh.Along("row");
  if (layer.side_ == 1) return layer;
  // The first step's inputs are the most.
  const auto allocate = [&](int64_t rows, int64_t columns,
                            Buffer* buffer) -> Status {
    SP_ASSIGN_OR_RETURN(*buffer, comm.Allocate(static_cast<size_t>(
                                     rows * columns * SizeOf(config.dtype))));
    return OkStatus();
  };
  const auto make = [&]() -> Status {
    const MeshBlock& y = layer.blocks_.y;
    SP_RETURN_IF_ERROR(
        allocate(y.rows.count, layer.InputsOf(0), &layer.x_panel_));
    SP_RETURN_IF_ERROR(
        allocate(y.columns.count, layer.InputsOf(0), &layer.w_panel_));
    return allocate(config.bias ? 1 : 0, y.columns.count, &layer.bias_);
  };
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, make()));
  return layer;
}

Status TensorParallel2dLinear::Forward(const MeshLinearForwardArgs& args,
                                       const Stream& stream) const {
  const DType dtype = config_.dtype;
  const int64_t tokens = blocks_.y.rows.count, out = blocks_.y.columns.count;
  for (int step = 0; step < side_; ++step) {
    const int64_t in = InputsOf(step);
    SP_ASSIGN_OR_RETURN(const void* const x, Panel(stream, row_, collectives_,
                                                   {.send = args.x,
                                                    .recv = x_panel_.data(),
                                                    .count = tokens * in,
                                                    .dtype = dtype,
                                                    .root = step}));
    SP_ASSIGN_OR_RETURN(const void* const w,
                        Panel(stream, column_, collectives_,
                              {.send = args.w,
                               .recv = w_panel_.data(),
                               .count = out * in,
                               .dtype = dtype,
                               .root = step}));
    SP_RETURN_IF_ERROR(Gemm(stream, {.a = {dtype, {tokens, in}, x},
                                     .b = {dtype, {out, in}, w},
                                     .transpose_b = true,
                                     .c = {dtype, {tokens, out}, args.y},
                                     .accumulate = step > 0}));
  }
  if (!config_.bias) return OkStatus();
  SP_ASSIGN_OR_RETURN(const void* const b, Panel(stream, column_, collectives_,
                                                 {.send = args.b,
                                                  .recv = bias_.data(),
                                                  .count = out,
                                                  .dtype = dtype}));
  return AddBias(stream, dtype, tokens, out, b, args.y);
}

Status TensorParallel2dLinear::Backward(const MeshLinearBackwardArgs& args,
                                        const Stream& stream) const {
  SP_RETURN_IF_ERROR(InputGrad(args, stream));
  SP_RETURN_IF_ERROR(WeightGrad(args, stream));
  if (!config_.bias) return OkStatus();
  const int64_t tokens = blocks_.y.rows.count, out = blocks_.y.columns.count;
  if (side_ == 1) {
    return ColumnSum(stream, config_.dtype, tokens, out, args.dy, args.db);
  }
  SP_RETURN_IF_ERROR(
      ColumnSum(stream, config_.dtype, tokens, out, args.dy, bias_.data()));
  return direct::Enqueue<ReduceArgs>(stream, column_,
                                     {.send = bias_.data(),
                                      .recv = args.db,
                                      .count = out,
                                      .dtype = config_.dtype},
                                     collectives_.reduce);
}

Status TensorParallel2dLinear::InputGrad(const MeshLinearBackwardArgs& args,
                                         const Stream& stream) const {
  const DType dtype = config_.dtype;
  const int64_t tokens = blocks_.y.rows.count, out = blocks_.y.columns.count;
  for (int step = 0; step < side_; ++step) {
    const int64_t in = InputsOf(step);
    SP_ASSIGN_OR_RETURN(const void* const w,
                        Panel(stream, column_, collectives_,
                              {.send = args.w,
                               .recv = w_panel_.data(),
                               .count = out * in,
                               .dtype = dtype,
                               .root = step}));
    void* const term = side_ == 1 ? args.dx : x_panel_.data();
    SP_RETURN_IF_ERROR(Gemm(stream, {.a = {dtype, {tokens, out}, args.dy},
                                     .b = {dtype, {out, in}, w},
                                     .c = {dtype, {tokens, in}, term}}));
    if (side_ == 1) return OkStatus();
    SP_RETURN_IF_ERROR(direct::Enqueue<ReduceArgs>(stream, row_,
                                                   {.send = term,
                                                    .recv = args.dx,
                                                    .count = tokens * in,
                                                    .dtype = dtype,
                                                    .root = step},
                                                   collectives_.reduce));
  }
  return OkStatus();
}

Status TensorParallel2dLinear::WeightGrad(const MeshLinearBackwardArgs& args,
                                          const Stream& stream) const {
  const DType dtype = config_.dtype;
  const int64_t tokens = blocks_.y.rows.count, out = blocks_.y.columns.count;
  for (int step = 0; step < side_; ++step) {
    const int64_t in = InputsOf(step);
    SP_ASSIGN_OR_RETURN(const void* const x, Panel(stream, row_, collectives_,
                                                   {.send = args.x,
                                                    .recv = x_panel_.data(),
                                                    .count = tokens * in,
                                                    .dtype = dtype,
                                                    .root = step}));
    void* const term = side_ == 1 ? args.dw : w_panel_.data();
    SP_RETURN_IF_ERROR(Gemm(stream, {.a = {dtype, {tokens, out}, args.dy},
                                     .transpose_a = true,
                                     .b = {dtype, {tokens, in}, x},
                                     .c = {dtype, {out, in}, term}}));
    if (side_ == 1) return OkStatus();
    SP_RETURN_IF_ERROR(direct::Enqueue<ReduceArgs>(stream, column_,
                                                   {.send = term,
                                                    .recv = args.dw,
                                                    .count = out * in,
                                                    .dtype = dtype,
                                                    .root = step},
                                                   collectives_.reduce));
  }
  return OkStatus();
}

namespace {

// One after another in steps and kinds, side by side in rows and columns.
class Sent {
 public:
  Sent(int ranks, const MeshLinearConfig& config,
       const CollectiveFamily& collectives)
      : side_(SquareSide(ranks)), config_(config), collectives_(collectives) {}

  // Blocks of x, or terms of dx, along rows.
  Cost X(Cost (*cost)(int, int64_t, DType, Memory)) const {
    return Panels(config_.tokens, cost);
  }
  // Blocks of w, or terms of dw, along columns.
  Cost W(Cost (*cost)(int, int64_t, DType, Memory)) const {
    return Panels(config_.out, cost);
  }
  Cost B(Cost (*cost)(int, int64_t, DType, Memory)) const {
    return config_.bias ? Beside(config_.out, 1, cost) : Cost{};
  }

 private:
  Cost Panels(int64_t total, Cost (*cost)(int, int64_t, DType, Memory)) const {
    Cost all;
    for (int step = 0; step < side_; ++step) {
      all += Beside(total, BalancedChunk(config_.in, side_, step).count, cost);
    }
    return all;
  }
  Cost Beside(int64_t total, int64_t columns,
              Cost (*cost)(int, int64_t, DType, Memory)) const {
    Cost all;
    if (side_ == 1) return all;
    for (int i = 0; i < side_; ++i) {
      const int64_t rows = BalancedChunk(total, side_, i).count;
      AddBeside(
          all, cost(side_, rows * columns, config_.dtype, collectives_.memory));
    }
    return all;
  }

  int side_;
  const MeshLinearConfig& config_;
  const CollectiveFamily& collectives_;
};

}  // namespace

Cost TensorParallel2dForwardCost(int ranks, const MeshLinearConfig& config,
                                 const CollectiveFamily& collectives) {
  const Sent sent(ranks, config, collectives);
  const auto broadcast = collectives.broadcast_cost;
  return sent.X(broadcast) + sent.W(broadcast) + sent.B(broadcast);
}

Cost TensorParallel2dBackwardCost(int ranks, const MeshLinearConfig& config,
                                  const CollectiveFamily& collectives) {
  const Sent sent(ranks, config, collectives);
  const auto broadcast = collectives.broadcast_cost;
  const auto reduce = collectives.reduce_cost;
  return sent.W(broadcast) + sent.X(reduce) + sent.X(broadcast) +
         sent.W(reduce) + sent.B(reduce);
}

}  // namespace shardproof
