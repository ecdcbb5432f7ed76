// The tensors of a call where a GPU can address them, and as its kernels take them: where they are, or in a copy.
//
//     SP_ASSIGN_OR_RETURN(FlashScratch scratch, FlashScratch::Create(gpu, bytes));   // Once
//     FlashOperands operands(gpu, scratch, sequences);                               // For each call
//     args.q = operands.Read(q, DType::kBF16, tokens, width);
//     args.dq = operands.Write(dq, DType::kF32, tokens, width, /*reads=*/!overwrite);
//     ... the kernels run ...
//     operands.CopyBack();
//
// Memory of malloc, tokens that are not at a multiple of 16 bytes and strides that are no multiples of 8 elements are
// copied, row by row: what lies between the rows of a tensor is somebody else's, and is neither read nor written.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FLASH_OPERANDS_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FLASH_OPERANDS_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/cuda/device/flash_gpu.h"
#include "attention/kernels/flash.h"
#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof::cuda {

// Memory that the host and the GPU address, given out from its beginning in each call.
class FlashScratch {
 public:
  FlashScratch() = default;
  // kOutOfMemory.
  static StatusOr<FlashScratch> Create(Gpu& gpu, size_t bytes);
  // What the copies of a call take of it, of these sizes in bytes.
  static size_t Sum(const std::vector<int64_t>& sizes);

  void Reset() { used_ = 0; }
  std::byte* Take(int64_t bytes);
  size_t bytes() const { return buffer_.bytes(); }

 private:
  Buffer buffer_;
  size_t used_ = 0;
};

class FlashOperands {
 public:
  FlashOperands(FlashGpu& gpu, FlashScratch& scratch, int64_t sequences,
                int64_t heads)
      : gpu_(gpu), scratch_(scratch), sequences_(sequences), heads_(heads) {
    scratch_.Reset();
  }

  // `width` is what a token has of elements: its heads times head_dim.
  FlashIn Read(const ConstTokens& tokens, DType dtype, int64_t count,
               int64_t width);
  // `reads`: the kernels add to what is there.
  FlashOut Write(const Tokens& tokens, DType dtype, int64_t count,
                 int64_t width, bool reads);

  struct Numbers {
    float* data = nullptr;
    int64_t stride = 0;
  };
  Numbers Read(const ConstPerQuery& numbers, int64_t queries);
  Numbers Write(const PerQuery& numbers, int64_t queries);

  // What the kernels have written, to where it belongs.
  void CopyBack();

 private:
  // `planes` times `rows` rows of `row_bytes` bytes, `stride` and `plane_stride` bytes apart.
  struct Layout {
    std::byte* data = nullptr;
    int64_t planes = 0, rows = 0, row_bytes = 0, stride = 0, plane_stride = 0;
  };
  struct Copy {
    Layout from;
    std::byte* to = nullptr;
  };

  template <class Void>
  static FlashTokens<Void> Resolved(const TokensIn<Void>& tokens,
                                    int64_t count);
  bool CanRead(const void* data) const { return gpu_.gpus().Addresses(data); }
  Layout LayoutOf(const FlashTokens<void>& tokens, DType dtype, int64_t count,
                  int64_t width) const;
  Layout LayoutOf(void* data, int64_t stride, int64_t queries) const;
  // A place of its own, with what is there if `reads`.
  std::byte* Stage(const Layout& from, bool reads);
  template <class F>
  static void EachRow(const Layout& layout, const F& f);

  FlashGpu& gpu_;
  FlashScratch& scratch_;
  const int64_t sequences_, heads_;
  std::vector<Copy> written_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FLASH_OPERANDS_H_
