#include "attention/sharded/head_exchange.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "attention/layout/layout.h"
#include "attention/sharded/rounding.h"
#include "collectives/chunks.h"
#include "collectives/kernels/reduce.h"

namespace shardproof {
namespace {

enum Which : size_t {
  kInputs = 0,
  kOutputs = 1,
  kOutputGradient = 2,
  kInputGradients = 3
};
constexpr bool GoesToHeads(size_t which) {
  return which == kInputs || which == kOutputGradient;
}

// What a tensor has for each token, and of which type.
enum class Per : uint8_t { kQueryHead, kKvHead, kQuery };
struct Part {
  Per per = Per::kQueryHead;
  DType dtype = DType::kF32;
};

struct Parts {
  std::array<Part, 3> all = {};
  size_t count = 0;

  std::span<const Part> list() const { return std::span(all).first(count); }
};

// Those of the accumulator's type first, so that these are aligned.
Parts PartsOf(size_t which, DType dtype) {
  const DType wide = Accumulator(dtype);
  const Part heads = {Per::kQueryHead, dtype}, kv_heads = {Per::kKvHead, dtype};
  const Part sums = {Per::kKvHead, wide}, numbers = {Per::kQuery, wide};
  switch (which) {
    case kInputs:
      return {{heads, kv_heads, kv_heads}, 3};
    case kOutputs:
      return {{numbers, heads}, 2};
    case kOutputGradient:
      return {{heads}, 1};
    default:
      return {{sums, sums, heads}, 3};
  }
}

int64_t BytesOf(const HeadExchangeShape& shape, const Part& part,
                int64_t tokens, const HeadShare& share) {
  const int64_t rows = shape.sequences * tokens * SizeOf(part.dtype);
  switch (part.per) {
    case Per::kQueryHead:
      return rows * share.heads.count * shape.head_dim;
    case Per::kKvHead:
      return rows * share.kv_heads.count * shape.head_dim;
    default:
      return rows * share.heads.count;
  }
}

int64_t TokensOf(const HeadExchangeShape& shape, int64_t rank) {
  return CountTokens(shape.rows[static_cast<size_t>(rank)]);
}

// From rank to rank: tokens of the one that has them by tokens, heads of the
// other.
int64_t BytesBetween(const HeadExchangeShape& shape, size_t which, int64_t from,
                     int64_t to) {
  const int64_t by_tokens = GoesToHeads(which) ? from : to;
  const int64_t by_heads = GoesToHeads(which) ? to : from;
  const Parts parts = PartsOf(which, shape.dtype);
  int64_t bytes = 0;
  for (const Part& part : parts.list()) {
    bytes += BytesOf(shape, part, TokensOf(shape, by_tokens),
                     shape.ShareOf(by_heads));
  }
  return bytes;
}

// Some rows and heads of tensors that have `tokens` and `all`.
struct Tile {
  std::span<const TokenRun> rows;
  HeadShare heads;
  int64_t tokens = 0;
  HeadShare all;
};

// f(offset, length) in bytes, for each stretch of the tile that lies in one
// piece, in the order in which it travels: [sequence, token, head, element], or
// [sequence, head, token] of numbers.
template <class F>
void EachStretch(const HeadExchangeShape& shape, const Part& part,
                 const Tile& tile, const F& f) {
  const int64_t size = SizeOf(part.dtype);
  const bool numbers = part.per == Per::kQuery;
  const bool kv = part.per == Per::kKvHead;
  const Chunk heads = kv ? tile.heads.kv_heads : tile.heads.heads;
  const int64_t all = kv ? tile.all.kv_heads.count : tile.all.heads.count;
  // Of a token's elements that are next to one another.
  const int64_t width = numbers ? size : heads.count * shape.head_dim * size;
  const int64_t stride = numbers ? size : all * shape.head_dim * size;
  const int64_t planes = numbers ? heads.count : 1;
  const int64_t first =
      heads.begin * (numbers ? tile.tokens * size : shape.head_dim * size);
  for (int64_t s = 0; s < shape.sequences && width > 0; ++s) {
    for (int64_t plane = 0; plane < planes; ++plane) {
      const int64_t begin =
          first + ((numbers ? s * all : s) + plane) * tile.tokens * stride;
      for (const TokenRun& run : tile.rows) {
        if (run.stride == 1 && width == stride) {
          if (run.count > 0) f(begin + run.offset * stride, run.count * stride);
          continue;
        }
        for (int64_t i = 0; i < run.count; ++i) {
          f(begin + run.Position(i) * stride, width);
        }
      }
    }
  }
}

// Blocks begin on cache lines, and so fit every type.
int64_t Offsets(const std::vector<int64_t>& counts,
                std::vector<int64_t>& offsets) {
  int64_t next = 0;
  for (const int64_t count : counts) {
    offsets.push_back(next);
    next += (count + 63) / 64 * 64;
  }
  return next;
}

}  // namespace

int64_t HeadExchangeShape::tokens() const {
  int64_t all = 0;
  for (const std::vector<TokenRun>& of_rank : rows) all += CountTokens(of_rank);
  return all;
}

HeadExchange::HeadExchange(const Communicator& comm, HeadExchangeShape shape,
                           const CollectiveFamily& collectives)
    : comm_(comm),
      shape_(std::move(shape)),
      collectives_(collectives),
      wide_(Accumulator(shape_.dtype)),
      tokens_(shape_.tokens()) {}

StatusOr<HeadExchange> HeadExchange::Create(
    const Communicator& comm, HeadExchangeShape shape,
    const CollectiveFamily& collectives) {
  if (shape.ranks() != comm.size()) {
    return InvalidArgument("tokens of {} ranks, but there are {}",
                           shape.ranks(), comm.size());
  }
  if (shape.heads < comm.size()) {
    return InvalidArgument(
        "{} heads among {} ranks, but heads are not cut; use at most as many "
        "ranks as heads",
        shape.heads, comm.size());
  }
  HeadExchange exchange(comm, std::move(shape), collectives);
  SP_RETURN_IF_ERROR(exchange.Allocate());
  return exchange;
}

Status HeadExchange::Allocate() {
  const int ranks = comm_.size(), rank = comm_.rank();
  const int64_t s = shape_.sequences, d = shape_.head_dim;
  const HeadShare mine = own();
  const Shape of_keys = {s, tokens_, mine.kv_heads.count, d};
  if (shape_.backward) {
    SP_ASSIGN_OR_RETURN(dk_, Tensor::Create(wide_, of_keys));
    SP_ASSIGN_OR_RETURN(dv_, Tensor::Create(wide_, of_keys));
  }
  if (ranks == 1) return OkStatus();
  const DType dtype = shape_.dtype;
  const Shape of_queries = {s, tokens_, mine.heads.count, d};
  SP_ASSIGN_OR_RETURN(q_, Tensor::Create(dtype, of_queries));
  SP_ASSIGN_OR_RETURN(k_, Tensor::Create(dtype, of_keys));
  SP_ASSIGN_OR_RETURN(v_, Tensor::Create(dtype, of_keys));
  SP_ASSIGN_OR_RETURN(o_, Tensor::Create(dtype, of_queries));
  SP_ASSIGN_OR_RETURN(lse_,
                      Tensor::Create(wide_, {s, mine.heads.count, tokens_}));
  if (shape_.backward) {
    SP_ASSIGN_OR_RETURN(d_o_, Tensor::Create(dtype, of_queries));
  }
  own_rows_ = {{.count = TokensOf(shape_, rank)}};
  int64_t sent = 64, received = 64;
  for (size_t which = 0; which < messages_.size(); ++which) {
    if (!shape_.backward && which >= kOutputGradient) break;
    Message& m = messages_[which];
    for (int r = 0; r < ranks; ++r) {
      m.send_counts.push_back(BytesBetween(shape_, which, rank, r));
      m.recv_counts.push_back(BytesBetween(shape_, which, r, rank));
    }
    sent = std::max(sent, Offsets(m.send_counts, m.send_offsets));
    received = std::max(received, Offsets(m.recv_counts, m.recv_offsets));
  }
  SP_ASSIGN_OR_RETURN(send_, comm_.Allocate(static_cast<size_t>(sent)));
  SP_ASSIGN_OR_RETURN(recv_, comm_.Allocate(static_cast<size_t>(received)));
  return OkStatus();
}

Status HeadExchange::Exchange(size_t which,
                              std::initializer_list<const void*> from,
                              std::initializer_list<void*> to) {
  const Message& m = messages_[which];
  const Parts parts = PartsOf(which, shape_.dtype);
  const bool to_heads = GoesToHeads(which);
  const HeadShare everything = {.heads = {0, shape_.heads},
                                .kv_heads = {0, shape_.kv_heads}};
  const HeadShare mine = own();
  const HeadShare all_mine = {.heads = {0, mine.heads.count},
                              .kv_heads = {0, mine.kv_heads.count}};
  // What rank r has of the other kind, in the tensors of this one.
  const auto tile = [&](int r, bool by_heads) {
    if (by_heads) {
      return Tile{shape_.rows[static_cast<size_t>(r)], all_mine, tokens_,
                  all_mine};
    }
    return Tile{own_rows_, shape_.ShareOf(r), own_rows_[0].count, everything};
  };
  for (int r = 0; r < comm_.size(); ++r) {
    std::byte* out = send_.data() + m.send_offsets[static_cast<size_t>(r)];
    const void* const* data = from.begin();
    for (const Part& part : parts.list()) {
      const auto* const rows = static_cast<const std::byte*>(*data++);
      EachStretch(shape_, part, tile(r, !to_heads),
                  [&](int64_t offset, int64_t bytes) {
                    std::memcpy(out, rows + offset, static_cast<size_t>(bytes));
                    out += bytes;
                  });
    }
  }
  SP_RETURN_IF_ERROR(
      collectives_.all_to_all(comm_, {.send = send_.data(),
                                      .recv = recv_.data(),
                                      .send_counts = m.send_counts,
                                      .recv_counts = m.recv_counts,
                                      .send_offsets = m.send_offsets,
                                      .recv_offsets = m.recv_offsets,
                                      .dtype = DType::kU8}));
  for (int r = 0; r < comm_.size(); ++r) {
    const std::byte* in = recv_.data() + m.recv_offsets[static_cast<size_t>(r)];
    void* const* data = to.begin();
    for (size_t i = 0; i < parts.count; ++i) {
      const Part& part = parts.all[i];
      auto* const rows = static_cast<std::byte*>(*data++);
      if (which == kInputGradients && part.per == Per::kKvHead) {
        if (r == 0) SumKvHeads(i, rows);
        in += BytesOf(shape_, part, own_rows_[0].count, shape_.ShareOf(r));
        continue;
      }
      EachStretch(shape_, part, tile(r, to_heads),
                  [&](int64_t offset, int64_t bytes) {
                    std::memcpy(rows + offset, in, static_cast<size_t>(bytes));
                    in += bytes;
                  });
    }
  }
  return OkStatus();
}

void HeadExchange::SumKvHeads(size_t part, void* out) const {
  const Message& m = messages_[kInputGradients];
  const int64_t d = shape_.head_dim;
  const int64_t rows = shape_.sequences * own_rows_[0].count;
  // Of KV head `head` in row 0 of what rank r has sent.
  const auto at = [&](int r, int64_t head) {
    const Chunk held = shape_.ShareOf(r).kv_heads;
    const int64_t before = static_cast<int64_t>(part) * rows * held.count * d;
    return At(recv_.data() + m.recv_offsets[static_cast<size_t>(r)], wide_,
              before + (head - held.begin) * d);
  };
  // The KV heads of which rank r is the first holder: all but perhaps one.
  const auto first_of = [&](int r) {
    Chunk held = shape_.ShareOf(r).kv_heads;
    if (r > 0 && shape_.ShareOf(r - 1).Holds(held.begin)) {
      ++held.begin;
      --held.count;
    }
    return held;
  };
  int holder = 0;  // The first of what rank r - 1 holds last.
  for (int r = 1; r < comm_.size(); ++r) {
    if (first_of(r - 1).count > 0) holder = r - 1;
    const Chunk held = shape_.ShareOf(r).kv_heads;
    if (first_of(r).begin == held.begin) continue;
    const int64_t width = shape_.ShareOf(holder).kv_heads.count * d;
    for (int64_t row = 0; row < rows; ++row) {
      kernels::ReduceInto(
          wide_, ReduceOp::kSum, At(at(holder, held.begin), wide_, row * width),
          At(at(r, held.begin), wide_, row * held.count * d), d);
    }
  }
  for (int r = 0; r < comm_.size(); ++r) {
    const int64_t width = shape_.ShareOf(r).kv_heads.count * d;
    const Chunk first = first_of(r);
    for (int64_t row = 0; row < rows && first.count > 0; ++row) {
      RoundTo(shape_.dtype, At(at(r, first.begin), wide_, row * width),
              first.count * d,
              At(out, shape_.dtype, (row * shape_.kv_heads + first.begin) * d));
    }
  }
}

StatusOr<AttentionForwardArgs> HeadExchange::ToHeads(
    const AttentionForwardArgs& args) {
  if (comm_.size() == 1) return args;
  SP_RETURN_IF_ERROR(Exchange(kInputs, {args.q, args.k, args.v},
                              {q_.raw(), k_.raw(), v_.raw()}));
  return AttentionForwardArgs{.q = q_.raw(),
                              .k = k_.raw(),
                              .v = v_.raw(),
                              .o = o_.raw(),
                              .lse = lse_.raw()};
}

Status HeadExchange::ToTokens(const AttentionForwardArgs& args) {
  if (comm_.size() == 1) return OkStatus();
  return Exchange(kOutputs, {lse_.raw(), o_.raw()}, {args.lse, args.o});
}

StatusOr<AttentionBackwardArgs> HeadExchange::GradientsToHeads(
    const AttentionBackwardArgs& args) {
  AttentionBackwardArgs mine = args;
  mine.dk = dk_.raw();
  mine.dv = dv_.raw();
  if (comm_.size() == 1) return mine;
  SP_RETURN_IF_ERROR(Exchange(kOutputGradient, {args.d_o}, {d_o_.raw()}));
  mine.q = q_.raw();
  mine.k = k_.raw();
  mine.v = v_.raw();
  mine.o = o_.raw();
  mine.lse = lse_.raw();
  mine.d_o = mine.dq = d_o_.raw();
  return mine;
}

Status HeadExchange::GradientsToTokens(const AttentionBackwardArgs& args) {
  if (comm_.size() > 1) {
    return Exchange(kInputGradients, {dk_.raw(), dv_.raw(), d_o_.raw()},
                    {args.dk, args.dv, args.dq});
  }
  RoundTo(shape_.dtype, dk_.raw(), dk_.num_elements(), args.dk);
  RoundTo(shape_.dtype, dv_.raw(), dv_.num_elements(), args.dv);
  return OkStatus();
}

int64_t HeadExchange::working_bytes() const {
  auto bytes = static_cast<int64_t>(send_.bytes() + recv_.bytes());
  for (const Tensor* t : {&q_, &k_, &v_, &o_, &lse_, &d_o_, &dk_, &dv_}) {
    bytes += t->num_bytes();
  }
  return bytes;
}

namespace {

Cost MessagesCost(const HeadExchangeShape& shape,
                  std::initializer_list<size_t> messages,
                  const CollectiveFamily& collectives) {
  const int64_t ranks = shape.ranks();
  Cost cost;
  for (const size_t which : messages) {
    if (ranks == 1) break;
    std::vector<int64_t> bytes;
    for (int64_t from = 0; from < ranks; ++from) {
      for (int64_t to = 0; to < ranks; ++to) {
        bytes.push_back(BytesBetween(shape, which, from, to));
      }
    }
    cost += collectives.all_to_all_cost(static_cast<int>(ranks), bytes,
                                        DType::kU8, Memory::kShared);
  }
  return cost;
}

}  // namespace

Cost HeadExchangeForwardCost(const HeadExchangeShape& shape,
                             const CollectiveFamily& collectives) {
  return MessagesCost(shape, {kInputs, kOutputs}, collectives);
}

Cost HeadExchangeBackwardCost(const HeadExchangeShape& shape,
                              const CollectiveFamily& collectives) {
  return MessagesCost(shape, {kOutputGradient, kInputGradients}, collectives);
}

}  // namespace shardproof
