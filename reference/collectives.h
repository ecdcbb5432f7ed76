// What every collective must deliver, element by element, in one place and in
// any block.
//
// Contract: each function writes elements [begin, begin + out.size()) of the
// output of `rank`, with x_r the input of rank r and p ranks:
//
//   AllReduce       y[i] = op_r x_r[i]
//   Reduce          the same on the root; other ranks have no output
//   ReduceScatter   y[i] = op_r x_r[displacement(rank) + i],  i < count(rank)
//   AllGather       y[displacement(r) + i] = x_r[i],          i < count(r)
//   Gather          the same on the root
//   Scatter         y[i] = x_root[displacement(rank) + i],    i < count(rank)
//   Broadcast       y[i] = x_root[i]
//   AllToAll        y[recv_rank(s) + i] = x_s[send_s(rank) + i]
//   SendRecv        y[i] = x_((rank - shift) mod p)[i]        (a ring shift)
//
// Elements that no rank writes (gaps between displacements, non-roots) are left
// in `out` as the caller set them. Inputs come through a callback, so that a
// gigabyte is never in memory.
//
//   Reduction sum{.op = ReduceOp::kSum, .dtype = DType::kBF16, .ranks = 4,
//                 .arithmetic = Arithmetic::For(DType::kBF16, 4)};
//   AllReduceExpected(sum, input, /*rank=*/0, begin, block);
//
// Bounds of reductions, with u_a the accumulator's and u_T the type's roundoff
// and q roundings to the type:
//
//   sum         [(1 + u_a)^(p-1) (1 + u_T)^q - 1] sum|x_r| + underflow
//   premul_sum  the same with (1 + u_a)^p and |s_r x_r|
//   avg         the same with (1 + u_a)^(p+1) and |x_r| / p: an implementation
//               may round 1/p and multiply by it
//   prod        [(1 + u_a)^(p-1) (1 + u_T)^q - 1] |prod x_r| + underflow
//   min, max    0
//
// Floating-point results overflow to the type's infinity (or NaN) when they are
// compared. Integers wrap; i64 results are exact up to 2^53.

#ifndef SHARDPROOF_REFERENCE_COLLECTIVES_H_
#define SHARDPROOF_REFERENCE_COLLECTIVES_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"
#include "reference/status.h"

namespace shardproof {

// Writes elements [begin, begin + out.size()) of the input of `rank`.
using InputFn =
    std::function<void(int rank, int64_t begin, std::span<double> out)>;

// Where the block of each rank lies in a concatenated buffer. Serves the equal
// and the v forms alike.
struct Layout {
  std::vector<int64_t> counts;
  std::vector<int64_t> displacements;

  int ranks() const { return static_cast<int>(counts.size()); }
  // The end of the furthest block: the length of the buffer.
  int64_t extent() const;

  // `count` elements for each of `ranks`.
  static Layout Even(int ranks, int64_t count);
  // `total` elements in order; the first total % ranks blocks are one longer.
  static Layout Split(int ranks, int64_t total);
  // Blocks of these counts in order, without gaps.
  static Layout Packed(std::vector<int64_t> counts);
  // Sizes equal, nothing negative, no overlap.
  Status Validate() const;
};

struct Reduction {
  ReduceOp op = ReduceOp::kSum;
  DType dtype = DType::kF32;
  int ranks = 1;
  // accumulate is the type of the additions, wire_roundings is q: roundings to
  // `dtype` on the path of one contribution, the final one included (0: 1).
  // wire and store are taken to be `dtype`. The bounds hold for any order of
  // the ranks.
  Arithmetic arithmetic = {};
  // kPremulSum: one factor per rank.
  std::vector<double> factors = {};
};

void AllReduceExpected(const Reduction& reduction, const InputFn& input,
                       int rank, int64_t begin, std::span<Bounded> out);
void ReduceExpected(const Reduction& reduction, int root, const InputFn& input,
                    int rank, int64_t begin, std::span<Bounded> out);
void ReduceScatterExpected(const Reduction& reduction, const Layout& layout,
                           const InputFn& input, int rank, int64_t begin,
                           std::span<Bounded> out);
void AllGatherExpected(const Layout& layout, const InputFn& input, int rank,
                       int64_t begin, std::span<Bounded> out);
void GatherExpected(const Layout& layout, int root, const InputFn& input,
                    int rank, int64_t begin, std::span<Bounded> out);
void ScatterExpected(const Layout& layout, int root, const InputFn& input,
                     int rank, int64_t begin, std::span<Bounded> out);
void BroadcastExpected(int root, const InputFn& input, int rank, int64_t begin,
                       std::span<Bounded> out);

// send[s]: where the blocks for each destination lie in rank s's input.
// recv[d]: where the blocks of each source lie in rank d's output.
struct AllToAllLayout {
  std::vector<Layout> send;
  std::vector<Layout> recv;

  static AllToAllLayout Even(int ranks, int64_t count);
  // counts[s][d] elements from s to d, packed on both sides.
  static AllToAllLayout FromCounts(
      const std::vector<std::vector<int64_t>>& counts);
  // send[s].counts[d] == recv[d].counts[s], and each layout valid.
  Status Validate() const;
};
void AllToAllExpected(const AllToAllLayout& layout, const InputFn& input,
                      int rank, int64_t begin, std::span<Bounded> out);
// The same with `count` elements in every block, in the order of ranks. It
// allocates nothing for the layout, which for p ranks has p^2 blocks: few
// elements can be asked for at a time.
void AllToAllExpected(int64_t count, const InputFn& input, int rank,
                      int64_t begin, std::span<Bounded> out);

// Every rank sends its whole input to (rank + shift) mod ranks.
void SendRecvExpected(int ranks, int shift, const InputFn& input, int rank,
                      int64_t begin, std::span<Bounded> out);

// What rank `from` contributed to the output of a reduction at [begin, ..):
// s_r x_r for premul_sum, x_r / p for avg, else x_r. For the diagnosis of a
// comparison; the contributions to sum, avg and premul_sum add up to the result.
void ReductionTerm(const Reduction& reduction, const InputFn& input, int from,
                   int64_t begin, std::span<double> out);

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_COLLECTIVES_H_
