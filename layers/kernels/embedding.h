// Looking rows up in a part of a table, and adding gradients into it.
//
//     y[i]           = table[ids[i] - begin]    if begin <= ids[i] < begin + rows
//                      0                        else
//     dtable[k]      = sum over i with ids[i] == begin + k of dy[i]
//                                               i ascending, from 0 or from
//                                               what dtable[k] holds
//
// with ids [tokens], table and dtable [rows, hidden], y and dy [tokens, hidden],
// row-major. Sums are accumulated in f32 (f64 for f64) and rounded once, and
// their order is that of the ids, whatever part of a table it is: a row has the
// same bits in every cut. Each operand is read or written once.
// Types: f64, f32, bf16, f16.
#ifndef SHARDPROOF_LAYERS_KERNELS_EMBEDDING_H_
#define SHARDPROOF_LAYERS_KERNELS_EMBEDDING_H_

#include <cstdint>
#include <span>

#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct EmbeddingShape {
  DType dtype = DType::kF32;
  int64_t tokens = 0;
  int64_t hidden = 0;
  int64_t begin = 0;  // The id of the first row.
  int64_t rows = 0;
};

// Scratch of the gradient: the positions of the ids in the order of their rows.
struct EmbeddingScratch {
  std::span<int64_t> order;   // tokens
  std::span<int64_t> starts;  // rows + 1
};

// The position of the first id outside of [0, vocabulary), or -1.
int64_t FirstIdOutside(std::span<const int64_t> ids, int64_t vocabulary);

// kUnsupported for other types.
Status EmbeddingLookup(const Stream& stream, const EmbeddingShape& shape,
                       const int64_t* ids, const void* table, void* y);
// `accumulate`: dtable is added to. kInvalidArgument for scratch of the wrong
// size.
Status EmbeddingGradient(const Stream& stream, const EmbeddingShape& shape,
                         const int64_t* ids, const void* dy, bool accumulate,
                         const EmbeddingScratch& scratch, void* dtable);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_EMBEDDING_H_
