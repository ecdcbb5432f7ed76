// The pairing of data_parallel: a stack of linear layers is trained for one
// step on tokens that are shared out among the ranks; its gradients must be
// those of one device with all of them. On a mesh, pairs of layers are
// tensor-parallel inside each replica.
#include "tools/harness/case.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "collectives/mesh.h"
#include "layers/data_parallel/data_parallel.h"
#include "layers/data_parallel/linear_stack.h"
#include "layers/pairing/layer_case.h"
#include "layers/pairing/stack_case.h"
#include "layers/pairing/stack_worker.h"

namespace shardproof {
namespace {

using P = StackCase;

// --- The variants ------------------------------------------------------------

Cost CostOf(const P& p, const StackPlan& plan) {
  Cost cost;
  if (!p.reduces) return cost;
  CollectiveFamily placed = plan.collectives;
  placed.memory = p.memory;
  // The groups of different tensor-parallel ranks reduce at the same time.
  for (int shard = 0; shard < p.tensor_parallel; ++shard) {
    DataParallelConfig config = StackGradients(p, shard, plan.in_buckets);
    if (plan.rebuild) {
      config.order = ReverseOrder(static_cast<int>(config.counts.size()));
      std::reverse(config.order.begin(), config.order.end());
    }
    const Cost group = DataParallelStepCost(p.replicas(), config, placed);
    const Traffic before = cost.total;
    cost = group;
    cost.total += before;
  }
  return cost;
}

Variant<P> Of(const char* name, const char* note, unsigned needs,
              const StackPlan& plan) {
  Variant<P> variant;
  variant.name = name;
  variant.note = note;
  variant.needs = needs;
  variant.bind = [plan](const P& p, RankContext& context) {
    return BindStack(p, context, plan);
  };
  variant.cost = [plan](const P& p) { return CostOf(p, plan); };
  variant.arithmetic = [plan](const P& p) {
    return plan.collectives.summed(p.replicas(), p.dtype);
  };
  return variant;
}

std::vector<Variant<P>> Variants() {
  const char* const plain = "one all_reduce of everything after backward";
  const char* const overlapped =
      "a bucket is reduced while backward goes on with the next";
  return {Of("plain_direct", plain, kSharedMemory,
             {.collectives = kDirectCollectives, .in_buckets = false}),
          Of("bucketed_direct", "each bucket when it is full, nothing overlaps",
             kSharedMemory, {.collectives = kDirectCollectives}),
          Of("overlapped_direct", overlapped, kSharedMemory,
             {.collectives = kDirectCollectives, .overlap = true}),
          Of("plain_ring", plain, kAnywhere,
             {.collectives = kRingCollectives, .in_buckets = false}),
          Of("overlapped_ring", overlapped, kAnywhere,
             {.collectives = kRingCollectives, .overlap = true}),
          Of("rebuilt_direct",
             "overlapped; buckets change before the last "
             "micro-batch",
             kSharedMemory,
             {.collectives = kDirectCollectives,
              .overlap = true,
              .rebuild = true})};
}

// --- Planted bugs ------------------------------------------------------------

Mutant<P> Bug(const char* name, const StackPlan& plan,
              std::function<bool(const P&)> applies) {
  Mutant<P> mutant;
  mutant.name = name;
  mutant.bind = [plan](const P& p, RankContext& context) {
    return BindStack(p, context, plan);
  };
  mutant.applies = std::move(applies);
  return mutant;
}

// Sums of the gradients only; the count of tokens is left as it should be.
constexpr CollectiveFamily Reducing(
    Status (*all_reduce)(const Communicator&, const AllReduceArgs&)) {
  CollectiveFamily family = kAutoCollectives;
  family.all_reduce = all_reduce;
  return family;
}

Status AverageGradients(const Communicator& comm, const AllReduceArgs& args) {
  AllReduceArgs changed = args;
  if (IsFloat(args.dtype)) changed.op = ReduceOp::kAvg;
  return AllReduce(comm, changed);
}

// Every rank divides by the number of its own tokens.
Status SumGradientsOnly(const Communicator& comm, const AllReduceArgs& args) {
  return IsFloat(args.dtype) ? AllReduce(comm, args) : OkStatus();
}

// The smallest bucket, which is the last, is not sent.
Status ForgetSmallBuckets(const Communicator& comm, const AllReduceArgs& args) {
  return IsFloat(args.dtype) && args.count <= 12 ? OkStatus()
                                                 : AllReduce(comm, args);
}

// A parameter is given away when its gradient is about to be written.
GradientSink CloseFirst(StackWorker&, const GradientSink& sink) {
  return {.open = [sink](int i) -> StatusOr<DataParallel::Target> {
            SP_ASSIGN_OR_RETURN(const DataParallel::Target to, sink.open(i));
            SP_RETURN_IF_ERROR(sink.close(i));
            return to;
          },
          .close = [](int) { return OkStatus(); }};
}

// The gradients of earlier micro-batches are written over.
GradientSink WriteOver(StackWorker&, const GradientSink& sink) {
  return {.open = [sink](int i) -> StatusOr<DataParallel::Target> {
            SP_ASSIGN_OR_RETURN(const DataParallel::Target to, sink.open(i));
            return DataParallel::Target{to.data, false};
          },
          .close = sink.close};
}

// Addresses from before the buckets were rebuilt.
GradientSink KeepAddresses(StackWorker&, const GradientSink& sink) {
  const auto kept = std::make_shared<std::map<int, void*>>();
  return {.open = [sink, kept](int i) -> StatusOr<DataParallel::Target> {
            SP_ASSIGN_OR_RETURN(const DataParallel::Target to, sink.open(i));
            return DataParallel::Target{kept->emplace(i, to.data).first->second,
                                        to.accumulate};
          },
          .close = sink.close};
}

// A rank without tokens that have the prefix sends what a step before left.
GradientSink SendWhatIsThere(StackWorker& worker, const GradientSink& sink) {
  if (worker.uses_prefix()) return sink;
  return {.open = sink.open, .close = [sink](int i) -> Status {
            SP_RETURN_IF_ERROR(sink.close(i));
            if (i != LinearStackConfig::Weight(0)) return OkStatus();
            SP_RETURN_IF_ERROR(sink.open(LinearStackConfig::kPrefix).status());
            return sink.close(LinearStackConfig::kPrefix);
          }};
}

// Buckets in another order on every other replica.
int SwapLayers(const StackWorker& worker, int parameter) {
  if (worker.replica() % 2 == 0) return parameter;
  if (parameter == LinearStackConfig::Weight(0)) {
    return LinearStackConfig::Weight(1);
  }
  if (parameter == LinearStackConfig::Weight(1)) {
    return LinearStackConfig::Weight(0);
  }
  return parameter;
}

Status ReduceEveryTime(StackWorker& worker, int m) {
  if (m + 1 == worker.p().micro_batches) return OkStatus();
  const int last = LinearStackConfig::Weight(0);
  void* const data = worker.gradients().gradient(last);
  return AllReduce(worker.group(), {.send = data,
                                    .recv = data,
                                    .count = worker.counts()[last],
                                    .dtype = worker.p().dtype});
}

Status LoseAccumulated(StackWorker& worker) {
  for (size_t i = 0; i < worker.counts().size(); ++i) {
    void* const data = worker.gradients().gradient(static_cast<int>(i));
    if (data == nullptr) continue;
    std::memset(
        data, 0,
        static_cast<size_t>(worker.counts()[i] * SizeOf(worker.p().dtype)));
  }
  return OkStatus();
}

Status ScaleAll(StackWorker& worker, double factor) {
  for (int l = 0; l < worker.p().layers; ++l) {
    for (const int i :
         {LinearStackConfig::Weight(l), LinearStackConfig::Bias(l)}) {
      SP_RETURN_IF_ERROR(Scale(worker.context().out("d" + NameOf(i)), factor));
    }
  }
  return OkStatus();
}

// One over the tokens that count in a part of the batch, and over the parts.
double MeanOf(const P& p, const TokenRange& tokens, int parts) {
  return 1.0 /
         static_cast<double>(parts * std::max<int64_t>(1, CountIn(p, tokens)));
}
double MeanOfMeans(const P& p, int replica, int) {
  const std::vector<TokenRange> part = PartsOf(p)[static_cast<size_t>(replica)];
  return MeanOf(p, {part.front().begin, part.back().end}, p.replicas());
}
double MeanOfMicroBatches(const P& p, int replica, int m) {
  return MeanOf(
      p, PartsOf(p)[static_cast<size_t>(replica)][static_cast<size_t>(m)],
      p.replicas() * p.micro_batches);
}

// Enough tokens that every rank has some that count.
bool Several(const P& p) {
  return p.replicas() >= 2 && p.reduces && p.tokens > 2;
}
bool SeveralWhole(const P& p) { return Several(p) && p.tensor_parallel == 1; }
bool Accumulated(const P& p) { return p.micro_batches > 1 && p.tokens > 2; }
bool SeveralAccumulated(const P& p) { return Several(p) && Accumulated(p); }
bool OnMesh(const P& p) { return Several(p) && p.tensor_parallel > 1; }
bool OnSquareMesh(const P& p) {
  return OnMesh(p) && p.replicas() == p.tensor_parallel;
}

std::vector<Mutant<P>> Mutants() {
  return {
      // Given away, read or used again at the wrong time.
      Bug("bucket_reduced_before_its_writers", {.sink = CloseFirst}, Several),
      Bug("gradients_read_before_they_arrive",
          {.in_buckets = false, .read_before_finish = true}, Several),
      Bug("bucket_cleared_before_it_is_sent",
          {.in_buckets = false, .clear_before_finish = true}, SeveralWhole),
      Bug("stale_gradient_of_an_unused_parameter",
          {.steps = 2, .sink = SendWhatIsThere}, SeveralWhole),
      Bug("last_bucket_forgotten",
          {.collectives = Reducing(ForgetSmallBuckets)}, SeveralWhole),
      Bug("buckets_in_another_order_on_odd_ranks", {.place = SwapLayers},
          Several),
      // Accumulation.
      Bug("micro_batches_written_over", {.sink = WriteOver}, Accumulated),
      Bug("reduced_after_every_micro_batch",
          {.after_micro_batch = ReduceEveryTime}, SeveralAccumulated),
      Bug("accumulated_gradients_lost_when_rebuilt",
          {.rebuild = true, .after_rebuild = LoseAccumulated}, Accumulated),
      Bug("addresses_kept_when_rebuilt",
          {.rebuild = true, .sink = KeepAddresses}, Accumulated),
      // Groups.
      Bug("gradients_not_reduced", {.collectives = kWithoutReduction}, Several),
      Bug("reduced_over_the_tensor_parallel_group",
          {.group = [](const Mesh& mesh) -> StatusOr<Communicator> {
            return mesh.Along("tp");
          }},
          OnSquareMesh),
      Bug("reduced_over_the_world",
          {.group = [](const Mesh& mesh) -> StatusOr<Communicator> {
            return mesh.world();
          }},
          OnMesh),
      // Scales.
      Bug("mean_of_the_ranks_means", {.average = false, .scale = MeanOfMeans},
          Several),
      Bug("mean_of_the_micro_batches_means",
          {.average = false, .scale = MeanOfMicroBatches}, SeveralAccumulated),
      Bug("divided_by_ranks_and_by_tokens",
          {.collectives = Reducing(AverageGradients)}, Several),
      Bug("divided_by_micro_batches_and_by_tokens",
          {.after_finish =
               [](StackWorker& w) {
                 return ScaleAll(w, 1.0 / w.p().micro_batches);
               }},
          SeveralAccumulated),
      Bug("divided_by_own_tokens", {.collectives = Reducing(SumGradientsOnly)},
          Several),
      Bug("divided_by_all_tokens",
          {.count = [](const P&,
                       const TokenRange& t) { return t.end - t.begin; }},
          Several)};
}

// --- The case ----------------------------------------------------------------

std::optional<std::string> Skip(const P& p) {
  if (p.ranks % p.tensor_parallel != 0) return "no mesh of these ranks";
  const bool plain = p.micro_batches == 1 || p.tokens == 2 || !p.reduces;
  if (p.tensor_parallel > 1 && plain) return "tested without a mesh";
  if (p.dtype != DType::kF32 && plain) return "tested in f32";
  return std::nullopt;
}

double Flops(const P& p) {
  return 6.0 * static_cast<double>(p.tokens) * static_cast<double>(p.layers) *
         static_cast<double>(p.width * p.width);
}

Floor FloorOf(const P& p) {
  const double bytes =
      static_cast<double>(p.layers * (p.width + 1) * p.width * SizeOf(p.dtype));
  const double share = 1.0 - 1.0 / p.replicas();
  return {.wire_bytes = p.reduces ? 2 * share * bytes : 0,
          .flops = Flops(p) / p.ranks};
}

const RegisterCase kDataParallel(Case<P>{
    .name = "layers/data_parallel",
    .what = "gradients of a batch that is cut over replicas: sums buckets over "
            "replicas, the token count first, and divides",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32}),
             Axis("reduces", &P::reduces, {true, false}).Bench({true, false}),
             Axis("tensor_parallel", &P::tensor_parallel, {1, 2}).Bench({1}),
             Axis("micro_batches", &P::micro_batches, {3, 1}).Bench({1}),
             Axis("tokens", &P::tokens, {33, 2}).Bench({256}),
             Axis("width", &P::width, {12}).Bench({512}),
             Axis("layers", &P::layers, {2}).Bench({6}),
             Axis("bucket", &P::bucket, {156}).Bench({1 << 18})},
    .skip = Skip,
    .tensors = StackTensors,
    .reference = DenseReference<P>(StackReference),
    .variants = Variants(),
    .mutants = Mutants(),
    .flops = Flops,
    .floor = FloorOf});

}  // namespace
}  // namespace shardproof
