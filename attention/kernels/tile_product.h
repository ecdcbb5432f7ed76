// Matrix products of one size, compiled once, for kernels that work tile by tile.
//
//     C[m, n] (+)= A[m, k] B[k, n]       C of the accumulator's type
//
// B is mostly used for many A: Pack brings it into the layout that the product
// reads fastest, once, where oneDNN would otherwise do so in every call.
//
//     SP_ASSIGN_OR_RETURN(TileProduct scores, TileProduct::Create(
//         {.dtype = DType::kBF16, .m = 128, .n = 512, .k = 128}));
//     SP_RETURN_IF_ERROR(scores.Pack(keys, /*transposed=*/true, packed));
//     SP_RETURN_IF_ERROR(scores.Run(queries, packed, c));
//
// The layers' Gemm rounds to the type of its operands, and packs in each call.
//
// Source: oneDNN developer guide, "Matrix Multiplication" (weights with
// format_tag::any).
#ifndef SHARDPROOF_ATTENTION_KERNELS_TILE_PRODUCT_H_
#define SHARDPROOF_ATTENTION_KERNELS_TILE_PRODUCT_H_

#include <cstdint>
#include <memory>

#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// The type that products of tensors of `dtype` are computed in: the type itself
// where this machine multiplies it, f32 for the other 16-bit types.
DType ProductType(DType dtype);

class TileProduct {
 public:
  struct Options {
    DType dtype = DType::kF32;  // A ProductType.
    int64_t m = 0, n = 0, k = 0;
    bool accumulate = false;
    bool packed = true;  // Else B is as it is, row-major.
  };

  // Asks for all memory. kUnsupported for a type, kInternal with oneDNN's words.
  static StatusOr<TileProduct> Create(const Options& options);
  TileProduct(TileProduct&&) noexcept;
  TileProduct& operator=(TileProduct&&) noexcept;
  ~TileProduct();

  // Of one packed B, a multiple of 64.
  int64_t packed_bytes() const;
  // What the product itself works in.
  int64_t working_bytes() const;

  // `b` is [k, n], or [n, k] if transposed, row-major and of Options::dtype. One
  // thread at a time.
  Status Pack(const void* b, bool transposed, void* packed);
  // `a` is row-major. One thread at a time.
  Status Run(const void* a, const void* b, void* c);

 private:
  struct Compiled;
  explicit TileProduct(std::unique_ptr<Compiled> compiled);
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_KERNELS_TILE_PRODUCT_H_
