#include "layers/vocab_parallel_embedding/vocab_parallel_embedding.h"

#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "collectives/chunks.h"
#include "layers/kernels/embedding.h"
#include "layers/kernels/gemm.h"

namespace shardproof {
namespace {

// Of the region behind the embedding, and of that before the projection.
RegionShape Outside(const VocabEmbeddingConfig& config) {
  return {.tokens = config.tokens,
          .width = config.hidden,
          .dtype = config.dtype,
          .sequence_parallel = config.sequence_parallel};
}

Status Check(const Communicator& comm, const char* kind,
             const VocabEmbeddingConfig& config) {
  const std::string text = fmt::format(
      "{} of {} tokens, vocabulary {} in multiples of {}, {} wide, {}{}", kind,
      config.tokens, config.vocabulary, config.multiple, config.hidden,
      Name(config.dtype),
      config.sequence_parallel ? ", sequence-parallel" : "");
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  if (config.tokens < 0 || config.hidden < 0) {
    return InvalidArgument("{}: a size is negative", text);
  }
  if (config.vocabulary < 1 || config.multiple < 1) {
    return InvalidArgument("{}: the vocabulary and its multiple are at least 1",
                           text);
  }
  return CheckLayerType(config.dtype).WithContext(text);
}

VocabPartition PartitionOf(const Communicator& comm,
                           const VocabEmbeddingConfig& config) {
  return VocabPartition::Of(config.vocabulary, config.multiple, comm.size(),
                            comm.rank());
}

EmbeddingShape ShapeOf(const VocabEmbeddingConfig& config,
                       const VocabPartition& partition) {
  return {.dtype = config.dtype,
          .tokens = config.tokens,
          .hidden = config.hidden,
          .begin = partition.begin,
          .rows = partition.rows};
}

}  // namespace

VocabParallelEmbedding::VocabParallelEmbedding(
    const VocabEmbeddingConfig& config, const VocabPartition& partition,
    ParallelRegion output, Tensor order, Tensor starts)
    : config_(config),
      partition_(partition),
      output_(std::move(output)),
      order_(std::move(order)),
      starts_(std::move(starts)) {}

StatusOr<VocabParallelEmbedding> VocabParallelEmbedding::Create(
    const Communicator& comm, const VocabEmbeddingConfig& config,
    const CollectiveFamily& collectives) {
  SP_RETURN_IF_ERROR(Check(comm, "vocab_parallel_embedding", config));
  SP_ASSIGN_OR_RETURN(
      ParallelRegion output,
      ParallelRegion::Create(comm, Outside(config), collectives));
  const VocabPartition partition = PartitionOf(comm, config);
  SP_ASSIGN_OR_RETURN(Tensor order,
                      Tensor::Create(DType::kI64, {config.tokens}));
  SP_ASSIGN_OR_RETURN(Tensor starts,
                      Tensor::Create(DType::kI64, {partition.rows + 1}));
  return VocabParallelEmbedding(config, partition, std::move(output),
                                std::move(order), std::move(starts));
}

// On the stream, since work that is queued before may yet write the ids; there
// the error drops what is queued behind it.
Status VocabParallelEmbedding::CheckIds(const Stream& stream,
                                        const int64_t* ids) const {
  return stream.Run([ids, tokens = config_.tokens,
                     vocabulary = config_.vocabulary]() -> Status {
    const int64_t at =
        FirstIdOutside({ids, static_cast<size_t>(tokens)}, vocabulary);
    if (at < 0) return OkStatus();
    return InvalidArgument(
        "vocab_parallel_embedding: id {} at position {} is not in [0, {})",
        ids[at], at, vocabulary);
  });
}

Status VocabParallelEmbedding::Forward(const ForwardArgs& args,
                                       const Stream& stream) {
  SP_RETURN_IF_ERROR(CheckIds(stream, args.ids));
  SP_RETURN_IF_ERROR(EmbeddingLookup(stream, ShapeOf(config_, partition_),
                                     args.ids, args.table,
                                     output_.Partial(args.y)));
  return output_.Leave(stream, args.y);
}

Status VocabParallelEmbedding::Backward(const BackwardArgs& args,
                                        const Stream& stream) {
  SP_RETURN_IF_ERROR(CheckIds(stream, args.ids));
  SP_ASSIGN_OR_RETURN(const void* const dy, output_.Enter(stream, args.dy));
  const auto all = [](Tensor& t) {
    return std::span(t.data<int64_t>(), static_cast<size_t>(t.num_elements()));
  };
  return EmbeddingGradient(
      stream, ShapeOf(config_, partition_), args.ids, dy, args.accumulate,
      {.order = all(order_), .starts = all(starts_)}, args.dtable);
}

TiedOutputProjection::TiedOutputProjection(const VocabEmbeddingConfig& config,
                                           const VocabPartition& partition,
                                           ParallelRegion input)
    : config_(config), partition_(partition), input_(std::move(input)) {}

StatusOr<TiedOutputProjection> TiedOutputProjection::Create(
    const Communicator& comm, const VocabEmbeddingConfig& config,
    const CollectiveFamily& collectives) {
  SP_RETURN_IF_ERROR(Check(comm, "tied_output_projection", config));
  SP_ASSIGN_OR_RETURN(
      ParallelRegion input,
      ParallelRegion::Create(comm, Outside(config), collectives));
  return TiedOutputProjection(config, PartitionOf(comm, config),
                              std::move(input));
}

Status TiedOutputProjection::Forward(const ForwardArgs& args,
                                     const Stream& stream) const {
  const DType dtype = config_.dtype;
  const int64_t tokens = config_.tokens, hidden = config_.hidden;
  SP_ASSIGN_OR_RETURN(const void* const x, input_.Enter(stream, args.x));
  return Gemm(stream, {.a = {dtype, {tokens, hidden}, x},
                       .b = {dtype, {partition_.rows, hidden}, args.table},
                       .transpose_b = true,
                       .c = {dtype, {tokens, partition_.rows}, args.logits}});
}

Status TiedOutputProjection::Backward(const BackwardArgs& args,
                                      const Stream& stream) const {
  const DType dtype = config_.dtype;
  const int64_t tokens = config_.tokens, hidden = config_.hidden;
  const int64_t rows = partition_.rows, valid = partition_.valid();
  const ConstTensorView dlogits(dtype, {tokens, rows}, args.dlogits);
  SP_ASSIGN_OR_RETURN(const void* const x, input_.Enter(stream, args.x));
  SP_RETURN_IF_ERROR(Gemm(stream, {.a = dlogits,
                                   .transpose_a = true,
                                   .b = {dtype, {tokens, hidden}, x},
                                   .c = {dtype, {rows, hidden}, args.dtable}}));
  if (valid < rows && hidden > 0) {
    void* const padding = At(args.dtable, dtype, valid * hidden);
    const auto bytes =
        static_cast<size_t>((rows - valid) * hidden * SizeOf(dtype));
    SP_RETURN_IF_ERROR(stream.Run([padding, bytes] {
      std::memset(padding, 0, bytes);
      return OkStatus();
    }));
  }
  // Only now: the workspace of the partial sums is that of the gathered input.
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dlogits,
                    .b = {dtype, {rows, hidden}, args.table},
                    .c = {dtype, {tokens, hidden}, input_.Partial(args.dx)}}));
  return input_.Leave(stream, args.dx);
}

Cost VocabEmbeddingForwardCost(int ranks, const VocabEmbeddingConfig& config,
                               const CollectiveFamily& collectives) {
  return LeaveCost(ranks, Outside(config), collectives);
}

Cost VocabEmbeddingBackwardCost(int ranks, const VocabEmbeddingConfig& config,
                                const CollectiveFamily& collectives) {
  return EnterCost(ranks, Outside(config), collectives);
}

Cost TiedProjectionForwardCost(int ranks, const VocabEmbeddingConfig& config,
                               const CollectiveFamily& collectives) {
  return EnterCost(ranks, Outside(config), collectives);
}

Cost TiedProjectionBackwardCost(int ranks, const VocabEmbeddingConfig& config,
                                const CollectiveFamily& collectives) {
  return EnterCost(ranks, Outside(config), collectives) +
         LeaveCost(ranks, Outside(config), collectives);
}

}  // namespace shardproof
