// From some tokens of all heads to all tokens of some heads, and back, by
// all_to_all: the two ends of an attention that is computed head by head while
// tokens lie on different ranks.
//
// Contract, for P ranks that share n tokens of S sequences, of which rank r has
// n_r with all H query and G KV heads, and after the exchange all n with the H_r
// and G_r of HeadShare::Of(H, G, P, r):
//
//     ToHeads             q, k, v    [S, n_r, H or G, d] to [S, n, H_r or G_r, d]
//     ToTokens            o, lse     [S, n, H_r, d] to [S, n_r, H, d],
//                                    [S, H_r, n] to [S, H, n_r]
//     GradientsToHeads    dO         as q
//     GradientsToTokens   dq         as o
//                         dk, dv     [S, n, G_r, d] to [S, n_r, G, d]
//
// What arrives lies in the order of all tokens, whatever the ranks' order is:
// `rows` says where each rank's go. A KV head that several ranks hold is sent to
// each of them, and its dk and dv are added up where they come back: so these
// travel in the accumulator's type, are summed in it in the order of ranks, and
// are rounded once. All else travels as it is.
//
// Each of the four is one all_to_all_v of bytes, one message from each rank to
// each other: of rank r, with e bytes an element, a bytes one of the
// accumulator's, and sums over the other ranks s,
//
//     ToHeads              S n_r d e sum (H_s + 2 G_s)
//     ToTokens             S H_r (d e + a) sum n_s
//     GradientsToHeads     S n_r d e sum H_s
//     GradientsToTokens    S d (H_r e + 2 G_r a) sum n_s
//
//     SP_ASSIGN_OR_RETURN(const AttentionForwardArgs mine,
//                         exchange.ToHeads(args));
//     ... attention of mine.q, mine.k, mine.v into mine.o, mine.lse ...
//     SP_RETURN_IF_ERROR(exchange.ToTokens(args));
//
// q, k, v, o and lse of this rank's heads are kept from the last forward pass for
// the backward one, as automatic differentiation keeps them: S n (2 H_r + 2 G_r)
// d elements. Rejected: sending them once more, which is most of the forward
// traffic again, to spare memory that recomputation of the layer spares anyway.
// One rank exchanges nothing, and works in what the caller passes.
//
// Source: Jacobs et al., DeepSpeed Ulysses, arXiv:2309.14509, section 3.
#ifndef SHARDPROOF_ATTENTION_SHARDED_HEAD_EXCHANGE_H_
#define SHARDPROOF_ATTENTION_SHARDED_HEAD_EXCHANGE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "attention/sharded/sharded_attention.h"
#include "attention/visibility.h"
#include "collectives/communicator.h"
#include "collectives/traffic.h"
#include "layers/attention_block/head_share.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/dtype.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

// Equal on all ranks.
struct HeadExchangeShape {
  int64_t sequences = 1;
  int64_t heads = 0;  // At least as many as ranks.
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  DType dtype = DType::kF32;
  bool backward = true;
  // Of each rank: where its tokens, in the order that it has them, are among all
  // tokens. Every place is of one rank.
  std::vector<std::vector<TokenRun>> rows = {};

  int64_t ranks() const { return static_cast<int64_t>(rows.size()); }
  int64_t tokens() const;
  HeadShare ShareOf(int64_t rank) const {
    return HeadShare::Of(heads, kv_heads, ranks(), rank);
  }
};

class HeadExchange {
 public:
  // A local call that asks for all memory that is ever needed. kInvalidArgument
  // for more ranks than heads, or rows that are not of comm.size() ranks;
  // kOutOfMemory.
  static StatusOr<HeadExchange> Create(const Communicator& comm,
                                       HeadExchangeShape shape,
                                       const CollectiveFamily& collectives);

  HeadShare own() const { return shape_.ShareOf(comm_.rank()); }
  // All ranks' together.
  int64_t tokens() const { return tokens_; }

  // All are collective, with errors of the transport. Returned are the tensors
  // of this rank's heads: q, k and v, and where o and lse are to be written.
  StatusOr<AttentionForwardArgs> ToHeads(const AttentionForwardArgs& args);
  Status ToTokens(const AttentionForwardArgs& args);
  // The same of the last forward pass, and d_o. dq, dk and dv are to be written:
  // dq last, since it may lie where d_o does; dk and dv in the accumulator's
  // type. On several ranks only d_o of `args` is read.
  StatusOr<AttentionBackwardArgs> GradientsToHeads(
      const AttentionBackwardArgs& args);
  Status GradientsToTokens(const AttentionBackwardArgs& args);

  // What it works in and keeps, in bytes.
  int64_t working_bytes() const;

 private:
  // One all_to_all_v: elements are bytes.
  struct Message {
    std::vector<int64_t> send_counts, recv_counts;
    std::vector<int64_t> send_offsets, recv_offsets;
  };

  HeadExchange(const Communicator& comm, HeadExchangeShape shape,
               const CollectiveFamily& collectives);
  Status Allocate();
  // Message number `which`: packs `from`, sends, and unpacks into `to`, both one
  // for each part of the message.
  Status Exchange(size_t which, std::initializer_list<const void*> from,
                  std::initializer_list<void*> to);
  // Sums what all holders of a KV head have sent for it, from `part` of what has
  // arrived, and rounds.
  void SumKvHeads(size_t part, void* out) const;

  Communicator comm_;
  HeadExchangeShape shape_;
  CollectiveFamily collectives_;
  DType wide_;
  int64_t tokens_;
  std::vector<TokenRun> own_rows_;  // This rank's tokens as they lie.
  std::array<Message, 4> messages_;
  Buffer send_, recv_;
  Tensor q_, k_, v_, o_, lse_, d_o_, dk_, dv_;  // Of this rank's heads.
};

// What one pass sends. The family must have costs.
Cost HeadExchangeForwardCost(const HeadExchangeShape& shape,
                             const CollectiveFamily& collectives);
Cost HeadExchangeBackwardCost(const HeadExchangeShape& shape,
                              const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_SHARDED_HEAD_EXCHANGE_H_
