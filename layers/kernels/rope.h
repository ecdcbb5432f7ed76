// Rotary position embedding: every pair of components of a query or key is
// rotated by an angle that grows with the position of its token.
//
//     t = position theta^(-2 i / d)          i in [0, d / 2)
//
//     forward    y[i]         = x[i] cos t - x[i + d/2] sin t
//                y[i + d/2]   = x[i + d/2] cos t + x[i] sin t
//     backward   the rotation by -t, which is the transpose
//
// The pairs are (i, i + d/2), the layout of GPT-NeoX and of Llama's public
// weights, and not (2 i, 2 i + 1), that of the paper. Positions are global: a
// rank that holds a part of a sequence says which. Their angles are computed in
// extended precision, since in f32 that of position 131072 is good to two
// digits; cosines and sines are stored in the accumulator's type.
//
//     SP_ASSIGN_OR_RETURN(const RopeTable table,
//         RopeTable::Create({.dtype = DType::kBF16, .head_dim = 128,
//                            .theta = 500000}, positions));
//     SP_RETURN_IF_ERROR(Rope(stream, table, RopeDirection::kForward,
//                             {.tokens = 512, .heads = 32, .stride = 32 * 128,
//                              .x = q}));
//
// Source: Su et al., RoFormer, arXiv:2104.09864, section 3.4.2.
#ifndef SHARDPROOF_LAYERS_KERNELS_ROPE_H_
#define SHARDPROOF_LAYERS_KERNELS_ROPE_H_

#include <cstdint>
#include <span>

#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

struct RopeConfig {
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  int64_t head_dim = 0;       // Even.
  double theta = 10000;
};

// Cosines and sines of some positions.
class RopeTable {
 public:
  // One row per position. kInvalidArgument for an odd or negative head_dim or a
  // theta that is not positive; kUnsupported for the type; kOutOfMemory.
  static StatusOr<RopeTable> Create(const RopeConfig& config,
                                    std::span<const int64_t> positions);

  int64_t rows() const { return cosines_.shape()[0]; }
  const RopeConfig& config() const { return config_; }
  // [rows, head_dim / 2] of Accumulator(dtype).
  const void* cosines() const { return cosines_.raw(); }
  const void* sines() const { return sines_.raw(); }
  int64_t num_bytes() const {
    return cosines_.num_bytes() + sines_.num_bytes();
  }

 private:
  RopeTable() = default;

  RopeConfig config_;
  Tensor cosines_, sines_;
};

enum class RopeDirection { kForward, kBackward };

// Heads to rotate where they are: element (token, head, i) is number token *
// stride + head * head_dim + i of x. Token k is at the position of row k mod
// rows() of the table, so sequences of one length share it.
struct RopeArgs {
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t stride = 0;
  void* x = nullptr;
};

// Computed in the accumulator's type, rounded once.
Status Rope(const Stream& stream, const RopeTable& table,
            RopeDirection direction, const RopeArgs& args);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_ROPE_H_
