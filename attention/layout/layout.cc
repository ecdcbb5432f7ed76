#include "attention/layout/layout.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace shardproof {
namespace {

// Shapes and types of the two sides of a shard.
Status CheckRows(std::span<const TokenRun> runs, const ConstTensorView& all,
                 const ConstTensorView& mine) {
  const auto matrix = [](const Shape& s) { return s.rank() == 2; };
  if (!matrix(all.shape) || !matrix(mine.shape) ||
      all.shape[1] != mine.shape[1] || all.dtype != mine.dtype) {
    return InvalidArgument(
        "rows of {} in {} cannot be sharded to rows of {} in {}",
        Name(all.dtype), all.shape.ToString(), Name(mine.dtype),
        mine.shape.ToString());
  }
  if (CountTokens(runs) != mine.shape[0]) {
    return InvalidArgument("a rank with {} tokens cannot have {}",
                           CountTokens(runs), mine.shape.ToString());
  }
  for (const TokenRun& run : runs) {
    SP_RETURN_IF_ERROR(CheckRun(run));
    if (run.count > 0 && run.Position(run.count - 1) >= all.shape[0]) {
      return InvalidArgument("token {} of a rank is not one of {} tokens",
                             run.Position(run.count - 1), all.shape[0]);
    }
  }
  return OkStatus();
}

// Calls f(row of all, row of mine).
template <class F>
void EveryRow(std::span<const TokenRun> runs, const F& f) {
  int64_t row = 0;
  for (const TokenRun& run : runs) {
    for (int64_t i = 0; i < run.count; ++i) f(run.Position(i), row++);
  }
}

StatusOr<std::vector<std::vector<TokenRun>>> AllRuns(const LayoutShape& shape) {
  std::vector<std::vector<TokenRun>> all;
  SP_RETURN_IF_ERROR(CheckLayout(shape));
  for (int64_t r = 0; r < shape.ranks; ++r) {
    SP_ASSIGN_OR_RETURN(std::vector<TokenRun> runs, RunsOf(shape, r));
    all.push_back(std::move(runs));
  }
  return all;
}

}  // namespace

std::string_view Name(SequenceLayout layout) {
  switch (layout) {
    case SequenceLayout::kContiguous:
      return "contiguous";
    case SequenceLayout::kStriped:
      return "striped";
    case SequenceLayout::kZigzag:
      return "zigzag";
  }
  return "unknown";
}

Status CheckLayout(const LayoutShape& shape) {
  if (shape.ranks < 1 || shape.tokens < 0) {
    return InvalidArgument("{} tokens cannot be dealt to {} ranks",
                           shape.tokens, shape.ranks);
  }
  if (shape.layout == SequenceLayout::kZigzag &&
      shape.tokens % (2 * shape.ranks) != 0) {
    return InvalidArgument(
        "a zigzag over {} ranks has {} equal chunks, and {} tokens do not: pad "
        "them to {}",
        shape.ranks, 2 * shape.ranks, shape.tokens, PaddedLength(shape));
  }
  return OkStatus();
}

Status CheckSameLayout(const LayoutShape& a, const LayoutShape& b) {
  if (a == b) return OkStatus();
  return InvalidArgument(
      "{} tokens, {} over {} ranks, do not go with {}, {} over {}", a.tokens,
      Name(a.layout), a.ranks, b.tokens, Name(b.layout), b.ranks);
}

int64_t PaddedLength(const LayoutShape& shape) {
  const int64_t unit =
      shape.layout == SequenceLayout::kZigzag ? 2 * shape.ranks : shape.ranks;
  return (shape.tokens + unit - 1) / unit * unit;
}

StatusOr<std::vector<TokenRun>> RunsOf(const LayoutShape& shape, int64_t rank) {
  SP_RETURN_IF_ERROR(CheckLayout(shape));
  const int64_t n = shape.tokens, ranks = shape.ranks;
  if (rank < 0 || rank >= ranks) {
    return InvalidArgument("there is no rank {} among {}", rank, ranks);
  }
  std::vector<TokenRun> runs;
  switch (shape.layout) {
    case SequenceLayout::kContiguous: {
      const int64_t more = n % ranks;
      runs.push_back({rank * (n / ranks) + std::min(rank, more), 1,
                      n / ranks + (rank < more ? 1 : 0)});
      break;
    }
    case SequenceLayout::kStriped:
      runs.push_back(
          {rank, ranks, n > rank ? (n - rank + ranks - 1) / ranks : 0});
      break;
    case SequenceLayout::kZigzag: {
      const int64_t chunk = n / (2 * ranks);
      runs.push_back({rank * chunk, 1, chunk});
      runs.push_back({(2 * ranks - 1 - rank) * chunk, 1, chunk});
      break;
    }
  }
  std::erase_if(runs, [](const TokenRun& run) { return run.count == 0; });
  return runs;
}

int64_t CountTokens(std::span<const TokenRun> runs) {
  int64_t tokens = 0;
  for (const TokenRun& run : runs) tokens += run.count;
  return tokens;
}

std::vector<int64_t> Positions(std::span<const TokenRun> runs) {
  std::vector<int64_t> positions;
  EveryRow(runs,
           [&](int64_t position, int64_t) { positions.push_back(position); });
  return positions;
}

Status ShardRows(std::span<const TokenRun> runs, ConstTensorView all,
                 TensorView mine) {
  SP_RETURN_IF_ERROR(CheckRows(runs, all, mine));
  const auto row = static_cast<size_t>(all.shape[1] * SizeOf(all.dtype));
  if (row == 0) return OkStatus();
  EveryRow(runs, [&](int64_t from, int64_t to) {
    std::memcpy(static_cast<std::byte*>(mine.data) + to * row,
                static_cast<const std::byte*>(all.data) + from * row, row);
  });
  return OkStatus();
}

Status UnshardRows(std::span<const TokenRun> runs, ConstTensorView mine,
                   TensorView all) {
  SP_RETURN_IF_ERROR(CheckRows(runs, all, mine));
  const auto row = static_cast<size_t>(all.shape[1] * SizeOf(all.dtype));
  if (row == 0) return OkStatus();
  EveryRow(runs, [&](int64_t to, int64_t from) {
    std::memcpy(static_cast<std::byte*>(all.data) + to * row,
                static_cast<const std::byte*>(mine.data) + from * row, row);
  });
  return OkStatus();
}

StatusOr<double> Balance(const LayoutShape& shape,
                         const Visibility& visibility) {
  SP_ASSIGN_OR_RETURN(const auto all, AllRuns(shape));
  const TokenRun keys = {.count = shape.tokens};
  int64_t sum = 0, most = 0;
  for (const std::vector<TokenRun>& queries : all) {
    const int64_t pairs = CountPairs(visibility, queries, {&keys, 1});
    sum += pairs;
    most = std::max(most, pairs);
  }
  if (most == 0) return 1.0;
  return static_cast<double>(sum) / static_cast<double>(shape.ranks * most);
}

StatusOr<double> RingEfficiency(const LayoutShape& shape,
                                const Visibility& visibility) {
  SP_ASSIGN_OR_RETURN(const auto all, AllRuns(shape));
  const auto ranks = all.size();
  int64_t sum = 0, waited = 0;
  for (size_t t = 0; t < ranks; ++t) {
    int64_t most = 0;
    for (size_t r = 0; r < ranks; ++r) {
      const int64_t pairs =
          CountPairs(visibility, all[r], all[(r + ranks - t) % ranks]);
      sum += pairs;
      most = std::max(most, pairs);
    }
    waited += most;
  }
  if (waited == 0) return 1.0;
  return static_cast<double>(sum) / static_cast<double>(shape.ranks * waited);
}

}  // namespace shardproof
