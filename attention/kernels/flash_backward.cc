#include <cstring>

#include "attention/kernels/flash_block.h"
#include "attention/kernels/flash_rows.h"

// For each sequence and query head its Q and dO are packed, as they are and
// transposed; then, for each tile of keys,
//
//     dK = dV = 0, and for each tile of queries that sees any:
//         S^T = K Q^T     dP^T = V dO^T     P^T, dS^T from them
//         dV += P^T dO    dK += dS^T Q      dQ^T += K^T dS^T
//
// Tiles are [keys, queries], so that P^T and dS^T are what products read row by
// row. Rejected: tiles of [queries, keys], where dV and dK transpose what was
// just written, at half the rate.
namespace shardproof::kernels {

FlashBackward::FlashBackward(const FlashShape& shape)
    : FlashPass(shape),
      query_tiles_(Tiles::Of(shape.queries, 256, 32)),
      key_tiles_(Tiles::Of(shape.keys, 256, 32)) {}

Status FlashBackward::Allocate() {
  const int64_t rows = key_tiles_.size, columns = query_tiles_.size;
  const int64_t tiles = query_tiles_.count;
  SP_RETURN_IF_ERROR(
      Make({.dtype = type_, .m = rows, .n = columns, .k = width_}, scores_));
  SP_RETURN_IF_ERROR(Make({.dtype = type_,
                           .m = rows,
                           .n = width_,
                           .k = columns,
                           .accumulate = true},
                          d_keys_));
  // dS^T is new in each product: packing it would not pay.
  SP_RETURN_IF_ERROR(Make({.dtype = type_,
                           .m = width_,
                           .n = columns,
                           .k = rows,
                           .accumulate = true,
                           .packed = false},
                          d_queries_));
  SP_RETURN_IF_ERROR(Get(type_, columns * width_, staged_));
  for (Tensor* t : {&s_, &dp_}) {
    SP_RETURN_IF_ERROR(Get(wide_, rows * columns, *t));
  }
  for (Tensor* t : {&p_, &ds_}) {
    SP_RETURN_IF_ERROR(Get(type_, rows * columns, *t));
  }
  for (Tensor* t : {&k_, &v_, &k_transposed_}) {
    SP_RETURN_IF_ERROR(Get(type_, rows * width_, *t));
  }
  for (Tensor* t : {&dk_, &dv_}) {
    SP_RETURN_IF_ERROR(Get(wide_, rows * width_, *t));
  }
  for (Tensor* t : {&q_transposed_, &d_o_transposed_}) {
    SP_RETURN_IF_ERROR(GetPacked(*scores_, tiles, *t));
  }
  for (Tensor* t : {&q_, &d_o_}) {
    SP_RETURN_IF_ERROR(GetPacked(*d_keys_, tiles, *t));
  }
  SP_RETURN_IF_ERROR(Get(wide_, tiles * columns * width_, dq_));
  SP_RETURN_IF_ERROR(Get(wide_, columns * width_, dq_tile_));
  SP_RETURN_IF_ERROR(Get(wide_, tiles * columns, exponents_));
  SP_RETURN_IF_ERROR(Get(wide_, tiles * columns, delta_));
  Get(tiles * columns, seen_);
  Get(key_tiles_.count * rows, seen_by_);
  Get(rows, in_tile_);
  return OkStatus();
}

Status FlashBackward::Run(const Args& args) {
  Look(args.block);
  for (int64_t s = 0; s < shape_.sequences; ++s) {
    for (int64_t h = 0; h < shape_.heads; ++h) {
      SP_RETURN_IF_ERROR(PackQueries(args, s, h));
      std::memset(dq_.raw(), 0, static_cast<size_t>(dq_.num_bytes()));
      for (int64_t t = 0; t < key_tiles_.count; ++t) {
        SP_RETURN_IF_ERROR(RunKeys(args, s, h, t * key_tiles_.size));
      }
      AddQueries(args, s, h);
    }
  }
  return OkStatus();
}

// seen_by_: the queries that see each key. A range too, since neither end of
// the queries' ranges decreases.
void FlashBackward::Look(const FlashBlock& block) {
  FlashPass::Look(block, seen_);
  const int64_t queries = block.queries.count;
  const auto seen = [&](int64_t i) { return seen_[static_cast<size_t>(i)]; };
  IndexRange by;
  for (size_t j = 0; j < seen_by_.size(); ++j) {
    const auto key = static_cast<int64_t>(j);
    while (by.first < queries && seen(by.first).last <= key) ++by.first;
    while (by.last < queries && seen(by.last).first <= key) ++by.last;
    seen_by_[j] = {by.first, std::max(by.first, by.last)};
  }
}

Status FlashBackward::PackQueries(const Args& args, int64_t s, int64_t h) {
  const int64_t count = args.block.queries.count, rows = query_tiles_.size;
  ExponentsOf(type_, HeadOf(args.lse, count, s, h), count, exponents_.raw());
  if (count > 0) {
    std::memcpy(delta_.raw(), HeadOf(args.delta, count, s, h),
                static_cast<size_t>(count * SizeOf(wide_)));
  }
  const auto pack = [&](const ConstTokens& tokens, int64_t t,
                        Tensor& transposed, Tensor& plain) {
    Stage(tokens, count, s, h, t * rows, rows, staged_.raw());
    SP_RETURN_IF_ERROR(
        scores_->Pack(staged_.raw(), true, Packed(transposed, *scores_, t)));
    return d_keys_->Pack(staged_.raw(), false, Packed(plain, *d_keys_, t));
  };
  for (int64_t t = 0; t * rows < count; ++t) {
    SP_RETURN_IF_ERROR(pack(args.q, t, q_transposed_, q_));
    SP_RETURN_IF_ERROR(pack(args.d_o, t, d_o_transposed_, d_o_));
  }
  return OkStatus();
}

Status FlashBackward::RunKeys(const Args& args, int64_t s, int64_t h,
                              int64_t begin) {
  const int64_t count = args.block.keys.count, g = shape_.KvHeadOf(h);
  if (begin >= count) return OkStatus();
  const int64_t rows = key_tiles_.size, columns = query_tiles_.size;
  Stage(args.k, count, s, g, begin, rows, k_.raw());
  Stage(args.v, count, s, g, begin, rows, v_.raw());
  Transposed(type_, k_.raw(), rows, width_, k_transposed_.raw());
  for (Tensor* t : {&dk_, &dv_}) {
    std::memset(t->raw(), 0, static_cast<size_t>(t->num_bytes()));
  }
  for (int64_t t = 0; t < query_tiles_.count; ++t) {
    if (!Within(seen_by_, begin, rows, t * columns, columns)) continue;
    SP_RETURN_IF_ERROR(RunTile(t));
  }
  // The heads of a group add to the same.
  const bool overwrite = args.overwrite && FirstOfGroup(h);
  Add(dk_.raw(), shape_.scale, args.dk, count, s, g, begin, rows, overwrite);
  Add(dv_.raw(), 1, args.dv, count, s, g, begin, rows, overwrite);
  return OkStatus();
}

Status FlashBackward::RunTile(int64_t t) {
  const int64_t rows = key_tiles_.size, columns = query_tiles_.size;
  SP_RETURN_IF_ERROR(
      scores_->Run(k_.raw(), Packed(q_transposed_, *scores_, t), s_.raw()));
  SP_RETURN_IF_ERROR(
      scores_->Run(v_.raw(), Packed(d_o_transposed_, *scores_, t), dp_.raw()));
  BackwardRows({.products = type_,
                .scale = shape_.scale,
                .rows = rows,
                .columns = columns,
                .seen = in_tile_.data(),
                .scores = s_.raw(),
                .d_probabilities = dp_.raw(),
                .exponents = At(exponents_.raw(), wide_, t * columns),
                .delta = At(delta_.raw(), wide_, t * columns),
                .probabilities = p_.raw(),
                .d_scores = ds_.raw()});
  SP_RETURN_IF_ERROR(
      d_keys_->Run(p_.raw(), Packed(d_o_, *d_keys_, t), dv_.raw()));
  SP_RETURN_IF_ERROR(
      d_keys_->Run(ds_.raw(), Packed(q_, *d_keys_, t), dk_.raw()));
  return d_queries_->Run(k_transposed_.raw(), ds_.raw(),
                         At(dq_.raw(), wide_, t * columns * width_));
}

void FlashBackward::AddQueries(const Args& args, int64_t s, int64_t h) {
  const int64_t columns = query_tiles_.size, count = args.block.queries.count;
  for (int64_t t = 0; t * columns < count; ++t) {
    Transposed(wide_, At(dq_.raw(), wide_, t * columns * width_), width_,
               columns, dq_tile_.raw());
    Add(dq_tile_.raw(), shape_.scale, args.dq, count, s, h, t * columns,
        columns, args.overwrite);
  }
}

// Rows of width_ to tokens from `begin` on.
void FlashBackward::Add(const void* from, double scale, const Tokens& to,
                        int64_t count, int64_t s, int64_t head, int64_t begin,
                        int64_t rows, bool overwrite) const {
  const int64_t first = First(to, count, s, head);
  for (int64_t i = 0; i < std::min(rows, count - begin); ++i) {
    AddScaled(wide_, At(from, wide_, i * width_), shape_.head_dim, scale,
              overwrite, At(to.data, wide_, first + (begin + i) * to.stride));
  }
}

}  // namespace shardproof::kernels
