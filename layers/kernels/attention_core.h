// The core of attention, from queries, keys and values to outputs: what lies
// between the projections, and what a faster kernel replaces.
//
// Contract, for each sequence by itself, each head h with its KV head g(h), Q =
// q[:, h] [queries, d], K, V = k[:, g], v[:, g] [keys, d]:
//
//     forward    P  = softmax(scale Q K^T)             O  = P V
//     backward   dP = dO V^T        dV = sum over the heads of g of P^T dO
//                dS = scale P (dP - rowsum(P dP))
//                dQ = dS K          dK = sum over the heads of g of dS^T Q
//
// Causal, the query at position i of a sequence sees the keys at positions j
// with j + key_offset <= i + query_offset: offsets say where in the whole
// sequence a part of it begins. A query that sees no key gets zeros.
//
// Heads are grouped: g(h) = (h + first_in_group) / heads_per_kv, so that a rank
// may hold a part of a group. Multi-head attention has heads_per_kv 1,
// multi-query attention one group.
//
//     SP_ASSIGN_OR_RETURN(const std::unique_ptr<AttentionCore> core,
//         CreatePlainAttention({.queries = 512, .keys = 512, .heads = 32,
//                               .kv_heads = 8, .heads_per_kv = 4,
//                               .head_dim = 128, .causal = true,
//                               .scale = 1 / std::sqrt(128)}));
//     SP_RETURN_IF_ERROR(core->Forward(stream, {.q = {q, 32 * 128},
//                                               .k = {k, 8 * 128},
//                                               .v = {v, 8 * 128},
//                                               .o = {o, 32 * 128}}));
//
// Sources: Vaswani et al., arXiv:1706.03762, section 3.2; Shazeer,
// arXiv:1911.02150 (multi-query); Ainslie et al., arXiv:2305.13245 (grouped).
#ifndef SHARDPROOF_LAYERS_KERNELS_ATTENTION_CORE_H_
#define SHARDPROOF_LAYERS_KERNELS_ATTENTION_CORE_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct AttentionShape {
  int64_t sequences = 1;
  int64_t queries = 0;  // Of each sequence.
  int64_t keys = 0;     // The same.
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t heads_per_kv = 1;
  int64_t first_in_group = 0;  // In [0, heads_per_kv).
  int64_t head_dim = 0;
  bool causal = false;
  int64_t query_offset = 0;
  int64_t key_offset = 0;
  double scale = 1;
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  // The backward pass makes the probabilities again instead of finding them
  // kept: selective recomputation (Korthikanti et al., arXiv:2205.05198,
  // section 5). The same bits either way.
  bool recompute = false;

  int64_t KvHeadOf(int64_t head) const {
    return (head + first_in_group) / heads_per_kv;
  }
};

// Element (token, head, i) is number token * stride + head * head_dim + i of
// data; token is sequence * length + position. `Void` is void or const void.
template <class Void>
struct HeadsIn {
  Void* data = nullptr;
  int64_t stride = 0;
};
using Heads = HeadsIn<void>;
using ConstHeads = HeadsIn<const void>;

class AttentionCore {
 public:
  struct ForwardArgs {
    ConstHeads q, k, v;
    Heads o;
  };
  // q, k, v as in the last Forward, and o as it left it.
  struct BackwardArgs {
    ConstHeads q, k, v, o;
    ConstHeads d_o;
    Heads dq, dk, dv;
  };

  virtual ~AttentionCore() = default;
  virtual Status Forward(const Stream& stream, const ForwardArgs& args) = 0;
  // The gradients of the last Forward.
  virtual Status Backward(const Stream& stream, const BackwardArgs& args) = 0;
  // What Forward leaves for Backward, in bytes, and what either works in.
  virtual int64_t kept_bytes() const = 0;
  virtual int64_t working_bytes() const = 0;
};

// Asks for all memory that the core ever needs. A local call, or, where the
// factory holds a communicator, a collective one over that.
using AttentionCoreFactory =
    std::function<StatusOr<std::unique_ptr<AttentionCore>>(
        const AttentionShape&)>;

// Head by head and with all scores of a head in memory: the obvious core, and
// the one that others are measured against. Scores, products and sums are of
// the accumulator's type; the probabilities are rounded to `dtype` once, before
// anything is made of them; outputs and gradients are rounded once. Keeps
// sequences x heads x queries x keys probabilities, or one head's where they
// are recomputed.
//
// kInvalidArgument for a negative size or heads that have no KV head;
// kUnsupported for the type; kOutOfMemory.
StatusOr<std::unique_ptr<AttentionCore>> CreatePlainAttention(
    const AttentionShape& shape);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_ATTENTION_CORE_H_
