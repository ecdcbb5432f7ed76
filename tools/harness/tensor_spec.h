// The tensors of a case: what goes in and what comes out, how they are sharded
// and what the inputs hold.
//
//     [](const P& p) -> Tensors {
//       return {Input("x", p.dtype, {p.count}, PerRank())
//                   .Terms(p.op, p.ranks),
//               Output("y", p.dtype, {p.count}, Replicated())
//                   .InPlaceOf(p.in_place ? "x" : "")};
//     }
#ifndef SHARDPROOF_TOOLS_HARNESS_TENSOR_SPEC_H_
#define SHARDPROOF_TOOLS_HARNESS_TENSOR_SPEC_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "reference/dtype.h"
#include "reference/random.h"
#include "reference/reduce_op.h"
#include "reference/tensor.h"
#include "tools/harness/sharding.h"

namespace shardproof {

enum class TensorRole { kInput, kOutput };

// How an input is filled. In the exact tier the values are such that every
// order of reduction gives the same bits (numerics.md, tier 1): small integers,
// for products powers of two. `terms` says how many are added up, each with a
// factor of at most 1 in magnitude; with integer factors s_r (kPremulSum) it
// is the sum of |s_r|.
struct TensorData {
  // The reduction that the values must survive exactly. kMin and kMax take any.
  ReduceOp op = ReduceOp::kSum;
  int64_t terms = 1;
  // The narrowest type that the exact tier's sums pass through; unset: the
  // tensor's own.
  std::optional<DType> exact_in = std::nullopt;
  double scale = 1.0;     // Bounded tier: values are in [-scale, scale].
  int64_t ids_below = 0;  // > 0: integer ids uniform in [0, ids_below).
  // Instead of all the above, for one tier: operands of products (ExactLinear
  // in reference/random.h). Stored in the tensor's type.
  std::optional<Distribution> exact = std::nullopt;
  std::optional<Distribution> bounded = std::nullopt;
};

struct TensorSpec {
  std::string name;
  TensorRole role = TensorRole::kInput;
  DType dtype = DType::kF32;
  Shape shape;  // Global; without a rank dimension for PerRank.
  Sharding sharding;
  TensorData data = {};
  // Outputs: this tensor lies in the memory of input `alias`, starting at
  // element alias_offset(rank) of the alias; or, if alias_is_part, the input is
  // the part of this output that starts there (all_gather in place). On ranks
  // where either is empty, both have memory of their own.
  std::string alias = {};
  bool alias_is_part = false;
  std::function<int64_t(int rank)> alias_offset = {};
  bool gradient = false;  // Gain is required (numerics.md).
  // A dimension whose indices are independent: large outputs are checked on a
  // sample of it. -1: none.
  int sample_dimension = -1;
  bool check_replicas = true;  // Replicated outputs: same bits on every rank.
  bool sign_of_zero = false;   // Exact tier: -0 is not +0 (pure movement).
  bool gain_checked = true;

  TensorSpec& Terms(ReduceOp op, int64_t terms);
  TensorSpec& Data(TensorData value);
  TensorSpec& InPlaceOf(std::string input);  // "" changes nothing.
  TensorSpec& InPlaceOf(std::string input,
                        std::function<int64_t(int rank)> offset,
                        bool input_is_part);
  TensorSpec& Gradient();
  TensorSpec& SampleDimension(int dimension);
  TensorSpec& SignOfZero();
  // An output whose roundings hang together with its values, so that even a
  // right one may be scaled: a weight of a narrow type that a step changes by
  // less than its last place stays as it was, whichever way the step went.
  // Never a gradient.
  TensorSpec& GainUnchecked();

  // What `rank` of `ranks` holds.
  LocalBlock BlockOf(int rank, int ranks) const {
    return sharding.block(shape, rank, ranks);
  }
  // An output of which all ranks hold the same bits, which are compared.
  bool is_replica() const {
    return role == TensorRole::kOutput && check_replicas &&
           sharding.kind == ShardKind::kReplicated;
  }
};
using Tensors = std::vector<TensorSpec>;

TensorSpec Input(std::string name, DType dtype, Shape shape, Sharding sharding);
TensorSpec Output(std::string name, DType dtype, Shape shape,
                  Sharding sharding);

// The spec called `name`, or null.
const TensorSpec* FindTensor(const Tensors& tensors, std::string_view name);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_TENSOR_SPEC_H_
