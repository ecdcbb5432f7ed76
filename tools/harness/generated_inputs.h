// The inputs of one execution of a case: what every rank's buffers hold, and
// what the reference reads.
//
//     SP_ASSIGN_OR_RETURN(auto inputs,
//         GeneratedInputs::Create(tensors, ranks, Tier::kExact, seed));
//     inputs->FillBlock(tensors[0], rank, buffer);   // this rank's part
//     inputs->Read("x", other_rank, 0, doubles);     // any other's
//
// Element i of a tensor is a function of (seed, tensor, rank, i), with the rank
// left out where the tensor is global, so a shard holds the same values
// wherever it lies.
#ifndef SHARDPROOF_TOOLS_HARNESS_GENERATED_INPUTS_H_
#define SHARDPROOF_TOOLS_HARNESS_GENERATED_INPUTS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reference/random.h"
#include "tools/harness/case_reference.h"
#include "tools/harness/tensor_spec.h"

namespace shardproof {

enum class Tier { kExact, kBounded };
std::string_view Name(Tier tier);

class GeneratedInputs final : public Inputs {
 public:
  // kUnsupported where no data makes the tier possible (an average of 11 ranks
  // in e5m2). `tensors` must outlive the result.
  static StatusOr<std::unique_ptr<GeneratedInputs>> Create(
      const Tensors& tensors, int ranks, Tier tier, uint64_t seed);

  // Writes the block of `rank` of input `spec`, in the tensor's own type.
  void FillBlock(const TensorSpec& spec, int rank, void* data) const;

  void Read(std::string_view tensor, int rank, int64_t begin,
            std::span<double> out) const override;
  std::vector<double> All(std::string_view tensor) const override;
  ConstTensorView Global(std::string_view tensor) const override;

 private:
  struct Stream {
    const TensorSpec* spec = nullptr;
    Distribution distribution = {};
  };
  GeneratedInputs(int ranks, Tier tier, uint64_t seed)
      : ranks_(ranks), tier_(tier), seed_(seed) {}
  const Stream& Find(std::string_view tensor) const;
  Distribution For(const Stream& stream, int rank) const;
  StreamKey Key(const Stream& stream, int rank) const;

  int ranks_;
  Tier tier_;
  uint64_t seed_;
  std::vector<Stream> streams_;
  mutable std::map<std::string, Tensor, std::less<>> global_;
};

// `inputs` as if what `rank` holds were zero: the tensors of its own, and its
// shards of the global ones. What a contribution that is lost on the way would
// give; also the way to find what a rank contributed.
class WithoutRank final : public Inputs {
 public:
  WithoutRank(const Inputs& inputs, const Tensors& tensors, int rank, int ranks)
      : inputs_(inputs), tensors_(tensors), rank_(rank), ranks_(ranks) {}

  void Read(std::string_view tensor, int rank, int64_t begin,
            std::span<double> out) const override;
  std::vector<double> All(std::string_view tensor) const override;
  ConstTensorView Global(std::string_view tensor) const override;

 private:
  const Inputs& inputs_;
  const Tensors& tensors_;
  int rank_, ranks_;
  mutable std::map<std::string, Tensor, std::less<>> global_;
};

// Refuses inputs with which mistakes would not show: a tensor that is the same
// on two ranks, constant, or periodic (misplaced chunks would pass). Looks at
// the first 256 elements only, and lets fewer than 24 pass, which may agree by
// chance. kInvalidArgument names the tensor.
Status CheckInputsDiffer(const Inputs& inputs, const Tensors& tensors,
                         int ranks);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_GENERATED_INPUTS_H_
