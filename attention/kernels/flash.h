// Attention of one block of queries to one block of keys, tile by tile, in
// memory that is linear in the sequence.
//
// Contract, for each sequence and head h with its KV head g(h) = (h +
// first_in_group) / heads_per_kv, over the keys that each query sees:
//
//     forward    S = scale Q K^T      lse = ln sum exp S      O = exp(S - lse) V
//     backward   P = exp(S - lse)     dS = P (dO V^T - delta)
//                dQ += scale dS K     dK += scale dS^T Q      dV += P^T dO
//
// and O = 0, lse = -inf for a query that sees no key. lse is a natural logarithm
// and of the accumulator's type (f32; f64 for f64). The backward pass takes the
// lse and delta = rowsum(dO * O) of the *final* O, of all blocks of keys
// together (merge.h), and adds to dQ, dK and dV, of the accumulator's type.
//
//     SP_ASSIGN_OR_RETURN(const std::unique_ptr<FlashAttention> flash,
//         FlashAttention::Create({.queries = 1024, .keys = 1024, .heads = 32,
//                                 .kv_heads = 8, .heads_per_kv = 4,
//                                 .head_dim = 128,
//                                 .scale = 1 / std::sqrt(128),
//                                 .dtype = DType::kBF16}));
//     const Visibility causal = {.causal = true};
//     SP_RETURN_IF_ERROR(flash->Forward(stream,
//         {.block = {.queries = {.offset = 3072, .count = 1024},
//                    .keys = {.count = 1024},
//                    .visibility = &causal},
//          .q = {q, 32 * 128}, .k = {k, 8 * 128}, .v = {v, 8 * 128},
//          .o = {o, 32 * 128}, .o_type = DType::kF32,
//          .lse = {lse}}));
//
// Arithmetic: scores, sums and O are of the accumulator's type, O and the sum
// are rescaled when a tile of keys has a larger score than all before; exp(S -
// max) and dS are rounded to ProductType(dtype) (tile_product.h) before they are
// multiplied: to bf16 where the machine multiplies bf16, and not at all
// otherwise. An exp errs by 2^-18 at most where it is rounded to bf16, by two
// units of the roundoff elsewhere. O is rounded to `o_type` once.
//
// Sources: Milakov and Gimelshein, arXiv:1805.02867 (online softmax); Dao et
// al., arXiv:2205.14135 (tiles, recomputation); Dao, arXiv:2307.08691 (order of
// the loops, delta).
#ifndef SHARDPROOF_ATTENTION_KERNELS_FLASH_H_
#define SHARDPROOF_ATTENTION_KERNELS_FLASH_H_

#include <cstdint>
#include <memory>

#include "attention/visibility.h"
#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct FlashShape {
  int64_t sequences = 1;
  int64_t queries = 0;  // Of each sequence, at most.
  int64_t keys = 0;     // The same.
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t heads_per_kv = 1;
  int64_t first_in_group = 0;  // In [0, heads_per_kv).
  int64_t head_dim = 0;
  double scale = 1;           // Not negative.
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  bool backward = true;       // Else Backward may not be called.

  int64_t KvHeadOf(int64_t head) const {
    return (head + first_in_group) / heads_per_kv;
  }
};

// Element (sequence, token, head, i) is number sequence * sequence_stride +
// token * stride + head * head_dim + i of data. `Void` is void or const void.
template <class Void>
struct TokensIn {
  Void* data = nullptr;
  int64_t stride = 0;
  int64_t sequence_stride = 0;  // 0: tokens * stride.
};
using Tokens = TokensIn<void>;
using ConstTokens = TokensIn<const void>;

// A number per query, of the accumulator's type: (sequence, head, query) is
// number (sequence * heads + head) * stride + query.
template <class Void>
struct PerQueryIn {
  Void* data = nullptr;
  int64_t stride = 0;  // 0: queries.
};
using PerQuery = PerQueryIn<void>;
using ConstPerQuery = PerQueryIn<const void>;

// No more tokens than the shape says. `visibility` outlives the call's work.
struct FlashBlock {
  TokenRun queries;
  TokenRun keys;
  const Visibility* visibility = nullptr;
};

// Of one thread at a time, or of one stream.
class FlashAttention {
 public:
  struct ForwardArgs {
    FlashBlock block;
    ConstTokens q, k, v;
    Tokens o;
    // shape.dtype, or its accumulator for a partial result that is merged.
    DType o_type = DType::kF32;
    PerQuery lse;
  };
  struct BackwardArgs {
    FlashBlock block;
    ConstTokens q, k, v, d_o;
    ConstPerQuery lse, delta;
    Tokens dq, dk, dv;       // Of the accumulator's type.
    bool overwrite = false;  // Instead of adding.
  };

  // A local call that asks for all memory that is ever needed.
  // kInvalidArgument for sizes that are negative or heads that have no KV head;
  // kUnsupported for the type; kOutOfMemory.
  static StatusOr<std::unique_ptr<FlashAttention>> Create(
      const FlashShape& shape);
  // The same, whatever else the rank could compute with (flash_kernels.h).
  static StatusOr<std::unique_ptr<FlashAttention>> CreateOnHost(
      const FlashShape& shape);

  FlashAttention() = default;
  FlashAttention(const FlashAttention&) = delete;
  FlashAttention& operator=(const FlashAttention&) = delete;
  virtual ~FlashAttention() = default;

  // kInvalidArgument for runs that are too long or are none, for no visibility
  // or an o_type that is neither.
  virtual Status Forward(const Stream& stream, const ForwardArgs& args) = 0;
  virtual Status Backward(const Stream& stream, const BackwardArgs& args) = 0;
  virtual int64_t working_bytes() const = 0;
};

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_KERNELS_FLASH_H_
