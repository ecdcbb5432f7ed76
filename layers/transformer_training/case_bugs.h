// Bugs to plant into training: models that see what a broken trainer would show
// them, collectives that do not do all that they should, and broken steps.
#ifndef SHARDPROOF_LAYERS_TRANSFORMER_TRAINING_CASE_BUGS_H_
#define SHARDPROOF_LAYERS_TRANSFORMER_TRAINING_CASE_BUGS_H_

#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/kernels/optimizer.h"
#include "layers/pairing/broken_collectives.h"
#include "layers/transformer_training/case_setup.h"
#include "layers/zero/zero.h"

namespace shardproof::transformer_training {

// --- Planted bugs: models ----------------------------------------------------

class SpoiledModel : public ZeroModel {
 public:
  SpoiledModel(const P& p, ZeroModel& inner)
      : bytes_(static_cast<size_t>(BlockSize(BlockOf(p)) * SizeOf(p.dtype))),
        inner_(inner) {}
  Status Forward(int micro, size_t block, const void* parameters) override {
    return inner_.Forward(micro, block, parameters);
  }
  Status Backward(int micro, size_t block, const void* parameters,
                  void* gradients, bool accumulate) override {
    return inner_.Backward(micro, block, parameters, gradients, accumulate);
  }

 protected:
  const size_t bytes_;  // Of a block.

 private:
  ZeroModel& inner_;
};

// What is fetched before the step before has ended: the first block that a step
// uses, as it was one step earlier.
class FetchedTooEarly final : public SpoiledModel {
 public:
  using SpoiledModel::SpoiledModel;
  Status Forward(int micro, size_t block, const void* parameters) override {
    if (micro > 0 || block > 0) {
      return SpoiledModel::Forward(micro, block, parameters);
    }
    const auto* const now = static_cast<const std::byte*>(parameters);
    std::swap(before_, latest_);
    latest_.assign(now, now + bytes_);
    return SpoiledModel::Forward(micro, block,
                                 before_.empty() ? parameters : before_.data());
  }

 private:
  std::vector<std::byte> before_, latest_;
};

// Each micro-batch's gradients take the place of those before.
class NotAccumulated final : public SpoiledModel {
 public:
  using SpoiledModel::SpoiledModel;
  Status Backward(int micro, size_t block, const void* parameters,
                  void* gradients, bool /*accumulate*/) override {
    return SpoiledModel::Backward(micro, block, parameters, gradients, false);
  }
};

template <class Model>
std::unique_ptr<ZeroModel> MakeAround(const P& p, ZeroModel& inner) {
  return std::make_unique<Model>(p, inner);
}

// --- Planted bugs: collectives -----------------------------------------------

// Calls with this communicator so far: two blocks take turns.
inline StatusOr<bool> IsSecondOfTwo(const Communicator& comm) {
  SP_ASSIGN_OR_RETURN(int* const calls,
                      comm.Attribute<int>("calls of a planted bug",
                                          [] { return StatusOr<int>(0); }));
  return (*calls)++ % 2 == 1;
}

inline Status ReduceScatterOneOfTwo(const Communicator& comm,
                                    const ReduceScatterVArgs& args) {
  SP_ASSIGN_OR_RETURN(const bool second, IsSecondOfTwo(comm));
  return second ? kWithoutReduction.reduce_scatter(comm, args)
                : ReduceScatterV(comm, args);
}

// But for the count of tokens.
inline Status AllReduceOneOfTwoAgain(const Communicator& comm,
                                     const AllReduceArgs& args) {
  SP_RETURN_IF_ERROR(AllReduce(comm, args));
  if (args.count == 1) return OkStatus();
  SP_ASSIGN_OR_RETURN(const bool second, IsSecondOfTwo(comm));
  if (!second) return OkStatus();
  AllReduceArgs again = args;
  again.send = args.recv;
  return AllReduce(comm, again);
}

// Only the optimizer's own gather is of two f64.
inline bool IsNorm(const AllGatherVArgs& args) {
  return args.dtype == DType::kF64 && args.counts[0] == 2;
}
inline Status GatherAllButNorms(const Communicator& comm,
                                const AllGatherVArgs& args) {
  return IsNorm(args) ? kGatheringNothing.all_gather(comm, args)
                      : AllGatherV(comm, args);
}
inline Status GatherNormsOnly(const Communicator& comm,
                              const AllGatherVArgs& args) {
  return IsNorm(args) ? AllGatherV(comm, args) : OkStatus();
}

// --- Planted bugs: optimizers ------------------------------------------------

// Moments of the second half of each part stay as they were.
template <class Args, Status (*Step)(const Stream&, const Args&)>
Status KeepHalfOfTheMoments(const Stream& stream, const Args& args) {
  const UpdateTensors& t = args.tensors;
  const DType computed = Accumulator(t.dtype);
  const int64_t half = t.n / 2;
  const auto bytes = static_cast<size_t>((t.n - half) * SizeOf(computed));
  std::vector<std::vector<std::byte>> kept;
  const std::vector<void*> moments = {t.first, t.second};
  for (void* const m : moments) {
    const auto* const from = static_cast<const std::byte*>(m);
    kept.emplace_back();
    if (m == nullptr) continue;
    const auto* const begin = At(from, computed, half);
    kept.back().assign(begin, begin + bytes);
  }
  SP_RETURN_IF_ERROR(Step(stream, args));
  for (size_t i = 0; i < moments.size(); ++i) {
    if (bytes == 0 || moments[i] == nullptr) continue;
    std::memcpy(At(moments[i], computed, half), kept[i].data(), bytes);
  }
  return OkStatus();
}

// Bias correction of the step after, from that of this one: 1 - beta^t.
inline Status CorrectedOneStepLate(const Stream& stream, const AdamArgs& args) {
  const OptimizerSettings s = SettingsOf({});
  AdamArgs wrong = args;
  const double first = s.learning_rate / args.step_size;
  const double second = 1 / (args.second_scale * args.second_scale);
  wrong.step_size = s.learning_rate / (1 - s.beta1 * (1 - first));
  wrong.second_scale = 1 / std::sqrt(1 - s.beta2 * (1 - second));
  return AdamStep(stream, wrong);
}

}  // namespace shardproof::transformer_training

#endif  // SHARDPROOF_LAYERS_TRANSFORMER_TRAINING_CASE_BUGS_H_
