// The embedding of a model whose table is cut by rows, and the output projection
// that uses the same table.
//
// Contract, for rank r of t with rows v_r = [r rows, (r + 1) rows) of the padded
// vocabulary (VocabPartition), ids [tokens] the same on every rank, table
// [padded, hidden], X, Y and DY, DX [tokens, hidden] the whole tensors:
//
//   embedding    Y[i]      = sum over ranks of (table[ids[i]] if ids[i] in v_r
//                            else 0)
//                dtable_r[k] = sum over i with ids[i] = v_r[k] of DY[i]
//
//   projection   logits_r  = X table[v_r]^T                    [tokens, rows]
//                DX        = sum over ranks of dlogits_r table[v_r]
//                dtable_r  = dlogits_r^T X, 0 in padded rows
//
// A tied table has both uses, and its gradient is the sum of both: the
// projection's backward pass comes first and stores it, the embedding's adds to
// it (`accumulate`). Both are of the same rows on the same rank: nothing is sent.
//
//                       plain                       sequence-parallel
//     Y, X, DY, DX      all tokens on every rank    own tokens
//     embedding         all_reduce of Y             reduce_scatter of Y
//       backward        sends nothing               all_gather of DY
//     projection        sends nothing               all_gather of X
//       backward        all_reduce of DX            all_gather of X again,
//                                                   reduce_scatter of DX
//
// Padded rows are no parameters: no id looks them up and their gradient is 0, so
// they stay what they were. The projection makes logits of them (0, where the
// rows are 0) that vocab_parallel_cross_entropy does not read; it leaves zeros
// in their dlogits.
//
// One rank's term of Y[i] is a row and all others are 0, so Y is exact in every
// type. A row of dtable is added in the order of the ids in f32 (f64 for f64)
// and rounded once: the same bits for every t.
//
//     SP_ASSIGN_OR_RETURN(VocabParallelEmbedding embedding,
//         VocabParallelEmbedding::Create(comm, {.vocabulary = 50257,
//                                               .hidden = 768,
//                                               .tokens = 1024,
//                                               .multiple = 128}));
//     SP_RETURN_IF_ERROR(embedding.Forward({.ids = ids, .table = table, .y =
//                                           y}));
//     SP_RETURN_IF_ERROR(embedding.Backward({.ids = ids, .dy = dy, .dtable =
//                                            dtable}));
//
// Sources: Shoeybi et al., Megatron-LM, arXiv:1909.08053, section 3 (the table
// cut by vocabulary, tied); Press and Wolf, arXiv:1608.05859 (tying);
// Korthikanti et al., arXiv:2205.05198, section 4.2.2.
#ifndef SHARDPROOF_LAYERS_VOCAB_PARALLEL_EMBEDDING_VOCAB_PARALLEL_EMBEDDING_H_
#define SHARDPROOF_LAYERS_VOCAB_PARALLEL_EMBEDDING_VOCAB_PARALLEL_EMBEDDING_H_

#include <cstdint>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/tensor_parallel/parallel_region.h"
#include "layers/tensor_parallel/vocab_partition.h"
#include "reference/dtype.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

// Sizes of the whole layer, equal on all ranks. tokens and hidden may be 0 or
// smaller than the number of ranks; a rank may have padding only.
struct VocabEmbeddingConfig {
  int64_t vocabulary = 0;  // Without padding, at least 1.
  int64_t hidden = 0;
  int64_t tokens = 0;
  int64_t multiple = 1;       // As VocabPartition has it.
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  bool sequence_parallel = false;
};

class VocabParallelEmbedding {
 public:
  // Row-major, of the layer's type. Empty parts may be null. Nothing may
  // overlap.
  struct ForwardArgs {
    const int64_t* ids = nullptr;  // [tokens], all of them on every rank.
    const void* table = nullptr;   // [rows, hidden]
    void* y = nullptr;             // [local_tokens, hidden]
  };
  struct BackwardArgs {
    const int64_t* ids = nullptr;
    const void* dy = nullptr;  // [local_tokens, hidden]
    void* dtable = nullptr;    // [rows, hidden]
    bool accumulate = false;   // dtable is added to.
  };

  // Collective; the same error on every rank: kInvalidArgument for a negative
  // size, a vocabulary or multiple below 1 or where ranks differ, kUnsupported
  // for the type, and kOutOfMemory. All memory that the layer ever asks for is
  // asked for here: tokens + rows + 1 numbers of 8 bytes and, sequence-parallel,
  // tokens x hidden elements.
  static StatusOr<VocabParallelEmbedding> Create(
      const Communicator& comm, const VocabEmbeddingConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Collective. kInvalidArgument names the first id outside of [0, vocabulary)
  // and its position: before anything is sent or written, on every rank alike,
  // since all see the same ids. Other errors are those of the transport.
  Status Forward(const ForwardArgs& args,
                 const Stream& stream = Stream::Inline());
  Status Backward(const BackwardArgs& args,
                  const Stream& stream = Stream::Inline());

  const VocabPartition& partition() const { return partition_; }
  int64_t local_tokens() const { return output_.local_tokens(); }

 private:
  VocabParallelEmbedding(const VocabEmbeddingConfig& config,
                         const VocabPartition& partition, ParallelRegion output,
                         Tensor order, Tensor starts);
  Status CheckIds(const Stream& stream, const int64_t* ids) const;

  VocabEmbeddingConfig config_;
  VocabPartition partition_;
  ParallelRegion output_;
  Tensor order_, starts_;  // EmbeddingScratch.
};

// Logits with the table of an embedding.
class TiedOutputProjection {
 public:
  struct ForwardArgs {
    const void* x = nullptr;      // [local_tokens, hidden]
    const void* table = nullptr;  // [rows, hidden]
    void* logits = nullptr;       // [tokens, rows]
  };
  struct BackwardArgs {
    const void* x = nullptr;
    const void* table = nullptr;
    const void* dlogits = nullptr;  // [tokens, rows]
    void* dx = nullptr;             // [local_tokens, hidden]
    void* dtable = nullptr;         // [rows, hidden], stored.
  };

  // Collective; errors as VocabParallelEmbedding::Create. Sequence-parallel, the
  // layer's memory is tokens x hidden elements.
  static StatusOr<TiedOutputProjection> Create(
      const Communicator& comm, const VocabEmbeddingConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Collective. Errors are those of the transport.
  Status Forward(const ForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  Status Backward(const BackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  const VocabPartition& partition() const { return partition_; }
  int64_t local_tokens() const { return input_.local_tokens(); }

 private:
  TiedOutputProjection(const VocabEmbeddingConfig& config,
                       const VocabPartition& partition, ParallelRegion input);

  VocabEmbeddingConfig config_;
  VocabPartition partition_;
  ParallelRegion input_;
};

// What one pass sends. The family must have costs.
Cost VocabEmbeddingForwardCost(int ranks, const VocabEmbeddingConfig& config,
                               const CollectiveFamily& collectives);
Cost VocabEmbeddingBackwardCost(int ranks, const VocabEmbeddingConfig& config,
                                const CollectiveFamily& collectives);
Cost TiedProjectionForwardCost(int ranks, const VocabEmbeddingConfig& config,
                               const CollectiveFamily& collectives);
Cost TiedProjectionBackwardCost(int ranks, const VocabEmbeddingConfig& config,
                                const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_VOCAB_PARALLEL_EMBEDDING_VOCAB_PARALLEL_EMBEDDING_H_
