#include <fmt/core.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "layers/data_parallel/linear_stack.h"
#include "layers/speed/link_collectives.h"
#include "layers/speed/parallel_speed.h"
#include "layers/speed/side_by_side.h"
#include "reference/random.h"

namespace shardproof {
namespace {

enum class Form { kNothingReduced, kPlain, kOverlapped };

// One replica of a stack of linear layers.
class Replica {
 public:
  static StatusOr<Replica> Create(const Communicator& comm,
                                  const LinearStackConfig& config,
                                  int64_t bucket_bytes,
                                  const CollectiveFamily& collectives) {
    SP_ASSIGN_OR_RETURN(LinearStack stack, LinearStack::Create(config));
    const auto gradients = [&](int64_t bucket, bool overlap) {
      return DataParallel::Create(comm,
                                  {.counts = config.Counts(),
                                   .dtype = config.dtype,
                                   .bucket_bytes = bucket,
                                   .overlap = overlap},
                                  collectives);
    };
    // One bucket for all.
    int64_t everything = 0;
    for (const int64_t n : config.Counts()) {
      everything += n * SizeOf(config.dtype);
    }
    SP_ASSIGN_OR_RETURN(DataParallel plain, gradients(everything, false));
    SP_ASSIGN_OR_RETURN(DataParallel overlapped, gradients(bucket_bytes, true));
    return Replica(config, comm.rank(), std::move(stack), std::move(plain),
                   std::move(overlapped));
  }

  Status Step(Form form) {
    DataParallel& to = form == Form::kOverlapped ? overlapped_ : plain_;
    SP_RETURN_IF_ERROR(to.BeginStep());
    // A micro-batch that is not the last is not reduced.
    SP_RETURN_IF_ERROR(
        to.BeginMicroBatch(config_.tokens, form != Form::kNothingReduced));
    SP_RETURN_IF_ERROR(
        stack_.Forward({.x = x_.raw(), .tokens = config_.tokens}, weights_));
    SP_RETURN_IF_ERROR(stack_.Backward(dy_.raw(), weights_, SinkOf(to)));
    return form == Form::kNothingReduced ? OkStatus() : to.Finish();
  }

  bool FormsAgree() const {
    const std::vector<int64_t> counts = config_.Counts();
    for (size_t i = 0; i < counts.size(); ++i) {
      const int parameter = static_cast<int>(i);
      const auto bytes = static_cast<size_t>(counts[i] * SizeOf(config_.dtype));
      if (std::memcmp(plain_.gradient(parameter),
                      overlapped_.gradient(parameter), bytes) != 0) {
        return false;
      }
    }
    return true;
  }

 private:
  Replica(const LinearStackConfig& config, int rank, LinearStack stack,
          DataParallel plain, DataParallel overlapped)
      : config_(config),
        stack_(std::move(stack)),
        plain_(std::move(plain)),
        overlapped_(std::move(overlapped)),
        x_(config.dtype, {config.tokens, config.widths.front()}),
        dy_(config.dtype, {config.tokens, config.widths.back()}) {
    const auto fill = [&](Tensor& t, uint64_t tensor, uint64_t of) {
      Fill(Uniform(config.dtype, 0.1),
           {.seed = 1, .tensor = tensor, .rank = of}, 0, t.num_elements(),
           t.raw());
    };
    const auto own = static_cast<uint64_t>(rank);
    fill(x_, TensorId("x"), own);
    fill(dy_, TensorId("dy"), own);
    for (int i = 0; i < config.parameters(); ++i) {
      tensors_.emplace_back(config.dtype, config.ShapeOf(i));
      fill(tensors_.back(), TensorId("w") + static_cast<uint64_t>(i), 0);
    }
    for (const Tensor& t : tensors_) weights_.push_back(t.raw());
  }

  LinearStackConfig config_;
  LinearStack stack_;
  DataParallel plain_, overlapped_;
  Tensor x_, dy_;
  std::vector<Tensor> tensors_;
  std::vector<const void*> weights_;
};

Status Measure(const char* link, const LinearStackConfig& config,
               int64_t bucket_bytes, const CollectiveFamily& collectives,
               const SpeedOptions& options) {
  SP_ASSIGN_OR_RETURN(const auto world,
                      ThreadWorld::Create({.ranks = options.ranks}));
  std::vector<std::optional<Replica>> replicas(
      static_cast<size_t>(options.ranks));
  SP_RETURN_IF_ERROR(world->Run([&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(
        replicas[static_cast<size_t>(comm.rank())],
        Replica::Create(comm, config, bucket_bytes, collectives));
    return OkStatus();
  }));
  const auto step = [&](Form form) {
    return [&, form] {
      return world->Run([&](const Communicator& comm) {
        return replicas[static_cast<size_t>(comm.rank())]->Step(form);
      });
    };
  };
  SP_RETURN_IF_ERROR(step(Form::kPlain)());
  SP_RETURN_IF_ERROR(step(Form::kOverlapped)());
  for (const auto& replica : replicas) {
    if (!replica->FormsAgree()) {
      return Internal("overlapped gradients are not those of the plain form");
    }
  }
  SP_ASSIGN_OR_RETURN(const std::vector<Times> t,
                      SideBySide({step(Form::kNothingReduced),
                                  step(Form::kPlain), step(Form::kOverlapped)},
                                 options.rounds));
  const double exposed = t[1].median - t[0].median;
  fmt::print(
      "data_parallel over {} [{} tokens, {} layers of {}]: nothing reduced "
      "{:.1f} ms, plain {:.1f} ms, overlapped {:.1f} ms: hides {:.0f}%\n",
      link, config.tokens, config.layers(), config.widths[0], t[0].median * 1e3,
      t[1].median * 1e3, t[2].median * 1e3,
      100 * (t[1].median - t[2].median) / exposed);
  return OkStatus();
}

}  // namespace

Status GradientOverlapSpeed(const SpeedOptions& options) {
  const int64_t width = options.smoke ? 16 : 2048;
  const LinearStackConfig config = {.widths = std::vector<int64_t>(7, width),
                                    .tokens = options.smoke ? 4 : 256};
  // A layer's weight.
  const int64_t bucket = width * width * SizeOf(config.dtype);
  SP_RETURN_IF_ERROR(
      Measure("shared memory", config, bucket, kAutoCollectives, options));
  return Measure("a link of 1 GB/s", config, bucket, kLinkCollectives, options);
}

}  // namespace shardproof
