#include "attention/kernels/flash_block.h"

#include <cstring>

#include "layers/kernels/convert.h"

namespace shardproof::kernels {

// AMX multiplies 32 numbers of bf16 at a time; the rows' kernels go by 16.
FlashPass::FlashPass(const FlashShape& shape)
    : shape_(shape),
      type_(ProductType(shape.dtype)),
      wide_(Accumulator(shape.dtype)),
      width_(Tiles::Of(std::max<int64_t>(shape.head_dim, 1),
                       std::max<int64_t>(shape.head_dim, 1),
                       type_ == DType::kBF16 ? 32 : 16)
                 .size) {}

Status FlashPass::Make(const TileProduct::Options& options, Product& product) {
  SP_ASSIGN_OR_RETURN(TileProduct made, TileProduct::Create(options));
  product = std::make_unique<TileProduct>(std::move(made));
  bytes_ += product->working_bytes();
  return OkStatus();
}

Status FlashPass::Get(DType dtype, int64_t n, Tensor& tensor) {
  SP_ASSIGN_OR_RETURN(tensor, Tensor::Create(dtype, {n}));
  std::memset(tensor.raw(), 0, static_cast<size_t>(tensor.num_bytes()));
  bytes_ += tensor.num_bytes();
  return OkStatus();
}

Status FlashPass::GetPacked(const TileProduct& product, int64_t tiles,
                            Tensor& tensor) {
  return Get(DType::kU8, product.packed_bytes() * tiles, tensor);
}

void FlashPass::Get(int64_t n, std::vector<IndexRange>& ranges) {
  ranges.resize(static_cast<size_t>(n));
  bytes_ += n * static_cast<int64_t>(sizeof(IndexRange));
}

void FlashPass::Stage(const ConstTokens& tokens, int64_t count,
                      int64_t sequence, int64_t head, int64_t begin,
                      int64_t size, void* out) const {
  const int64_t d = shape_.head_dim;
  const int64_t there = std::clamp<int64_t>(count - begin, 0, size);
  const int64_t first = First(tokens, count, sequence, head);
  const auto row = static_cast<size_t>(width_ * SizeOf(type_));
  for (int64_t i = 0; i < there; ++i) {
    const void* const from =
        At(tokens.data, shape_.dtype, first + (begin + i) * tokens.stride);
    void* const to = At(out, type_, i * width_);
    if (d < width_) std::memset(to, 0, row);
    if (type_ != shape_.dtype) {
      Widen(shape_.dtype, from, d, static_cast<float*>(to));
    } else if (d > 0) {
      std::memcpy(to, from, static_cast<size_t>(d * SizeOf(type_)));
    }
  }
  std::memset(At(out, type_, there * width_), 0,
              row * static_cast<size_t>(size - there));
}

void FlashPass::Look(const FlashBlock& block, std::vector<IndexRange>& seen) {
  const int64_t none = block.keys.count;
  std::fill(seen.begin(), seen.end(), IndexRange{none, none});
  for (int64_t i = 0; i < block.queries.count; ++i) {
    seen[static_cast<size_t>(i)] =
        KeysSeen(*block.visibility, block.queries.Position(i), block.keys);
  }
}

bool FlashPass::Within(const std::vector<IndexRange>& ranges, int64_t begin,
                       int64_t rows, int64_t tile, int64_t size) {
  int64_t all = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const IndexRange& r = ranges[static_cast<size_t>(begin + i)];
    IndexRange& in = in_tile_[static_cast<size_t>(i)];
    in.first = std::clamp<int64_t>(r.first - tile, 0, size);
    in.last = std::clamp<int64_t>(r.last - tile, in.first, size);
    all += in.size();
  }
  return all > 0;
}

}  // namespace shardproof::kernels
