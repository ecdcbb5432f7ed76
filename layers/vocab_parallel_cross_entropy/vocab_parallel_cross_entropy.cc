#include "layers/vocab_parallel_cross_entropy/vocab_parallel_cross_entropy.h"

#include <algorithm>
#include <string>
#include <utility>

#include "layers/kernels/cross_entropy.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {
namespace {

constexpr int64_t kReportNumbers = 4;

CrossEntropyShape ShapeOf(const VocabCrossEntropyConfig& config,
                          const VocabPartition& partition) {
  return {.dtype = config.dtype,
          .tokens = config.tokens,
          .columns = partition.rows,
          .valid = partition.valid(),
          .begin = partition.begin,
          .vocabulary = config.vocabulary,
          .ignore_index = config.ignore_index,
          .smoothing = config.smoothing};
}

// Without the tokens, which data-parallel ranks may have more or less of.
std::string Describe(const VocabCrossEntropyConfig& config) {
  return fmt::format(
      "vocab_parallel_cross_entropy of {} over a vocabulary of {} in multiples "
      "of {}, smoothing {}, ignore_index {}{}",
      Name(config.dtype), config.vocabulary, config.multiple, config.smoothing,
      config.ignore_index, config.per_token ? ", per token" : "");
}

Status CheckSizes(const VocabCrossEntropyConfig& config) {
  if (config.tokens < 0) {
    return InvalidArgument("{} tokens are negative", config.tokens);
  }
  if (config.vocabulary < 1 || config.multiple < 1) {
    return InvalidArgument("the vocabulary and its multiple are at least 1");
  }
  if (!(config.smoothing >= 0 && config.smoothing <= 1)) {
    return InvalidArgument("the smoothing is in [0, 1]");
  }
  return CheckLayerType(config.dtype);
}

Status CheckGroup(const Communicator& comm,
                  const VocabCrossEntropyConfig& config, bool data_parallel) {
  const std::string text = Describe(config);
  SP_RETURN_IF_ERROR(
      AgreeOnLayer(comm, fmt::format("{}, {} tokens{}", text, config.tokens,
                                     data_parallel ? ", data-parallel" : "")));
  return CheckSizes(config).WithContext(text);
}

// What is wrong in one tensor-parallel group is wrong in all: a data-parallel
// rank of each passes it on.
Status Check(const Communicator& comm, const VocabCrossEntropyConfig& config,
             const Communicator* data_parallel) {
  const Status mine = CheckGroup(comm, config, data_parallel != nullptr);
  if (data_parallel == nullptr) return mine;
  constexpr char kFine = '+';
  const std::string word =
      mine.ok() ? kFine + Describe(config)
                : static_cast<char>('A' + static_cast<int>(mine.code())) +
                      std::string(mine.message());
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                      data_parallel->ExchangeControl(word));
  for (const std::string& other : all) {
    if (!other.empty() && other[0] != kFine) {
      return Status(static_cast<StatusCode>(other[0] - 'A'), other.substr(1));
    }
  }
  for (size_t r = 1; r < all.size(); ++r) {
    if (all[r] == all[0]) continue;
    return InvalidArgument(
        "data-parallel ranks 0 and {} make different layers: \"{}\" and "
        "\"{}\"",
        r, all[0].substr(1), all[r].substr(1));
  }
  return OkStatus();
}

}  // namespace

VocabParallelCrossEntropy::VocabParallelCrossEntropy(
    const Communicator& comm, const VocabCrossEntropyConfig& config,
    const CollectiveFamily& collectives)
    : comm_(comm),
      config_(config),
      collectives_(collectives),
      partition_(VocabPartition::Of(config.vocabulary, config.multiple,
                                    comm.size(), comm.rank())) {}

StatusOr<VocabParallelCrossEntropy> VocabParallelCrossEntropy::Create(
    const Communicator& comm, const VocabCrossEntropyConfig& config,
    const Communicator* data_parallel, const CollectiveFamily& collectives) {
  SP_RETURN_IF_ERROR(Check(comm, config, data_parallel));
  VocabParallelCrossEntropy layer(comm, config, collectives);
  if (data_parallel != nullptr) layer.data_parallel_ = *data_parallel;
  SP_RETURN_IF_ERROR(layer.Allocate());
  return layer;
}

Status VocabParallelCrossEntropy::Allocate() {
  const auto bytes = static_cast<size_t>(config_.tokens) *
                     static_cast<size_t>(SizeOf(Accumulator(config_.dtype)));
  SP_ASSIGN_OR_RETURN(local_max_, comm_.Allocate(bytes));
  SP_ASSIGN_OR_RETURN(max_, comm_.Allocate(bytes));
  SP_ASSIGN_OR_RETURN(sums_, comm_.Allocate(2 * bytes));
  const Communicator& with = data_parallel_.valid() ? data_parallel_ : comm_;
  const int groups = data_parallel_.valid() ? data_parallel_.size() : 1;
  report_counts_.assign(static_cast<size_t>(groups), kReportNumbers);
  SP_ASSIGN_OR_RETURN(report_, with.Allocate(sizeof(Report)));
  SP_ASSIGN_OR_RETURN(
      reports_, with.Allocate(static_cast<size_t>(groups) * sizeof(Report)));
  return OkStatus();
}

Status VocabParallelCrossEntropy::Forward(const ForwardArgs& args,
                                          const Stream& stream) {
  return stream.Run([this, args] { return RunForward(args); });
}

Status VocabParallelCrossEntropy::GroupLosses(const ForwardArgs& args,
                                              Report& report) const {
  for (int64_t i = 0; i < config_.tokens; ++i) {
    const int64_t target = args.targets[i];
    if (target == config_.ignore_index) continue;
    ++report.count;
    if (target >= 0 && target < config_.vocabulary) continue;
    report.bad_position = i;
    report.bad_target = target;
    return OkStatus();  // All ranks of the group see the same targets.
  }
  const CrossEntropyShape shape = ShapeOf(config_, partition_);
  const DType dtype = Accumulator(config_.dtype);
  SP_RETURN_IF_ERROR(CrossEntropyLocal(shape, args.logits, args.targets,
                                       local_max_.data(), sums_.data()));
  SP_RETURN_IF_ERROR(collectives_.all_reduce(comm_, {.send = local_max_.data(),
                                                     .recv = max_.data(),
                                                     .count = config_.tokens,
                                                     .dtype = dtype,
                                                     .op = ReduceOp::kMax}));
  SP_RETURN_IF_ERROR(CrossEntropyRescale(shape, args.logits, args.targets,
                                         local_max_.data(), max_.data(),
                                         sums_.data()));
  SP_RETURN_IF_ERROR(
      collectives_.all_reduce(comm_, {.send = sums_.data(),
                                      .recv = sums_.data(),
                                      .count = 2 * config_.tokens,
                                      .dtype = dtype}));
  SP_ASSIGN_OR_RETURN(report.total, CrossEntropyLoss(shape, args.targets,
                                                     sums_.data(), args.loss));
  return OkStatus();
}

Status VocabParallelCrossEntropy::ExchangeReports() const {
  if (!data_parallel_.valid()) {
    *reports_.as<Report>() = *report_.as<Report>();
    return OkStatus();
  }
  return collectives_.all_gather(data_parallel_, {.send = report_.data(),
                                                  .recv = reports_.data(),
                                                  .counts = report_counts_,
                                                  .dtype = DType::kI64});
}

Status VocabParallelCrossEntropy::RunForward(const ForwardArgs& args) {
  Report report;
  SP_RETURN_IF_ERROR(GroupLosses(args, report));
  *report_.as<Report>() = report;
  SP_RETURN_IF_ERROR(ExchangeReports());
  count_ = 0;
  double total = 0;
  for (size_t r = 0; r < report_counts_.size(); ++r) {
    const Report& other = reports_.as<Report>()[r];
    if (other.bad_position >= 0) {
      return InvalidArgument(
          "vocab_parallel_cross_entropy: target {} at position {}{} is neither "
          "in [0, {}) nor the ignored {}",
          other.bad_target, other.bad_position,
          data_parallel_.valid() ? fmt::format(" of data-parallel rank {}", r)
                                 : "",
          config_.vocabulary, config_.ignore_index);
    }
    count_ += other.count;
    total += other.total;
  }
  if (args.mean == nullptr) return OkStatus();
  const double mean = count_ > 0 ? total / static_cast<double>(count_) : 0;
  if (config_.dtype == DType::kF64) {
    *static_cast<double*>(args.mean) = mean;
  } else {
    *static_cast<float*>(args.mean) = static_cast<float>(mean);
  }
  return OkStatus();
}

Status VocabParallelCrossEntropy::Backward(const BackwardArgs& args,
                                           const Stream& stream) {
  return stream.Run([this, args] {
    // Without a token that counts there is nothing to divide.
    const auto count = static_cast<double>(std::max<int64_t>(count_, 1));
    return CrossEntropyGradient(ShapeOf(config_, partition_), args.logits,
                                args.targets, max_.data(), sums_.data(),
                                {.upstream = args.upstream,
                                 .per_token = config_.per_token,
                                 .count = config_.per_token ? 1 : count},
                                args.dlogits);
  });
}

Cost VocabCrossEntropyCost(int ranks, const VocabCrossEntropyConfig& config,
                           const CollectiveFamily& collectives) {
  // All that is sent lies in the layer's own memory.
  const DType dtype = Accumulator(config.dtype);
  return collectives.all_reduce_cost(ranks, config.tokens, dtype,
                                     Memory::kShared) +
         collectives.all_reduce_cost(ranks, 2 * config.tokens, dtype,
                                     Memory::kShared);
}

Cost VocabCrossEntropyDataCost(int data_parallel_ranks,
                               const CollectiveFamily& collectives) {
  if (data_parallel_ranks == 0) return {};
  const std::vector<int64_t> counts(static_cast<size_t>(data_parallel_ranks),
                                    kReportNumbers);
  return collectives.all_gather_cost(counts, DType::kI64, Memory::kShared);
}

int VocabCrossEntropyRescalings(int ranks,
                                const VocabCrossEntropyConfig& config) {
  const int64_t rows =
      VocabPartition::Of(config.vocabulary, config.multiple, ranks, 0).rows;
  return static_cast<int>((rows + kCrossEntropyBlock - 1) /
                          kCrossEntropyBlock) +
         1;
}

}  // namespace shardproof
