// Attention of a rank's queries, one part of the keys after the other: partial
// results are merged, partial gradients added up.
//
// Contract: queries are of `queries` runs, keys of as many runs as a part has;
// after Begin, an Add for each part of the keys in any order, and Finish, o and
// lse are those of all of them together. What sees nothing costs nothing: runs
// of which no query sees a key are not computed.
//
//     SP_RETURN_IF_ERROR(attention.Begin(q, o, lse));
//     for (each part) SP_RETURN_IF_ERROR(attention.Add({runs, k, v}));
//     SP_RETURN_IF_ERROR(attention.Finish());
//
//     SP_RETURN_IF_ERROR(attention.BeginBackward({..}));
//     for (each part) {
//       SP_RETURN_IF_ERROR(attention.AddGradients({runs, k, v}, dk, dv));
//     }
//     SP_RETURN_IF_ERROR(attention.FinishBackward(dq));
//
// Arithmetic: partial results, their lse and partial gradients are of the
// accumulator's type (f32; f64 for f64). A query's part is one result per run of
// keys that it may see, so p parts of k runs are p k - 1 merges. The backward
// pass has the final lse and the delta of the final O, as it is stored.
//
// Source: Liu et al., Ring Attention with Blockwise Transformers,
// arXiv:2310.01889, section 3.
#ifndef SHARDPROOF_ATTENTION_SHARDED_PARTIAL_ATTENTION_H_
#define SHARDPROOF_ATTENTION_SHARDED_PARTIAL_ATTENTION_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "attention/kernels/flash.h"
#include "attention/sharded/sharded_attention.h"
#include "attention/visibility.h"
#include "reference/dtype.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

// Keys and values [sequences, tokens of the runs, kv_heads, head_dim].
struct KeyPart {
  std::span<const TokenRun> runs;
  const void* k = nullptr;
  const void* v = nullptr;
  // That each sequence has room for, where they are more than those of the runs.
  int64_t capacity = 0;

  int64_t tokens() const {
    return capacity != 0 ? capacity : CountTokens(runs);
  }
};

class PartialAttention {
 public:
  // `shape` is of this rank's heads; its `queries` and `keys` are those of the
  // longest runs. A local call that asks for all memory that is ever needed;
  // errors are those of FlashAttention::Create.
  static StatusOr<PartialAttention> Create(
      const FlashShape& shape, const Visibility& visibility,
      std::vector<TokenRun> queries, const AttentionKernels& kernels = {});

  // q and o [sequences, tokens, heads, head_dim], lse [sequences, heads,
  // tokens].
  Status Begin(const void* q, void* o, void* lse);
  Status Add(const KeyPart& part);
  Status Finish();
  // As Begin, with an o of the accumulator's type that Finish does not round: a
  // result that is to be merged with those of other ranks.
  Status BeginPartial(const void* q, void* o, void* lse);
  // Moves all queries, so that the first is at the position `first`.
  void MoveQueries(int64_t first);

  // dk and dv of AddGradients [sequences, tokens of the runs, kv_heads,
  // head_dim] of the accumulator's type, which this adds to; dq of the shape's.
  Status BeginBackward(const AttentionBackwardArgs& args);
  Status AddGradients(const KeyPart& part, void* dk, void* dv);
  Status FinishBackward(void* dq);

  // Runs of no query are none.
  const std::vector<TokenRun>& queries() const { return queries_; }
  int64_t tokens() const { return tokens_; }
  // What it works in, in bytes.
  int64_t working_bytes() const;

 private:
  PartialAttention(const FlashShape& shape, const Visibility& visibility,
                   std::vector<TokenRun> queries,
                   const AttentionKernels& kernels);
  Status Allocate();

  // Elements of a token of q, and of k.
  int64_t q_width() const { return shape_.heads * shape_.head_dim; }
  int64_t k_width() const { return shape_.kv_heads * shape_.head_dim; }
  // Tokens from `row` on, of `tokens` in each sequence.
  template <class Void>
  TokensIn<Void> Rows(Void* data, DType dtype, int64_t width, int64_t tokens,
                      int64_t row) const;
  template <class Void>
  PerQueryIn<Void> Numbers(Void* data, int64_t row) const;
  // Calls f(query run, its row, key run, its row) for those that have a pair.
  template <class F>
  Status EachPair(std::span<const TokenRun> keys, const F& f) const;
  void* partial_o() const;
  void SetUnseen(int64_t row, int64_t count) const;

  FlashShape shape_;
  Visibility visibility_;
  std::vector<TokenRun> queries_;
  AttentionKernels kernels_;
  DType wide_;
  int64_t tokens_;
  std::unique_ptr<FlashAttention> flash_;
  std::vector<bool> started_;  // Of each run.
  Tensor o_;                   // Of the accumulator's type, where o is not.
  Tensor o_b_, lse_b_;         // Of a run, to be merged.
  Tensor delta_, dq_;

  const void* q_ = nullptr;
  void* out_ = nullptr;
  bool rounds_ = true;  // out_ is of the shape's type.
  void* lse_ = nullptr;
  AttentionBackwardArgs backward_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_SHARDED_PARTIAL_ATTENTION_H_
