// The sequence-parallel ends of column- and row-parallel linear layers in
// chunks: what one chunk needs is sent while another is multiplied.
//
// Contract: the layers of column_parallel_linear.h and row_parallel_linear.h
// with sequence_parallel, to the bit where sums are exact. For rank r of t, x_r
// and y_r the rank's tokens, o_r and i_r its BalancedChunk of outputs or inputs,
// X = all_gather x_r and DY = all_gather dy_r:
//
//              column (w_r = w[o_r])            row (w_r = w[:, i_r])
//     forward  y    = X w_r^T + b_r             y_r = reduce_scatter x w_r^T, + b
//     backward dx_r = reduce_scatter dy w_r     dx  = DY w_r
//              dw_r = dy^T X, gathered again    dw_r = DY^T x
//              db_r = sum over tokens of dy     db  = sum over tokens of DY
//
// All four are one of two forms, each the other's backward pass: all_gather +
// GEMM, which multiplies the tokens of another rank as they arrive, its own
// first; and GEMM + reduce_scatter, which multiplies the tokens of another rank
// and sends them, its own last. overlap_schedule.h has the steps.
//
// What is sent is what the collectives send, rho tokens in (out) e bytes per
// rank and gather or scatter, rho = (t - 1)/t, in C messages for each pair of
// ranks; terms of a sum are added by the rank that they are for, in the order of
// ranks and with one rounding, as ReduceScatterDirect does.
//
//     kChunked         every chunk is sent, then multiplied: what chunks cost
//     kOverlapped      non-blocking messages, started before a product and
//                      waited for behind it
//     kMessageThread   the same, and a thread of the rank's own waits for them
//
// What limits: with non-blocking messages alone the wire must work by itself, as
// a network card does. Ranks that share memory have none: the message is a copy
// that a core makes, in Wait, and kOverlapped then only moves it behind the
// product. kMessageThread lends it a thread, which is overlap where there is a
// core for it, and where the products do not need the memory's whole bandwidth;
// with as many ranks as cores it takes the time from the products, and chunks
// cost what smaller products lose (w is read again for each). Nothing is claimed
// but what the benchmark shows, beside the collective and the product in one
// piece:
//
//     bazel run //layers:overlap_bench -- --ranks=2
//
//     SP_ASSIGN_OR_RETURN(OverlapLinear layer,
//         OverlapLinear::Create(comm, {.kind = OverlapKind::kColumn,
//                                      .tokens = 512, .in = 4096,
//                                      .out = 14336, .chunks = 4}));
//     SP_RETURN_IF_ERROR(layer.Forward({.x = x, .w = w, .b = b, .y = y}));
//
// Rejected: accumulating dw chunk by chunk as X arrives, which rounds a bf16
// gradient once per chunk.
//
// Sources: Wang et al., Overlap Communication with Dependent Computation via
// Decomposition in Large Deep Learning Models, ASPLOS 2023 (with a ring in the
// place of pairs); Megatron-LM's tp_comm_overlap; Korthikanti et al.,
// arXiv:2205.05198, section 4.2.2.
#ifndef SHARDPROOF_LAYERS_OVERLAP_OVERLAP_H_
#define SHARDPROOF_LAYERS_OVERLAP_OVERLAP_H_

#include <cstdint>
#include <memory>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/overlap/overlap_schedule.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

enum class OverlapKind : uint8_t { kColumn, kRow };
enum class OverlapMode : uint8_t { kChunked, kOverlapped, kMessageThread };

// Sizes of the whole layer, equal on all ranks. Any of them may be smaller than
// the number of ranks, or 0.
struct OverlapConfig {
  OverlapKind kind = OverlapKind::kColumn;
  int64_t tokens = 0;
  int64_t in = 0;
  int64_t out = 0;
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  bool bias = false;
  // Of the tokens of one rank; more than it has tokens are as many as those.
  int chunks = 1;
  OverlapMode mode = OverlapMode::kOverlapped;
};

// Of a backward pass that scatters and gathers, 2 (t - 1) C: a schedule of as
// many is about 100 MiB long.
inline constexpr int64_t kMostOverlapExchanges = int64_t{1} << 20;

struct OverlapSchedules {
  OverlapSchedule forward;
  OverlapSchedule backward;
};
OverlapSchedules PlanOverlap(const OverlapConfig& config, int ranks, int rank);

class OverlapLinear {
 public:
  // This rank's parts, row-major, of the layer's type. Empty parts may be null;
  // so may the bias in a layer without. Nothing may overlap.
  struct ForwardArgs {
    const void* x = nullptr;  // [own tokens, in], or [tokens, i_r]
    const void* w = nullptr;  // [o_r, in], or [out, i_r]
    const void* b = nullptr;  // [o_r], or [out]
    void* y = nullptr;        // [tokens, o_r], or [own tokens, out]
  };
  struct BackwardArgs {
    const void* x = nullptr;
    const void* w = nullptr;
    const void* dy = nullptr;  // as y
    void* dx = nullptr;        // as x
    void* dw = nullptr;        // as w
    void* db = nullptr;        // as b
  };

  // Collective; the same error on every rank: kInvalidArgument for a negative
  // size, for less than one chunk, for more than kMostOverlapExchanges, or where
  // ranks differ; kUnsupported for the type; kOutOfMemory for the workspaces, which are all the memory that the
  // layer ever asks for: tokens x in (out) gathered, and, to scatter, as much
  // again twice. kUnavailable where no thread can be started.
  static StatusOr<OverlapLinear> Create(const Communicator& comm,
                                        const OverlapConfig& config);
  // The same with schedules of the caller's, for each rank its own.
  static StatusOr<OverlapLinear> Create(const Communicator& comm,
                                        const OverlapConfig& config,
                                        OverlapSchedules schedules);

  // Collective. Errors are those of the transport.
  Status Forward(const ForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  Status Backward(const BackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  // |o_r| or |i_r|, and the tokens of the rank's own.
  int64_t local_features() const;
  int64_t local_tokens() const;

 private:
  class State;
  explicit OverlapLinear(std::shared_ptr<State> state);
  // Of what has been checked.
  static StatusOr<OverlapLinear> Make(const Communicator& comm,
                                      const OverlapConfig& config,
                                      OverlapSchedules schedules);

  std::shared_ptr<State> state_;
};

// What one pass sends.
Cost OverlapForwardCost(int ranks, const OverlapConfig& config);
Cost OverlapBackwardCost(int ranks, const OverlapConfig& config);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_OVERLAP_OVERLAP_H_
