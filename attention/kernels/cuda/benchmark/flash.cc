// Points of attention: a causal and a full one of each head dimension, forward and backward, in bf16.
//
// Operations are counted as papers do: 4 B H S^2 D forward, 10 backward, half of both if causal.
#include "attention/kernels/flash.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "layers/kernels/cuda/benchmark/families.h"

namespace shardproof::cuda {
namespace {

// What this project asks of its kernels on an H100, in TFLOP/s.
constexpr double kWantedForward = 250, kWantedBackward = 200;

constexpr DType kType = DType::kBF16;
constexpr int64_t kNarrow = 2;

struct Sizes {
  int64_t sequences = 1, length = 0, heads = 0, kv_heads = 0, head_dim = 0;
  bool causal = false;

  int64_t group() const { return heads / kv_heads; }
  int64_t q() const { return sequences * length * heads * head_dim; }
  int64_t k() const { return sequences * length * kv_heads * head_dim; }
  int64_t numbers() const { return sequences * heads * length; }
  double flops() const {
    return (causal ? 2.0 : 4.0) * static_cast<double>(q()) *
           static_cast<double>(length);
  }
};

// A KV head and its queries, of one sequence.
struct Group {
  int64_t sequence = 0, kv_head = 0;
};
// The host attends for the first and the last of them: all would take a CPU minutes.
std::vector<Group> CheckedGroups(const Sizes& s) {
  std::vector<Group> groups = {{0, 0}};
  if (s.sequences * s.kv_heads > 1) {
    groups.push_back({s.sequences - 1, s.kv_heads - 1});
  }
  return groups;
}

// [begin, end) of every token of these groups, of [sequences, length, kv_heads, heads_per_kv, head_dim].
std::vector<std::pair<int64_t, int64_t>> RangesOf(const Sizes& s,
                                                  int64_t heads_per_kv) {
  std::vector<std::pair<int64_t, int64_t>> ranges;
  const int64_t part = heads_per_kv * s.head_dim;
  for (const Group& g : CheckedGroups(s)) {
    for (int64_t t = 0; t < s.length; ++t) {
      const int64_t begin =
          ((g.sequence * s.length + t) * s.kv_heads + g.kv_head) * part;
      ranges.emplace_back(begin, begin + part);
    }
  }
  return ranges;
}
// The same of [sequences, heads, length].
std::vector<std::pair<int64_t, int64_t>> NumberRanges(const Sizes& s) {
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (const Group& g : CheckedGroups(s)) {
    const int64_t begin =
        (g.sequence * s.heads + g.kv_head * s.group()) * s.length;
    ranges.emplace_back(begin, begin + s.group() * s.length);
  }
  return ranges;
}

// Sums of many products, some of whose factors are rounded to bf16 on both sides.
Operand Result(const std::string& name, DType dtype, int64_t count,
               std::vector<std::pair<int64_t, int64_t>> ranges) {
  Operand result = Output(name, dtype, count, 0, 0);
  result.relative = 4 * UnitRoundoff(kType);
  result.of_rms = 8 * UnitRoundoff(kType);
  result.ranges = std::move(ranges);
  return result;
}

FlashShape ShapeOf(const Sizes& s, int64_t sequences, int64_t kv_heads,
                   bool backward) {
  return {.sequences = sequences,
          .queries = s.length,
          .keys = s.length,
          .heads = kv_heads * s.group(),
          .kv_heads = kv_heads,
          .heads_per_kv = s.group(),
          .head_dim = s.head_dim,
          .scale = 1 / std::sqrt(static_cast<double>(s.head_dim)),
          .dtype = kType,
          .backward = backward};
}

// Where a group's part of an operand begins.
struct Places {
  int64_t q = 0, k = 0, number = 0;
};
Places PlacesOf(const Sizes& s, const Group& g) {
  return {.q = (g.sequence * s.length * s.heads + g.kv_head * s.group()) *
               s.head_dim,
          .k = (g.sequence * s.length * s.kv_heads + g.kv_head) * s.head_dim,
          .number = (g.sequence * s.heads + g.kv_head * s.group()) * s.length};
}

void* Offset(void* base, int64_t elements, int64_t element_bytes) {
  return static_cast<std::byte*>(base) + elements * element_bytes;
}

// Operands: q, k, v, o, lse.
Status RunForward(FlashAttention& flash, const Sizes& s, const Places& from,
                  void* const* at) {
  const Visibility visibility = {.causal = s.causal};
  const int64_t wide = s.heads * s.head_dim, narrow = s.kv_heads * s.head_dim;
  return flash.Forward(Stream::Inline(),
                       {.block = {.queries = {.count = s.length},
                                  .keys = {.count = s.length},
                                  .visibility = &visibility},
                        .q = {Offset(at[0], from.q, kNarrow), wide},
                        .k = {Offset(at[1], from.k, kNarrow), narrow},
                        .v = {Offset(at[2], from.k, kNarrow), narrow},
                        .o = {Offset(at[3], from.q, kNarrow), wide},
                        .o_type = kType,
                        .lse = {Offset(at[4], from.number, kWide)}});
}

// Operands: q, k, v, dO, lse, delta, dQ, dK, dV.
Status RunBackward(FlashAttention& flash, const Sizes& s, const Places& from,
                   void* const* at) {
  const Visibility visibility = {.causal = s.causal};
  const int64_t wide = s.heads * s.head_dim, narrow = s.kv_heads * s.head_dim;
  return flash.Backward(Stream::Inline(),
                        {.block = {.queries = {.count = s.length},
                                   .keys = {.count = s.length},
                                   .visibility = &visibility},
                         .q = {Offset(at[0], from.q, kNarrow), wide},
                         .k = {Offset(at[1], from.k, kNarrow), narrow},
                         .v = {Offset(at[2], from.k, kNarrow), narrow},
                         .d_o = {Offset(at[3], from.q, kNarrow), wide},
                         .lse = {Offset(at[4], from.number, kWide)},
                         .delta = {Offset(at[5], from.number, kWide)},
                         .dq = {Offset(at[6], from.q, kWide), wide},
                         .dk = {Offset(at[7], from.k, kWide), narrow},
                         .dv = {Offset(at[8], from.k, kWide), narrow},
                         .overwrite = true});
}

using Pass = Status (*)(FlashAttention& flash, const Sizes& s,
                        const Places& from, void* const* at);

KernelPoint PointOf(const Sizes& s, const char* name, bool backward,
                    Pass pass) {
  KernelPoint point = {.name = name, .dtype = kType};
  point.params = {{"dtype", std::string(Name(kType))},
                  Param("batch", s.sequences),
                  Param("heads", s.heads),
                  Param("kv_heads", s.kv_heads),
                  Param("sequence", s.length),
                  Param("head_dim", s.head_dim),
                  {"causal", s.causal ? "true" : "false"}};
  point.run = [s, backward, pass](void* const* at) -> Status {
    SP_ASSIGN_OR_RETURN(
        const std::unique_ptr<FlashAttention> flash,
        FlashAttention::Create(ShapeOf(s, s.sequences, s.kv_heads, backward)));
    return pass(*flash, s, {}, at);
  };
  point.host = [s, backward, pass](void* const* at) -> Status {
    SP_ASSIGN_OR_RETURN(
        const std::unique_ptr<FlashAttention> flash,
        FlashAttention::CreateOnHost(ShapeOf(s, 1, 1, backward)));
    for (const Group& group : CheckedGroups(s)) {
      SP_RETURN_IF_ERROR(pass(*flash, s, PlacesOf(s, group), at));
    }
    return OkStatus();
  };
  return point;
}

KernelPoint Forward(const Sizes& s) {
  KernelPoint point = PointOf(s, "flash_forward", false, &RunForward);
  Operand lse = Output("lse", DType::kF32, s.numbers(), 256, 16);
  lse.ranges = NumberRanges(s);
  // Scores of a few units, so that some keys count more than others.
  point.operands = {Random("q", kType, s.q(), 4), Random("k", kType, s.k()),
                    Random("v", kType, s.k()),
                    Result("o", kType, s.q(), RangesOf(s, s.group())), lse};
  point.kernels = {
      {.name = "flash_forward",
       .bytes = Sum((2 * s.q() + 2 * s.k()) * kNarrow, s.numbers() * kWide),
       .flops = s.flops(),
       .wanted_tflops = kWantedForward}};
  return point;
}

KernelPoint Backward(const Sizes& s) {
  KernelPoint point = PointOf(s, "flash_backward", true, &RunBackward);
  // Near the lse that scores of this size have, so that P sums to about 1.
  const double lse = std::log(static_cast<double>(s.length)) + 0.5;
  point.operands = {
      Random("q", kType, s.q()),
      Random("k", kType, s.k()),
      Random("v", kType, s.k()),
      Random("d_o", kType, s.q()),
      RandomBetween("lse", DType::kF32, s.numbers(), lse - 0.1, lse + 0.1),
      Random("delta", DType::kF32, s.numbers(), 0.1),
      Result("dq", DType::kF32, s.q(), RangesOf(s, s.group())),
      Result("dk", DType::kF32, s.k(), RangesOf(s, 1)),
      Result("dv", DType::kF32, s.k(), RangesOf(s, 1))};
  const double read =
      Sum((2 * s.q() + 2 * s.k()) * kNarrow, 2 * s.numbers() * kWide);
  const double keys = Sum(2 * s.k() * kWide), queries = Sum(s.q() * kWide);
  // Each makes S and dO V^T for itself.
  point.kernels = {{.name = "flash_key_gradients",
                    .bytes = read + keys,
                    .flops = 2 * s.flops()},
                   {.name = "flash_query_gradients",
                    .bytes = read + queries,
                    .flops = 1.5 * s.flops()}};
  point.whole = {.name = "flash_backward",
                 .bytes = read + keys + queries,
                 .flops = 2.5 * s.flops(),
                 .wanted_tflops = kWantedBackward};
  return point;
}

const KernelPoints kPoints([](const ModelShape& m,
                              std::vector<KernelPoint>& points) {
  for (const int64_t length : m.sequences) {
    for (const int64_t head_dim : {64, 128}) {
      for (const bool causal : {false, true}) {
        const Sizes sizes = {
            .sequences = std::max<int64_t>(m.tokens / length, 1),
            .length = length,
            .heads = m.heads,
            .kv_heads = m.kv_heads,
            .head_dim = head_dim,
            .causal = causal};
        points.push_back(Forward(sizes));
        points.push_back(Backward(sizes));
      }
    }
  }
});

}  // namespace
}  // namespace shardproof::cuda
