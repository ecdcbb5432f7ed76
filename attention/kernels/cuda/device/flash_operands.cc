#include "attention/kernels/cuda/device/flash_operands.h"

#include <cstdlib>
#include <cstring>

namespace shardproof::cuda {
namespace {

// A line of the GPU's second-level cache.
constexpr size_t kAlignment = 128;

size_t Rounded(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Where operands are const, only for the layout of what is read.
std::byte* Bytes(const void* data) {
  return static_cast<std::byte*>(const_cast<void*>(data));
}

}  // namespace

StatusOr<FlashScratch> FlashScratch::Create(Gpu& gpu, size_t bytes) {
  FlashScratch scratch;
  // The allocator aligns to 64 bytes.
  SP_ASSIGN_OR_RETURN(scratch.buffer_, gpu.Allocate(bytes + kAlignment));
  return scratch;
}

size_t FlashScratch::Sum(const std::vector<int64_t>& sizes) {
  size_t sum = 0;
  for (const int64_t bytes : sizes) sum += Rounded(static_cast<size_t>(bytes));
  return sum;
}

std::byte* FlashScratch::Take(int64_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(buffer_.data());
  const size_t at = Rounded(begin) - begin + used_;
  used_ += Rounded(static_cast<size_t>(bytes));
  // Create was asked for too little: a defect, and not to be written beyond.
  if (at + static_cast<size_t>(bytes) > buffer_.bytes()) std::abort();
  return buffer_.data() + at;
}

template <class Void>
FlashTokens<Void> FlashOperands::Resolved(const TokensIn<Void>& tokens,
                                          int64_t count) {
  return {tokens.data, tokens.stride,
          tokens.sequence_stride != 0 ? tokens.sequence_stride
                                      : count * tokens.stride};
}

FlashOperands::Layout FlashOperands::LayoutOf(const FlashTokens<void>& tokens,
                                              DType dtype, int64_t count,
                                              int64_t width) const {
  const int64_t size = SizeOf(dtype);
  return {.data = Bytes(tokens.data),
          .planes = sequences_,
          .rows = count,
          .row_bytes = width * size,
          .stride = tokens.stride * size,
          .plane_stride = tokens.sequence_stride * size};
}

FlashOperands::Layout FlashOperands::LayoutOf(void* data, int64_t stride,
                                              int64_t queries) const {
  constexpr auto kSize = static_cast<int64_t>(sizeof(float));
  return {.data = Bytes(data),
          .planes = 1,
          .rows = sequences_ * heads_,
          .row_bytes = queries * kSize,
          .stride = stride * kSize};
}

// f(bytes from the beginning of `layout`, the same of rows without gaps).
template <class F>
void FlashOperands::EachRow(const Layout& layout, const F& f) {
  if (layout.row_bytes == 0) return;
  int64_t packed = 0;
  for (int64_t plane = 0; plane < layout.planes; ++plane) {
    for (int64_t row = 0; row < layout.rows; ++row) {
      f(plane * layout.plane_stride + row * layout.stride, packed);
      packed += layout.row_bytes;
    }
  }
}

std::byte* FlashOperands::Stage(const Layout& from, bool reads) {
  const int64_t bytes = from.planes * from.rows * from.row_bytes;
  std::byte* const to = scratch_.Take(bytes);
  if (!reads) return to;
  EachRow(from, [&](int64_t at, int64_t packed) {
    std::memcpy(to + packed, from.data + at,
                static_cast<size_t>(from.row_bytes));
  });
  gpu_.CountStaged(bytes);
  return to;
}

FlashIn FlashOperands::Read(const ConstTokens& tokens, DType dtype,
                            int64_t count, int64_t width) {
  const FlashIn there = Resolved(tokens, count);
  if (WhyNotFlash(there) == nullptr && CanRead(there.data)) return there;
  const Layout from =
      LayoutOf({Bytes(there.data), there.stride, there.sequence_stride}, dtype,
               count, width);
  return {Stage(from, true), width, count * width};
}

FlashOut FlashOperands::Write(const Tokens& tokens, DType dtype, int64_t count,
                              int64_t width, bool reads) {
  const FlashOut there = Resolved(tokens, count);
  if (WhyNotFlash(there) == nullptr && CanRead(there.data)) return there;
  const Layout from = LayoutOf(there, dtype, count, width);
  written_.push_back({from, Stage(from, reads)});
  return {written_.back().to, width, count * width};
}

FlashOperands::Numbers FlashOperands::Read(const ConstPerQuery& numbers,
                                           int64_t queries) {
  void* const data = Bytes(numbers.data);
  const int64_t stride = numbers.stride != 0 ? numbers.stride : queries;
  if (CanRead(data)) return {static_cast<float*>(data), stride};
  std::byte* const to = Stage(LayoutOf(data, stride, queries), true);
  return {reinterpret_cast<float*>(to), queries};
}

FlashOperands::Numbers FlashOperands::Write(const PerQuery& numbers,
                                            int64_t queries) {
  const int64_t stride = numbers.stride != 0 ? numbers.stride : queries;
  if (CanRead(numbers.data)) {
    return {static_cast<float*>(numbers.data), stride};
  }
  const Layout from = LayoutOf(numbers.data, stride, queries);
  written_.push_back({from, Stage(from, false)});
  return {reinterpret_cast<float*>(written_.back().to), queries};
}

void FlashOperands::CopyBack() {
  for (const Copy& copy : written_) {
    EachRow(copy.from, [&](int64_t at, int64_t packed) {
      std::memcpy(copy.from.data + at, copy.to + packed,
                  static_cast<size_t>(copy.from.row_bytes));
    });
    gpu_.CountStaged(copy.from.planes * copy.from.rows * copy.from.row_bytes);
  }
  written_.clear();
}

}  // namespace shardproof::cuda
