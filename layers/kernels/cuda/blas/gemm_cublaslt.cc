#include "layers/kernels/cuda/blas/gemm_cublaslt.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

namespace shardproof {
namespace {

using cublaslt::Candidate;
using cublaslt::Epilogue;
using cublaslt::Operands;
using cublaslt::Plan;
using cublaslt::ProductKey;
using cuda::GpuEvent;
using cuda::GpuStream;

constexpr size_t kZeros = size_t{64} << 10;
// Of each algorithm, after one that loads its code and warms the caches.
constexpr int kTimedRuns = 3;
// For what was queued before too.
constexpr std::chrono::minutes kPatience{10};

Operands OperandsOf(const GemmArgs& args) {
  return {.a = args.a.data,
          .b = args.b.data,
          .c = args.c.data,
          // The library is given it as void*, and reads it.
          .bias = const_cast<void*>(args.bias)};
}

size_t Bytes(const TensorView& view) {
  return static_cast<size_t>(view.num_bytes());
}

}  // namespace

std::string PinnedAlgorithm::ToString() const {
  if (id < 0) return product + ": the library has no deterministic algorithm";
  if (timed == 0) {
    return fmt::format("{}: algorithm {}, tile {}, stages {}, the first of {}",
                       product, id, tile, stages, offered);
  }
  return fmt::format(
      "{}: algorithm {}, tile {}, stages {}, {:.1f} us, the fastest of {}{}",
      product, id, tile, stages, microseconds, timed,
      timed == offered
          ? ""
          : fmt::format(" ({} of {} refused)", offered - timed, offered));
}

CublasLtGemm::CublasLtGemm(std::shared_ptr<cuda::GpuSystem> gpus, int gpu,
                           std::shared_ptr<const CublasLtLibrary> library,
                           const CublasLtGemmOptions& options)
    : gpus_(std::move(gpus)),
      gpu_(gpu),
      library_(std::move(library)),
      options_(options) {}

StatusOr<std::unique_ptr<CublasLtGemm>> CublasLtGemm::Create(
    std::shared_ptr<cuda::GpuSystem> gpus, int gpu,
    std::shared_ptr<const CublasLtLibrary> library,
    const CublasLtGemmOptions& options) {
  if (gpus->emulated() != library->emulated()) {
    return InvalidArgument(
        "{} works on {} GPUs, and these are {}", library->Describe(),
        library->emulated() ? "emulated" : "real", gpus->Describe());
  }
  if (gpu < 0 || gpu >= gpus->count() || options.asked < 1) {
    return InvalidArgument("{} algorithms on GPU {} of {}", options.asked, gpu,
                           gpus->count());
  }
  std::unique_ptr<CublasLtGemm> made(
      new CublasLtGemm(std::move(gpus), gpu, std::move(library), options));
  SP_RETURN_IF_ERROR(made->gpu().Use());
  SP_ASSIGN_OR_RETURN(made->zeros_, made->gpu().AllocateFlags(kZeros));
  const std::lock_guard launching(*made->gpus_->launching());
  SP_RETURN_IF_ERROR(made->library_->StatusOf(
      made->library_->api().create(&made->handle_),
      cuda::NameOf(*made->gpus_, gpu) + ": cublasLtCreate"));
  return made;
}

CublasLtGemm::~CublasLtGemm() {
  if (handle_ == nullptr || !gpu().Use().ok()) return;
  const std::lock_guard launching(*gpus_->launching());
  static_cast<void>(library_->api().destroy(handle_));
}

std::optional<Status> CublasLtGemm::Gemm(GpuStream& stream,
                                         const GemmArgs& args) {
  if (!cublaslt::HasDataType(args.c.dtype)) return std::nullopt;
  const int64_t m = args.c.shape[0], n = args.c.shape[1];
  const int64_t k = args.a.shape[args.transpose_a ? 0 : 1];
  if (m == 0 || n == 0) return OkStatus();
  const size_t row = static_cast<size_t>(n) * SizeOf(args.c.dtype);
  const auto add_bias_first = [&] {
    return Repeat(stream, args.c.data, Bytes(args.c), args.bias, row);
  };
  if (k == 0) {
    if (args.accumulate) return OkStatus();
    if (args.bias != nullptr) return add_bias_first();
    return Zero(stream, args.c.data, Bytes(args.c));
  }
  const Operands operands = OperandsOf(args);
  // The library has no epilogues for f64.
  if (args.bias != nullptr && args.c.dtype != DType::kF64) {
    StatusOr<Ready> fused = Find(stream, args, Epilogue::kBias, operands);
    if (!fused.ok()) return fused.status();
    if (fused->possible()) return Enqueue(stream, *fused, operands);
  }
  // With a bias that no epilogue adds, C becomes the bias and is accumulated to: it is exact in C's type, and so the sum is
  // rounded once as well.
  GemmArgs plain = args;
  plain.accumulate = args.accumulate || args.bias != nullptr;
  plain.bias = nullptr;
  const Operands without = OperandsOf(plain);
  StatusOr<Ready> ready = Find(stream, plain, Epilogue::kDefault, without);
  if (!ready.ok()) return ready.status();
  if (!ready->possible()) return std::nullopt;
  if (args.bias != nullptr) {
    Status filled = add_bias_first();
    if (!filled.ok()) return filled;
  }
  return Enqueue(stream, *ready, without);
}

std::optional<Status> CublasLtGemm::GemmGelu(GpuStream& stream,
                                             const GemmArgs& args, void* z) {
  if (args.bias == nullptr || args.accumulate) {
    return InvalidArgument(
        "the product before a GELU has a bias, and nothing "
        "that it is accumulated to");
  }
  Operands operands = OperandsOf(args);
  operands.aux = z;
  return RunFused(stream, args, Epilogue::kGeluAuxBias, operands);
}

std::optional<Status> CublasLtGemm::GemmGeluBackward(GpuStream& stream,
                                                     const GemmArgs& args,
                                                     const void* z,
                                                     void* bias_gradient) {
  if (args.bias != nullptr || args.accumulate) {
    return InvalidArgument(
        "the gradient of a GELU has no bias, and nothing "
        "that it is accumulated to");
  }
  Operands operands = OperandsOf(args);
  operands.bias = bias_gradient;
  operands.aux = const_cast<void*>(z);
  if (args.c.shape[0] == 0) {
    if (!cublaslt::HasDataType(args.c.dtype)) return std::nullopt;
    return Zero(stream, bias_gradient,
                static_cast<size_t>(args.c.shape[1]) * SizeOf(args.c.dtype));
  }
  return RunFused(stream, args, Epilogue::kDGeluBiasGradient, operands);
}

std::optional<Status> CublasLtGemm::RunFused(GpuStream& stream,
                                             const GemmArgs& args,
                                             Epilogue epilogue,
                                             const Operands& operands) {
  if (!cublaslt::HasDataType(args.c.dtype)) return std::nullopt;
  const int64_t k = args.a.shape[args.transpose_a ? 0 : 1];
  if (args.c.num_elements() == 0) return OkStatus();
  constexpr int64_t kAuxiliaryMultiple = 8;
  if (args.c.dtype == DType::kF64 || k == 0 ||
      args.c.shape[1] % kAuxiliaryMultiple != 0) {
    return std::nullopt;
  }
  StatusOr<Ready> ready = Find(stream, args, epilogue, operands);
  if (!ready.ok()) return ready.status();
  if (!ready->possible()) return std::nullopt;
  return Enqueue(stream, *ready, operands);
}

Status CublasLtGemm::Enqueue(GpuStream& stream, const Ready& ready,
                             const Operands& operands) const {
  SP_RETURN_IF_ERROR(gpu().Use());
  return Multiply(stream, ready.entry->plan, operands, *ready.entry->algorithm,
                  ready.workspace);
}

// The first product of an algorithm loads its code, which may wait for whatever runs: not for one part of a collective
// whose others are not launched yet.
Status CublasLtGemm::Multiply(GpuStream& stream, const Plan& plan,
                              const Operands& operands,
                              const cublaslt::Algorithm& algorithm,
                              std::byte* workspace) const {
  const std::lock_guard launching(*gpus_->launching());
  return plan.Enqueue(handle_, operands, algorithm, workspace,
                      options_.workspace_bytes, stream.handle());
}

StatusOr<std::byte*> CublasLtGemm::WorkspaceOf(GpuStream& stream) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = workspaces_.find(stream.handle());
    if (found != workspaces_.end()) return found->second.data();
  }
  // Without the lock: it may wait for what others have queued. Nobody else has this stream.
  SP_ASSIGN_OR_RETURN(Buffer made,
                      gpu().AllocateFlags(options_.workspace_bytes));
  std::byte* const data = made.data();
  const std::lock_guard lock(mutex_);
  workspaces_.emplace(stream.handle(), std::move(made));
  return data;
}

std::shared_ptr<const CublasLtGemm::Entry> CublasLtGemm::Known(
    const ProductKey& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  return found == entries_.end() ? nullptr : found->second;
}

StatusOr<CublasLtGemm::Ready> CublasLtGemm::Find(GpuStream& stream,
                                                 const GemmArgs& args,
                                                 Epilogue epilogue,
                                                 const Operands& operands) {
  const ProductKey key = ProductKey::For(args, epilogue, operands);
  Ready ready;
  SP_ASSIGN_OR_RETURN(ready.workspace, WorkspaceOf(stream));
  ready.entry = Known(key);
  if (ready.entry == nullptr) {
    SP_ASSIGN_OR_RETURN(ready.entry,
                        Pin(stream, key, operands, ready.workspace));
  }
  return ready;
}

StatusOr<std::shared_ptr<const CublasLtGemm::Entry>> CublasLtGemm::Pin(
    GpuStream& stream, const ProductKey& key, Operands operands,
    std::byte* workspace) {
  SP_RETURN_IF_ERROR(gpu().Use());
  // Before the lock: what was queued here may wait for a rank whose thread is about to take that.
  if (options_.time) {
    SP_RETURN_IF_ERROR(cuda::Synchronize(stream, kPatience));
  }
  const std::lock_guard timing(timing_);
  if (std::shared_ptr<const Entry> known = Known(key)) return known;
  SP_ASSIGN_OR_RETURN(Plan plan, Plan::Create(library_, key));
  SP_ASSIGN_OR_RETURN(const std::vector<Candidate> candidates,
                      plan.Candidates(handle_, operands, options_.asked,
                                      options_.workspace_bytes));
  PinnedAlgorithm outcome{.product = key.ToString(),
                          .offered = static_cast<int>(candidates.size())};
  std::optional<cublaslt::Algorithm> algorithm;
  if (!candidates.empty()) {
    size_t best = 0;
    if (options_.time) {
      SP_ASSIGN_OR_RETURN(const std::vector<double> times,
                          Time(stream, plan, candidates, operands, workspace));
      double least = -1;
      for (size_t i = 0; i < times.size(); ++i) {
        if (times[i] < 0) continue;
        ++outcome.timed;
        if (least >= 0 && times[i] >= least) continue;
        least = times[i];
        best = i;
      }
      outcome.microseconds = least;
    }
    algorithm = candidates[best].algorithm;
    outcome.id = candidates[best].id;
    outcome.tile = candidates[best].tile;
    outcome.stages = candidates[best].stages;
  }
  auto entry = std::make_shared<const Entry>(Entry{std::move(plan), algorithm});
  const std::lock_guard lock(mutex_);
  entries_.emplace(key, entry);
  pinned_.push_back(std::move(outcome));
  return std::shared_ptr<const Entry>(std::move(entry));
}

StatusOr<std::vector<double>> CublasLtGemm::Time(
    GpuStream& stream, const Plan& plan,
    const std::vector<Candidate>& candidates, Operands operands,
    std::byte* workspace) const {
  // What is accumulated to is not to be spoiled.
  Buffer copy;
  const ProductKey& key = plan.key();
  if (key.accumulate) {
    const size_t bytes = static_cast<size_t>(key.m * key.n) * SizeOf(key.dtype);
    SP_ASSIGN_OR_RETURN(copy, gpu().AllocateFlags(bytes));
    SP_RETURN_IF_ERROR(stream.Copy(copy.data(), operands.c, bytes));
    operands.c = copy.data();
  }
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<GpuEvent> begin, gpu().NewEvent());
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<GpuEvent> end, gpu().NewEvent());
  const auto run = [&](const Candidate& candidate) {
    return Multiply(stream, plan, operands, candidate.algorithm, workspace);
  };
  const auto once = [&](const Candidate& candidate) -> StatusOr<double> {
    SP_RETURN_IF_ERROR(stream.Record(*begin));
    SP_RETURN_IF_ERROR(run(candidate));
    SP_RETURN_IF_ERROR(stream.Record(*end));
    SP_RETURN_IF_ERROR(cuda::Synchronize(stream, kPatience));
    return gpu().Microseconds(*begin, *end);
  };
  const auto all = [&]() -> StatusOr<std::vector<double>> {
    std::vector<double> times;
    Status refused = Internal("no algorithm was tried");
    bool any = false;
    for (const Candidate& candidate : candidates) {
      Status warm = run(candidate);
      if (!warm.ok()) {
        refused = std::move(warm);
        times.push_back(-1);
        continue;
      }
      double least = -1;
      for (int i = 0; i < kTimedRuns; ++i) {
        SP_ASSIGN_OR_RETURN(const double time, once(candidate));
        if (least < 0 || time < least) least = time;
      }
      times.push_back(least);
      any = true;
    }
    if (!any) return refused;
    return times;
  };
  StatusOr<std::vector<double>> times = all();
  // Whatever came of it: `copy` goes.
  SP_RETURN_IF_ERROR(cuda::Synchronize(stream, kPatience));
  return times;
}

Status CublasLtGemm::Repeat(GpuStream& stream, void* to, size_t bytes,
                            const void* from, size_t unit) {
  auto* const begin = static_cast<std::byte*>(to);
  size_t done = std::min(unit, bytes);
  SP_RETURN_IF_ERROR(stream.Copy(begin, from, done));
  while (done < bytes) {
    const size_t next = std::min(done, bytes - done);
    SP_RETURN_IF_ERROR(stream.Copy(begin + done, begin, next));
    done += next;
  }
  return OkStatus();
}

Status CublasLtGemm::Zero(GpuStream& stream, void* to, size_t bytes) const {
  if (bytes == 0) return OkStatus();
  return Repeat(stream, to, bytes, zeros_.data(), zeros_.bytes());
}

std::vector<PinnedAlgorithm> CublasLtGemm::Pinned() const {
  const std::lock_guard lock(mutex_);
  return pinned_;
}

std::string CublasLtGemm::Report() const {
  std::string text;
  for (const PinnedAlgorithm& one : Pinned()) text += one.ToString() + "\n";
  return text;
}

}  // namespace shardproof
