#include "layers/pairing/stack_worker.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "collectives/chunks.h"

namespace shardproof {

DataParallelConfig StackGradients(const StackCase& p, int rank,
                                  bool in_buckets) {
  const std::vector<int64_t> counts = StackOf(p, rank).Counts();
  return {.counts = counts,
          .dtype = p.dtype,
          .bucket_bytes = in_buckets ? p.bucket * SizeOf(p.dtype) : 1 << 30};
}

StatusOr<std::shared_ptr<StackWorker>> StackWorker::Create(
    const StackCase& p, RankContext& context, const StackPlan& plan) {
  const int rank = context.comm().rank();
  SP_ASSIGN_OR_RETURN(Mesh mesh,
                      Mesh::Create(context.comm(), {{"tp", p.tensor_parallel},
                                                    {"dp", p.replicas()}}));
  Communicator group = mesh.Along("dp");
  if (plan.group) {
    SP_ASSIGN_OR_RETURN(group, plan.group(mesh));
  }
  DataParallelConfig config = StackGradients(p, rank, plan.in_buckets);
  config.overlap = plan.overlap;
  config.average = plan.average;
  SP_ASSIGN_OR_RETURN(DataParallel gradients,
                      DataParallel::Create(group, config, plan.collectives));
  SP_ASSIGN_OR_RETURN(LinearStack stack, LinearStack::Create(StackOf(p, rank)));
  return std::shared_ptr<StackWorker>(
      new StackWorker(p, context, plan, std::move(mesh), std::move(gradients),
                      std::move(stack)));
}

StackWorker::StackWorker(const StackCase& p, RankContext& context,
                         StackPlan plan, Mesh mesh, DataParallel gradients,
                         LinearStack stack)
    : p_(p),
      context_(context),
      plan_(std::move(plan)),
      mesh_(std::move(mesh)),
      gradients_(std::move(gradients)),
      stack_(std::move(stack)),
      replica_(p.ReplicaOf(context.comm().rank())),
      parts_(PartsOf(p)[static_cast<size_t>(replica_)]),
      counts_(StackOf(p, context.comm().rank()).Counts()),
      mask_(Counted(p.tokens)),
      dy_(p.dtype, {parts_.back().end - parts_.front().begin, p.width}) {
  for (const TokenRange& tokens : parts_) {
    counted_.push_back(plan_.count ? plan_.count(p, tokens)
                                   : CountIn(p, tokens));
  }
}

// dy_: zeros for the tokens that do not count.
void StackWorker::MaskUpstream() {
  const ConstTensorView dy = context_.in("dy");
  const int64_t first = parts_.front().begin;
  if (plan_.scale) {
    dy_ = MaskedGradient(p_, dy, first, [this](int64_t t) {
      int m = 0;
      while (t >= parts_[static_cast<size_t>(m)].end) ++m;
      return plan_.scale(p_, replica_, m);
    });
    return;
  }
  const auto row = static_cast<size_t>(p_.width * SizeOf(p_.dtype));
  for (int64_t i = 0; i < dy.shape[0]; ++i) {
    std::byte* const to = At(dy_.raw(), p_.dtype, i * p_.width);
    if (mask_[static_cast<size_t>(first + i)]) {
      std::memcpy(to, At(dy.data, p_.dtype, i * p_.width), row);
    } else {
      std::memset(to, 0, row);
    }
  }
}

Status StackWorker::Rebuild(bool reversed) {
  std::vector<int> order = ReverseOrder(static_cast<int>(counts_.size()));
  if (!reversed) std::reverse(order.begin(), order.end());
  SP_RETURN_IF_ERROR(gradients_.Rebuild(order));
  return plan_.after_rebuild ? plan_.after_rebuild(*this) : OkStatus();
}

Status StackWorker::MicroBatch(int m, const GradientSink& sink) {
  const TokenRange tokens = parts_[static_cast<size_t>(m)];
  const int64_t n = tokens.end - tokens.begin;
  const int64_t at = (tokens.begin - parts_.front().begin) * p_.width;
  std::vector<const void*> weights;
  for (size_t i = 0; i < counts_.size(); ++i) {
    weights.push_back(context_.in(NameOf(static_cast<int>(i))).data);
  }
  SP_RETURN_IF_ERROR(
      gradients_.BeginMicroBatch(counted_[static_cast<size_t>(m)],
                                 p_.reduces && m + 1 == p_.micro_batches));
  SP_RETURN_IF_ERROR(stack_.Forward(
      {.x = n > 0 ? At(context_.in("x").data, p_.dtype, at) : nullptr,
       .tokens = n,
       .prefixed = std::clamp<int64_t>(Prefixed(p_) - tokens.begin, 0, n)},
      weights));
  return stack_.Backward(At(dy_.raw(), p_.dtype, at), weights, sink);
}

Status StackWorker::Step() {
  MaskUpstream();
  GradientSink sink = SinkOf(gradients_);
  if (plan_.place) {
    sink = {
        .open =
            [this](int i) { return gradients_.Open(plan_.place(*this, i)); },
        .close =
            [this](int i) { return gradients_.Close(plan_.place(*this, i)); }};
  }
  if (plan_.sink) sink = plan_.sink(*this, sink);
  SP_RETURN_IF_ERROR(gradients_.BeginStep());
  if (plan_.rebuild) SP_RETURN_IF_ERROR(Rebuild(true));
  for (int m = 0; m < p_.micro_batches; ++m) {
    if (plan_.rebuild && m == p_.micro_batches - 1) {
      SP_RETURN_IF_ERROR(Rebuild(false));
    }
    SP_RETURN_IF_ERROR(MicroBatch(m, sink));
    if (plan_.after_micro_batch) {
      SP_RETURN_IF_ERROR(plan_.after_micro_batch(*this, m));
    }
  }
  if (plan_.read_before_finish) SP_RETURN_IF_ERROR(CopyOut());
  if (plan_.clear_before_finish) {
    const int last = LinearStackConfig::Weight(0);
    std::memset(gradients_.gradient(last), 0,
                static_cast<size_t>(counts_[last] * SizeOf(p_.dtype)));
  }
  if (p_.reduces) SP_RETURN_IF_ERROR(gradients_.Finish());
  if (plan_.read_before_finish) return OkStatus();
  SP_RETURN_IF_ERROR(CopyOut());
  return plan_.after_finish ? plan_.after_finish(*this) : OkStatus();
}

Status StackWorker::CopyOut() {
  for (int i = 0; i < static_cast<int>(counts_.size()); ++i) {
    if (i == LinearStackConfig::kPrefix && Prefixed(p_) == 0) continue;
    const TensorView to = context_.out("d" + NameOf(i));
    if (to.num_bytes() == 0) continue;
    const int place = plan_.place ? plan_.place(*this, i) : i;
    const auto bytes = static_cast<size_t>(to.num_bytes());
    const void* const from = gradients_.gradient(place);
    if (from == nullptr) {
      std::memset(to.data, 0, bytes);
    } else {
      std::memcpy(to.data, from, bytes);
    }
  }
  return OkStatus();
}

StatusOr<Operation> BindStack(const StackCase& p, RankContext& context,
                              const StackPlan& plan) {
  SP_ASSIGN_OR_RETURN(const auto worker, StackWorker::Create(p, context, plan));
  return Operation([worker] { return worker->Run(); });
}

}  // namespace shardproof
