// How a vocabulary is cut by rows over the ranks of a tensor-parallel group.
//
//     rows    = multiple ceil(vocabulary / (multiple ranks))   on every rank
//     padded  = rows ranks                                     >= vocabulary
//     rank r holds ids [r rows, (r + 1) rows)
//
// Every rank holds equally many rows, so that logits are cut alike everywhere
// and a table can be saved and cut again; the rows from `vocabulary` on are
// padding, no parameters of the model. `multiple` 128 is Megatron-LM's
// --make-vocab-size-divisible-by.
//
//     const VocabPartition cut = VocabPartition::Of(50257, 128, 4, rank);
//     cut.rows     // 12672: 50688 in all
//     cut.valid()  // 12672, on the last rank 12241
#ifndef SHARDPROOF_LAYERS_TENSOR_PARALLEL_VOCAB_PARTITION_H_
#define SHARDPROOF_LAYERS_TENSOR_PARALLEL_VOCAB_PARTITION_H_

#include <algorithm>
#include <cstdint>

namespace shardproof {

struct VocabPartition {
  int64_t vocabulary = 0;  // Without padding.
  int64_t padded = 0;
  int64_t begin = 0;  // The first id of this rank.
  int64_t rows = 0;   // Of this rank, padding included.

  // vocabulary >= 0, multiple >= 1.
  static constexpr VocabPartition Of(int64_t vocabulary, int64_t multiple,
                                     int ranks, int rank) {
    const int64_t step = multiple * ranks;
    const int64_t rows = (vocabulary + step - 1) / step * multiple;
    return {.vocabulary = vocabulary,
            .padded = rows * ranks,
            .begin = rows * rank,
            .rows = rows};
  }
  // How many of this rank's rows are no padding: the first ones.
  constexpr int64_t valid() const {
    return std::clamp<int64_t>(vocabulary - begin, 0, rows);
  }
};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TENSOR_PARALLEL_VOCAB_PARTITION_H_
