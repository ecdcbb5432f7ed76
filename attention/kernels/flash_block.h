// What the forward and the backward pass over a block have in common. Internal
// to attention/kernels.
#ifndef SHARDPROOF_ATTENTION_KERNELS_FLASH_BLOCK_H_
#define SHARDPROOF_ATTENTION_KERNELS_FLASH_BLOCK_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "attention/kernels/flash.h"
#include "attention/kernels/tile_product.h"
#include "attention/visibility.h"
#include "reference/dtype.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof::kernels {

// Equal tiles of at most `most` tokens that cover n, multiples of `unit`.
struct Tiles {
  int64_t size = 0;
  int64_t count = 0;

  static Tiles Of(int64_t n, int64_t most, int64_t unit) {
    const int64_t count = std::max<int64_t>(1, (n + most - 1) / most);
    const int64_t size = ((n + count - 1) / count + unit - 1) / unit * unit;
    return {std::max(size, unit), count};
  }
};

// Element `index` of an array of `dtype`.
template <class Void>
Void* At(Void* array, DType dtype, int64_t index) {
  using Byte = std::conditional_t<std::is_const_v<Void>, const char, char>;
  return static_cast<Byte*>(array) + index * SizeOf(dtype);
}

class FlashPass {
 public:
  int64_t working_bytes() const { return bytes_; }

 protected:
  using Product = std::unique_ptr<TileProduct>;

  explicit FlashPass(const FlashShape& shape);

  Status Make(const TileProduct::Options& options, Product& product);
  // Memory for `n` elements, zero.
  Status Get(DType dtype, int64_t n, Tensor& tensor);
  // For that many right sides of a product, and the place of one.
  Status GetPacked(const TileProduct& product, int64_t tiles, Tensor& tensor);
  static void* Packed(Tensor& tensor, const TileProduct& product,
                      int64_t tile) {
    return static_cast<std::byte*>(tensor.raw()) +
           tile * product.packed_bytes();
  }
  void Get(int64_t n, std::vector<IndexRange>& ranges);

  // Tokens [begin, begin + size) of a head as rows of width_ in type_, zeros
  // from `count` on.
  void Stage(const ConstTokens& tokens, int64_t count, int64_t sequence,
             int64_t head, int64_t begin, int64_t size, void* out) const;

  // The number of the first element of a head.
  template <class Void>
  int64_t First(const TokensIn<Void>& tokens, int64_t count, int64_t sequence,
                int64_t head) const {
    const int64_t between = tokens.sequence_stride != 0 ? tokens.sequence_stride
                                                        : count * tokens.stride;
    return sequence * between + head * shape_.head_dim;
  }
  template <class Void>
  Void* HeadOf(const PerQueryIn<Void>& numbers, int64_t queries,
               int64_t sequence, int64_t head) const {
    const int64_t stride = numbers.stride != 0 ? numbers.stride : queries;
    return At(numbers.data, wide_, (sequence * shape_.heads + head) * stride);
  }
  bool FirstOfGroup(int64_t h) const {
    return h == 0 || shape_.KvHeadOf(h) != shape_.KvHeadOf(h - 1);
  }

  // The keys that each query sees, in `seen`; none for what is beyond the last.
  static void Look(const FlashBlock& block, std::vector<IndexRange>& seen);
  // What the tile [tile, tile + size) has of the ranges of rows [begin, begin +
  // rows), as ranges within it, in in_tile_. Whether there is anything.
  bool Within(const std::vector<IndexRange>& ranges, int64_t begin,
              int64_t rows, int64_t tile, int64_t size);

  FlashShape shape_;
  DType type_;     // Of the operands of products.
  DType wide_;     // Of their results.
  int64_t width_;  // head_dim and zeros.
  std::vector<IndexRange> in_tile_;

 private:
  int64_t bytes_ = 0;
};

class FlashForward : public FlashPass {
 public:
  explicit FlashForward(const FlashShape& shape);
  Status Allocate();
  Status Run(const FlashAttention::ForwardArgs& args);

 private:
  using Args = FlashAttention::ForwardArgs;
  Status PackKeys(const Args& args, int64_t s, int64_t h);
  Status RunTile(const Args& args, int64_t s, int64_t h, int64_t begin);
  void Start();
  void Store(const Args& args, int64_t s, int64_t h, int64_t begin,
             int64_t rows) const;

  Tiles query_tiles_, key_tiles_;
  Product scores_, output_;
  Tensor staged_, s_, p_, o_, top_, sum_;
  Tensor k_packed_, v_packed_;
  std::vector<IndexRange> seen_;
};

class FlashBackward : public FlashPass {
 public:
  explicit FlashBackward(const FlashShape& shape);
  Status Allocate();
  Status Run(const FlashAttention::BackwardArgs& args);

 private:
  using Args = FlashAttention::BackwardArgs;
  void Look(const FlashBlock& block);
  Status PackQueries(const Args& args, int64_t s, int64_t h);
  Status RunKeys(const Args& args, int64_t s, int64_t h, int64_t begin);
  Status RunTile(int64_t tile);
  void AddQueries(const Args& args, int64_t s, int64_t h);
  void Add(const void* from, double scale, const Tokens& to, int64_t count,
           int64_t s, int64_t head, int64_t begin, int64_t rows,
           bool overwrite) const;

  Tiles query_tiles_, key_tiles_;
  Product scores_, d_keys_, d_queries_;
  Tensor staged_, s_, p_, dp_, ds_;
  Tensor k_, v_, k_transposed_, dk_, dv_;           // Of a tile.
  Tensor q_transposed_, q_, d_o_transposed_, d_o_;  // Packed.
  Tensor dq_;  // Tiles of [width_, queries].
  Tensor dq_tile_, exponents_, delta_;
  std::vector<IndexRange> seen_, seen_by_;
};

}  // namespace shardproof::kernels

#endif  // SHARDPROOF_ATTENTION_KERNELS_FLASH_BLOCK_H_
