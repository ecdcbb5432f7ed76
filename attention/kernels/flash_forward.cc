#include <cstring>
#include <limits>
#include <type_traits>

#include "attention/kernels/flash_block.h"
#include "attention/kernels/flash_rows.h"
#include "layers/kernels/convert.h"

// For each sequence and KV head its K and V are packed; then, for each query
// head of it and each tile of queries,
//
//     O = 0, and for each tile of keys that is seen:
//         S = Q K^T     P = exp(S - max), rescale O     O += P V
//     O = O / sum
//
// All tiles are full: where tokens end, rows of zeros follow that nobody sees.
// Rejected: smaller products for the ends and the causal diagonal, each of which
// would be compiled and have its operands packed for itself.
namespace shardproof::kernels {

FlashForward::FlashForward(const FlashShape& shape)
    : FlashPass(shape),
      query_tiles_(Tiles::Of(shape.queries, 128, 16)),
      key_tiles_(Tiles::Of(shape.keys, 512, 32)) {}

Status FlashForward::Allocate() {
  const int64_t rows = query_tiles_.size, columns = key_tiles_.size;
  SP_RETURN_IF_ERROR(
      Make({.dtype = type_, .m = rows, .n = columns, .k = width_}, scores_));
  SP_RETURN_IF_ERROR(Make({.dtype = type_,
                           .m = rows,
                           .n = width_,
                           .k = columns,
                           .accumulate = true},
                          output_));
  SP_RETURN_IF_ERROR(Get(type_, std::max(rows, columns) * width_, staged_));
  SP_RETURN_IF_ERROR(Get(wide_, rows * columns, s_));
  SP_RETURN_IF_ERROR(Get(type_, rows * columns, p_));
  SP_RETURN_IF_ERROR(Get(wide_, rows * width_, o_));
  SP_RETURN_IF_ERROR(Get(wide_, rows, top_));
  SP_RETURN_IF_ERROR(Get(wide_, rows, sum_));
  SP_RETURN_IF_ERROR(GetPacked(*scores_, key_tiles_.count, k_packed_));
  SP_RETURN_IF_ERROR(GetPacked(*output_, key_tiles_.count, v_packed_));
  Get(query_tiles_.count * rows, seen_);
  Get(rows, in_tile_);
  return OkStatus();
}

Status FlashForward::Run(const Args& args) {
  Look(args.block, seen_);
  for (int64_t s = 0; s < shape_.sequences; ++s) {
    for (int64_t h = 0; h < shape_.heads; ++h) {
      if (FirstOfGroup(h)) SP_RETURN_IF_ERROR(PackKeys(args, s, h));
      for (int64_t t = 0; t < query_tiles_.count; ++t) {
        SP_RETURN_IF_ERROR(RunTile(args, s, h, t * query_tiles_.size));
      }
    }
  }
  return OkStatus();
}

Status FlashForward::PackKeys(const Args& args, int64_t s, int64_t h) {
  const int64_t g = shape_.KvHeadOf(h), count = args.block.keys.count;
  const int64_t size = key_tiles_.size;
  for (int64_t t = 0; t * size < count; ++t) {
    Stage(args.k, count, s, g, t * size, size, staged_.raw());
    SP_RETURN_IF_ERROR(
        scores_->Pack(staged_.raw(), true, Packed(k_packed_, *scores_, t)));
    Stage(args.v, count, s, g, t * size, size, staged_.raw());
    SP_RETURN_IF_ERROR(
        output_->Pack(staged_.raw(), false, Packed(v_packed_, *output_, t)));
  }
  return OkStatus();
}

void FlashForward::Start() {
  std::memset(o_.raw(), 0, static_cast<size_t>(o_.num_bytes()));
  std::memset(sum_.raw(), 0, static_cast<size_t>(sum_.num_bytes()));
  Visit(wide_, [&]<typename T>(TypeTag<T>) {
    if constexpr (std::is_floating_point_v<T>) {
      std::fill_n(top_.data<T>(), top_.num_elements(),
                  -std::numeric_limits<T>::infinity());
    }
  });
}

Status FlashForward::RunTile(const Args& args, int64_t s, int64_t h,
                             int64_t begin) {
  const int64_t count = args.block.queries.count;
  if (begin >= count) return OkStatus();
  const int64_t rows = query_tiles_.size, columns = key_tiles_.size;
  Stage(args.q, count, s, h, begin, rows, staged_.raw());
  Start();
  for (int64_t t = 0; t < key_tiles_.count; ++t) {
    if (!Within(seen_, begin, rows, t * columns, columns)) continue;
    SP_RETURN_IF_ERROR(
        scores_->Run(staged_.raw(), Packed(k_packed_, *scores_, t), s_.raw()));
    ForwardRows({.products = type_,
                 .scale = shape_.scale,
                 .rows = rows,
                 .columns = columns,
                 .width = width_,
                 .seen = in_tile_.data(),
                 .scores = s_.raw(),
                 .probabilities = p_.raw(),
                 .o = o_.raw(),
                 .top = top_.raw(),
                 .sum = sum_.raw()});
    SP_RETURN_IF_ERROR(
        output_->Run(p_.raw(), Packed(v_packed_, *output_, t), o_.raw()));
  }
  const int64_t there = std::min(rows, count - begin);
  FinishRows({.products = type_,
              .scale = shape_.scale,
              .rows = there,
              .width = width_,
              .o = o_.raw(),
              .top = top_.raw(),
              .sum = sum_.raw(),
              .lse = At(HeadOf(args.lse, count, s, h), wide_, begin)});
  Store(args, s, h, begin, there);
  return OkStatus();
}

void FlashForward::Store(const Args& args, int64_t s, int64_t h, int64_t begin,
                         int64_t rows) const {
  const int64_t d = shape_.head_dim;
  const int64_t first = First(args.o, args.block.queries.count, s, h);
  for (int64_t i = 0; i < rows; ++i) {
    const void* const from = At(o_.raw(), wide_, i * width_);
    void* const to =
        At(args.o.data, args.o_type, first + (begin + i) * args.o.stride);
    if (args.o_type != wide_) {
      Narrow(args.o_type, static_cast<const float*>(from), nullptr, d, to);
    } else if (d > 0) {
      std::memcpy(to, from, static_cast<size_t>(d * SizeOf(wide_)));
    }
  }
}

}  // namespace shardproof::kernels
