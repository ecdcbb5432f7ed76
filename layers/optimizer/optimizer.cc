#include "layers/optimizer/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "collectives/chunks.h"
#include "layers/tensor_parallel/agree.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {
namespace {

constexpr int kPerRank = 2;  // The squares and the flag.

}  // namespace

std::string Describe(const ParallelOptimizerConfig& config) {
  const OptimizerSettings& s = config.settings;
  std::string text = fmt::format(
      "{} optimizer of {} parameters and {} gradients, rate {}, momentum {}, "
      "betas {} and {}, epsilon {}, decay {}",
      Name(s.rule), Name(config.dtype), Name(config.gradient_dtype),
      s.learning_rate, s.momentum, s.beta1, s.beta2, s.epsilon, s.weight_decay);
  if (s.max_norm.has_value()) {
    text +=
        fmt::format(", norm at most {} (+ {})", *s.max_norm, s.clip_epsilon);
  }
  if (s.loss_scaling.has_value()) {
    const LossScaling& l = *s.loss_scaling;
    text += fmt::format(", loss scale {} by {} each {} steps or by {}",
                        l.initial, l.growth, l.growth_interval, l.backoff);
  }
  return text;
}

namespace {

// Written so that a NaN is refused.
Status CheckSettings(const OptimizerSettings& s) {
  const auto fraction = [](double x) { return x >= 0 && x < 1; };
  if (!(s.learning_rate >= 0)) return InvalidArgument("a negative rate");
  if (!(s.weight_decay >= 0)) return InvalidArgument("a negative decay");
  if (!fraction(s.momentum) || !fraction(s.beta1) || !fraction(s.beta2)) {
    return InvalidArgument("a momentum or beta is not in [0, 1)");
  }
  if (!(s.epsilon >= 0)) return InvalidArgument("a negative epsilon");
  if (s.max_norm.has_value() && !(*s.max_norm > 0)) {
    return InvalidArgument("the largest norm is not positive");
  }
  if (!(s.clip_epsilon >= 0)) return InvalidArgument("a negative epsilon");
  if (s.loss_scaling.has_value()) {
    const LossScaling& l = *s.loss_scaling;
    if (!(l.initial > 0) || !(l.growth >= 1) ||
        !(l.backoff > 0 && l.backoff < 1) || l.growth_interval < 1) {
      return InvalidArgument("the loss scale can not be kept");
    }
  }
  return OkStatus();
}

Status Check(const Communicator& comm, const ParallelOptimizerConfig& config,
             std::span<const OptimizerTensor> tensors) {
  const std::string text = Describe(config);
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  SP_RETURN_IF_ERROR(CheckSettings(config.settings).WithContext(text));
  SP_RETURN_IF_ERROR(CheckLayerType(config.dtype).WithContext(text));
  if (config.gradient_dtype != config.dtype &&
      config.gradient_dtype != Accumulator(config.dtype)) {
    return Unsupported("{}: gradients are {} or {}", text, Name(config.dtype),
                       Name(Accumulator(config.dtype)));
  }
  Status mine;
  for (const OptimizerTensor& t : tensors) {
    if (t.count < 0) mine = InvalidArgument("a tensor of {} elements", t.count);
  }
  return AgreeOnStatus(comm, mine).WithContext(text);
}

Status Zeros(DType dtype, int64_t count, std::unique_ptr<Tensor>& out) {
  SP_ASSIGN_OR_RETURN(Tensor made, Tensor::Create(dtype, {count}));
  std::memset(made.raw(), 0, static_cast<size_t>(made.num_bytes()));
  out = std::make_unique<Tensor>(std::move(made));
  return OkStatus();
}

}  // namespace

ParallelOptimizer::ParallelOptimizer(const ParallelOptimizerConfig& config,
                                     std::vector<OptimizerTensor> tensors,
                                     const CollectiveFamily& collectives,
                                     const OptimizerKernels& kernels)
    : config_(config),
      tensors_(std::move(tensors)),
      collectives_(collectives),
      kernels_(kernels),
      scale_(config.settings.loss_scaling) {
  for (const OptimizerTensor& t : tensors_) {
    begins_.push_back(count_);
    count_ += t.count;
  }
}

StatusOr<ParallelOptimizer> ParallelOptimizer::Create(
    const Communicator& comm, const ParallelOptimizerConfig& config,
    std::vector<OptimizerTensor> tensors, const CollectiveFamily& collectives,
    const OptimizerKernels& kernels) {
  SP_RETURN_IF_ERROR(Check(comm, config, tensors));
  ParallelOptimizer made(config, std::move(tensors), collectives, kernels);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, made.Allocate(comm)));
  return made;
}

Status ParallelOptimizer::Allocate(const Communicator& comm) {
  comm_ = comm;
  const DType computed = Accumulator(config_.dtype);
  if (computed != config_.dtype) {
    SP_RETURN_IF_ERROR(Zeros(computed, count_, master_));
  }
  if (config_.settings.HasFirstMoment()) {
    SP_RETURN_IF_ERROR(Zeros(computed, count_, first_));
  }
  if (config_.settings.HasSecondMoment()) {
    SP_RETURN_IF_ERROR(Zeros(computed, count_, second_));
  }
  counts_.assign(static_cast<size_t>(comm.size()), kPerRank);
  SP_ASSIGN_OR_RETURN(
      gathered_, comm.Allocate(sizeof(double) * kPerRank * counts_.size()));
  return OkStatus();
}

std::byte* ParallelOptimizer::StateOf(const Tensor& block,
                                      size_t tensor) const {
  // A block is not const because the optimizer that owns it is.
  auto* const data = const_cast<void*>(block.raw());
  return At(data, block.dtype(), begins_[tensor]);
}

const void* ParallelOptimizer::master(size_t tensor) const {
  return master_ ? StateOf(*master_, tensor) : nullptr;
}
const void* ParallelOptimizer::first(size_t tensor) const {
  return first_ ? StateOf(*first_, tensor) : nullptr;
}
const void* ParallelOptimizer::second(size_t tensor) const {
  return second_ ? StateOf(*second_, tensor) : nullptr;
}

int64_t ParallelOptimizer::state_bytes() const {
  int64_t bytes = 0;
  for (const Tensor* block : {master_.get(), first_.get(), second_.get()}) {
    if (block != nullptr) bytes += block->num_bytes();
  }
  return bytes;
}

Status ParallelOptimizer::Load(std::span<const void* const> parameters) {
  if (parameters.size() != tensors_.size()) {
    return InvalidArgument("{} parameters for {} tensors", parameters.size(),
                           tensors_.size());
  }
  for (size_t i = 0; i < tensors_.size() && master_; ++i) {
    SP_RETURN_IF_ERROR(WidenParameters(Stream::Inline(), config_.dtype,
                                       tensors_[i].count, parameters[i],
                                       StateOf(*master_, i)));
  }
  for (Tensor* moment : {first_.get(), second_.get()}) {
    if (moment == nullptr) continue;
    std::memset(moment->raw(), 0, static_cast<size_t>(moment->num_bytes()));
  }
  scale_ = LossScale(config_.settings.loss_scaling);
  steps_ = 0;
  report_ = {};
  return OkStatus();
}

StatusOr<SquareSum> ParallelOptimizer::Measure(
    std::span<const OptimizerMemory> memory) {
  SquareSum own, duplicates;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    SP_RETURN_IF_ERROR(kernels_.add_squares(
        Stream::Inline(), config_.gradient_dtype, tensors_[i].count,
        memory[i].gradient, tensors_[i].counted ? &own : &duplicates));
  }
  own.finite = own.finite && duplicates.finite;
  if (comm_.size() == 1) return own;
  auto* const all = gathered_.as<double>();
  double* const mine = all + int64_t{kPerRank} * comm_.rank();
  mine[0] = own.sum;
  mine[1] = own.finite ? 0 : 1;
  SP_RETURN_IF_ERROR(collectives_.all_gather(
      comm_,
      {.send = mine, .recv = all, .counts = counts_, .dtype = DType::kF64}));
  SquareSum total;
  for (int r = 0; r < comm_.size(); ++r) {
    total.sum += all[kPerRank * r];
    total.finite = total.finite && all[kPerRank * r + 1] == 0;
  }
  return total;
}

Status ParallelOptimizer::Step(std::span<const OptimizerMemory> memory,
                               double factor, const Stream& stream) {
  if (memory.size() != tensors_.size()) {
    return InvalidArgument("memory of {} tensors for {}", memory.size(),
                           tensors_.size());
  }
  if (stream.is_inline()) return StepNow(memory, factor);
  std::vector<OptimizerMemory> kept(memory.begin(), memory.end());
  return stream.Run(
      [this, kept = std::move(kept), factor] { return StepNow(kept, factor); });
}

Status ParallelOptimizer::StepNow(std::span<const OptimizerMemory> memory,
                                  double factor) {
  const OptimizerSettings& s = config_.settings;
  const double unscale = factor / scale_.value();
  report_ = {.loss_scale = scale_.value()};
  if (Measures()) {
    SP_ASSIGN_OR_RETURN(const SquareSum total, Measure(memory));
    report_.norm = total.finite ? std::sqrt(total.sum) * std::abs(unscale)
                                : std::numeric_limits<double>::infinity();
    report_.skipped = s.loss_scaling.has_value() && !total.finite;
  }
  scale_.Update(report_.skipped);
  if (report_.skipped) return OkStatus();
  ++steps_;
  if (s.max_norm.has_value() && !std::isinf(*s.max_norm)) {
    report_.clip = std::min(1.0, *s.max_norm / (report_.norm + s.clip_epsilon));
  }
  for (size_t i = 0; i < tensors_.size(); ++i) {
    SP_RETURN_IF_ERROR(Update(i, memory[i], report_.clip * unscale));
  }
  return OkStatus();
}

Status ParallelOptimizer::Update(size_t tensor, const OptimizerMemory& memory,
                                 double scale) {
  const OptimizerSettings& s = config_.settings;
  const auto state = [&](const std::unique_ptr<Tensor>& block) -> void* {
    return block ? StateOf(*block, tensor) : nullptr;
  };
  const UpdateTensors tensors = {.n = tensors_[tensor].count,
                                 .dtype = config_.dtype,
                                 .gradient_dtype = config_.gradient_dtype,
                                 .parameter = memory.parameter,
                                 .gradient = memory.gradient,
                                 .master = state(master_),
                                 .first = state(first_),
                                 .second = state(second_)};
  if (s.rule == OptimizerRule::kSgd) {
    return kernels_.sgd(Stream::Inline(), {.tensors = tensors,
                                           .gradient_scale = scale,
                                           .learning_rate = s.learning_rate,
                                           .momentum = s.momentum,
                                           .coupled_decay = s.weight_decay});
  }
  const bool decoupled = s.rule == OptimizerRule::kAdamW;
  const auto n = static_cast<double>(steps_);
  return kernels_.adam(
      Stream::Inline(),
      {.tensors = tensors,
       .gradient_scale = scale,
       .beta1 = s.beta1,
       .beta2 = s.beta2,
       .epsilon = s.epsilon,
       .step_size = s.learning_rate / (1 - std::pow(s.beta1, n)),
       .second_scale = 1 / std::sqrt(1 - std::pow(s.beta2, n)),
       .coupled_decay = decoupled ? 0 : s.weight_decay,
       .shrink = decoupled ? 1 - s.learning_rate * s.weight_decay : 1});
}

Cost ParallelOptimizerCost(int ranks, const OptimizerSettings& settings,
                           const CollectiveFamily& collectives) {
  if (ranks == 1 || (!settings.max_norm && !settings.loss_scaling)) return {};
  const std::vector<int64_t> counts(static_cast<size_t>(ranks), kPerRank);
  // The gather's memory is the optimizer's own.
  return collectives.all_gather_cost(counts, DType::kF64, Memory::kShared);
}

}  // namespace shardproof
