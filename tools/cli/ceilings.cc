#include "tools/cli/ceilings.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "layers/kernels/gemm.h"
#include "reference/random.h"
#include "reference/tensor.h"
#include "tools/harness/measure.h"

namespace shardproof {
namespace {

constexpr double kLeastCopy = 64 << 10, kMostCopy = 256 << 20;
// What the ranks of a node copy together, in the memory of the host: what is
// touched for the first time takes longer than what is then copied.
constexpr size_t kMostOnNode = 512 << 20;
// A product large enough to run at the full rate, and small enough to be
// repeated.
constexpr int64_t kProduct = 1024;
constexpr double kSeconds = 0.1;

size_t CopyBytes(const Floor& floor) {
  // Of bytes read and written, half are what was copied.
  const double copied = floor.copy_bytes / 2 + floor.wire_bytes;
  return std::bit_ceil(
      static_cast<size_t>(std::clamp(copied, kLeastCopy, kMostCopy)));
}

// The most of `bytes` that each rank of the fullest node may copy.
size_t Shared(size_t bytes, const Topology& topology) {
  std::vector<size_t> ranks_of(static_cast<size_t>(topology.nodes));
  for (const int node : topology.node_of) ++ranks_of[static_cast<size_t>(node)];
  const size_t each =
      kMostOnNode / std::bit_ceil(*std::ranges::max_element(ranks_of));
  return std::clamp(each, static_cast<size_t>(kLeastCopy), bytes);
}

StatusOr<double> MeasureFlops(const Communicator& comm, DType dtype) {
  const Shape shape = {kProduct, kProduct};
  Tensor a(dtype, shape), b(dtype, shape), c(dtype, shape);
  for (Tensor* t : {&a, &b}) {
    Fill(Uniform(dtype, 1), {.seed = 1, .tensor = TensorId("operand")}, 0,
         t->num_elements(), t->raw());
  }
  const Operation product = [&] {
    return Gemm(
        Stream::Inline(),
        {.a = a.view(), .b = b.view(), .transpose_b = true, .c = c.view()});
  };
  MeasureOptions options;
  options.warmup_seconds = kSeconds / 5;
  options.max_seconds = kSeconds;
  SP_ASSIGN_OR_RETURN(const Timing timing,
                      Measure(comm, Stream::Inline(), product, options));
  return 2 * std::pow(static_cast<double>(kProduct), 3) / timing.median_us *
         1e6;
}

}  // namespace

std::optional<MachineRates> Ceilings::Of(const Job& job) {
  const int ranks = job.instance.ranks;
  const Floor floor = job.info->floor(job.instance);
  const auto bytes = CopyBytes(floor);
  // A GPU has memory of its own.
  const bool host = world_.backend() == "thread" || world_.backend() == "mpi";
  const auto [moving, first] = moving_.try_emplace({ranks, bytes});
  if (first) {
    MachineRates rates;
    const Status status =
        world_.Run(ranks, [&](const Communicator& comm) -> Status {
          SP_ASSIGN_OR_RETURN(
              const MachineRates mine,
              MeasureRates(comm,
                           host ? Shared(bytes, comm.topology()) : bytes));
          if (comm.rank() == 0) rates = mine;
          return OkStatus();
        });
    if (status.ok()) moving->second = rates;
  }
  if (!moving->second.has_value() || floor.flops <= 0) return moving->second;
  DType dtype = DType::kF32;
  for (const TensorSpec& t : job.info->tensors(job.instance)) {
    if (t.role == TensorRole::kOutput) {
      dtype = t.dtype;
      break;
    }
  }
  const auto [product, unknown] = flops_.try_emplace({ranks, dtype});
  if (unknown) {
    // 0 where it fails: then only moving bounds the time.
    double& flops = product->second;
    static_cast<void>(
        world_.Run(ranks, [&](const Communicator& comm) -> Status {
          SP_ASSIGN_OR_RETURN(const double mine, MeasureFlops(comm, dtype));
          if (comm.rank() == 0) flops = mine;
          return OkStatus();
        }));
  }
  MachineRates rates = *moving->second;
  rates.flops_per_second = product->second;
  return rates;
}

}  // namespace shardproof
