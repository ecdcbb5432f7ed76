// Partial results of attention made one: of the same queries with different
// keys, and what its backward pass needs of the whole.
//
// Contract, for each query and head, with (O, lse) of some keys and (O_b, lse_b)
// of others:
//
//     merge    d = lse_b - lse      O += sigmoid(d) (O_b - O)
//              lse = max(lse, lse_b) + log1p(exp(-|d|))
//     delta    sum over the head's elements of dO O
//
// where lse_b is -inf O and lse keep their bits, where only lse is they become
// those of O_b; so 0 and -inf where both are. The order of merges changes
// roundings only.
//
//     SP_RETURN_IF_ERROR(MergeAttention(stream,
//         {.dtype = DType::kF32, .queries = 1024, .heads = 32, .head_dim = 128,
//          .o = {o, 32 * 128}, .lse = {lse},
//          .o_b = {o_b, 32 * 128}, .lse_b = {lse_b}}));
//
// Rejected: exp(lse_b) / (exp(lse) + exp(lse_b)), which overflows from an lse of
// 89 on.
//
// Sources: Liu et al., arXiv:2310.01889 (blocks around a ring); Dao,
// arXiv:2307.08691, section 3.1.2 (delta).
#ifndef SHARDPROOF_ATTENTION_KERNELS_MERGE_H_
#define SHARDPROOF_ATTENTION_KERNELS_MERGE_H_

#include <cstdint>

#include "attention/kernels/flash.h"
#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct MergeArgs {
  DType dtype = DType::kF32;  // Of everything: f32 or f64.
  int64_t sequences = 1;
  int64_t queries = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  Tokens o = {};
  PerQuery lse = {};
  ConstTokens o_b = {};
  ConstPerQuery lse_b = {};
};
// kInvalidArgument for a negative size, kUnsupported for another type.
Status MergeAttention(const Stream& stream, const MergeArgs& args);

struct DeltaArgs {
  DType dtype = DType::kF32;   // Of d_o: f64, f32, bf16 or f16.
  DType o_type = DType::kF32;  // dtype or its accumulator.
  int64_t sequences = 1;
  int64_t queries = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  ConstTokens d_o = {}, o = {};
  PerQuery delta = {};  // Of the accumulator's type.
};
// The same.
Status AttentionDelta(const Stream& stream, const DeltaArgs& args);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_KERNELS_MERGE_H_
