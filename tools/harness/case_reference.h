// The reference of a case: what its outputs must be, from the inputs of all
// ranks, on one device.
#ifndef SHARDPROOF_TOOLS_HARNESS_CASE_REFERENCE_H_
#define SHARDPROOF_TOOLS_HARNESS_CASE_REFERENCE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "reference/bounded.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

// The inputs of every rank, regenerated from (seed, tensor, rank, index): the
// reference needs no communication. Asking for a tensor that is not an input
// of the case ends the process: that is a mistake in the case.
class Inputs {
 public:
  virtual ~Inputs() = default;
  // out[i] = element begin + i of `tensor`: of rank `rank`'s own for kPerRank,
  // else of the global tensor (rank ignored).
  virtual void Read(std::string_view tensor, int rank, int64_t begin,
                    std::span<double> out) const = 0;
  // All of a global tensor.
  virtual std::vector<double> All(std::string_view tensor) const = 0;
  // The same in its own dtype and shape; made once, valid as long as this.
  virtual ConstTensorView Global(std::string_view tensor) const = 0;
};

// Which elements a BlockReference is asked for: local elements [begin, begin +
// out.size()) of `tensor` on `rank`.
struct BlockQuery {
  std::string_view tensor;
  int rank = 0;
  int64_t begin = 0;
};

// Which part of the outputs a DenseReference computes: all (absent), or these
// indices of an output's sample dimension, ascending.
using Sample = std::map<std::string, std::vector<int64_t>, std::less<>>;
// Global values; where the output is sampled, only the sampled indices, in
// order.
using DenseOutputs = std::map<std::string, std::vector<Bounded>, std::less<>>;

template <class P>
using BlockFunction =
    std::function<void(const P&, const Arithmetic&, const Inputs&,
                       const BlockQuery&, std::span<Bounded>)>;
template <class P>
using DenseFunction = std::function<StatusOr<DenseOutputs>(
    const P&, const Arithmetic&, const Inputs&, const Sample&)>;

// Exactly one is set. Block references suit collectives (gigabytes, element by
// element), dense ones layers. A block function assigns to the elements of
// `out`; those that it leaves alone must not be written by any variant (gaps
// between the blocks of the v forms).
template <class P>
struct Reference {
  BlockFunction<P> block = {};
  DenseFunction<P> dense = {};
};
template <class P>
Reference<P> BlockReference(std::type_identity_t<BlockFunction<P>> f) {
  return {.block = std::move(f)};
}
template <class P>
Reference<P> DenseReference(std::type_identity_t<DenseFunction<P>> f) {
  return {.dense = std::move(f)};
}

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_CASE_REFERENCE_H_
