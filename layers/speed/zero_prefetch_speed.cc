#include <fmt/core.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "layers/speed/link_collectives.h"
#include "layers/speed/parallel_speed.h"
#include "layers/speed/side_by_side.h"
#include "layers/zero/block_stack.h"
#include "layers/zero/zero.h"
#include "reference/random.h"

namespace shardproof {
namespace {

// One rank, which trains the same model twice: with and without prefetch.
class Trainer {
 public:
  static StatusOr<Trainer> Create(const Communicator& comm,
                                  const std::vector<int64_t>& widths,
                                  int64_t tokens,
                                  const CollectiveFamily& collectives) {
    Trainer trainer(comm.rank(), widths, tokens);
    for (const bool overlap : {false, true}) {
      SP_ASSIGN_OR_RETURN(trainer.forms_[overlap ? 1 : 0],
                          Zero::Create({.shard = comm},
                                       {.stage = 3,
                                        .blocks = trainer.model_.blocks(),
                                        .overlap = overlap},
                                       collectives));
      SP_RETURN_IF_ERROR(trainer.Load(*trainer.forms_[overlap ? 1 : 0]));
    }
    return trainer;
  }

  Status Step(bool prefetch) {
    model_.SetBatch({.tokens = x_.shape()[0],
                     .x = x_.raw(),
                     .dy = dy_.raw(),
                     .y = y_.raw(),
                     .dx = dx_.raw()},
                    1);
    return forms_[prefetch ? 1 : 0]->Step(
        model_, 1 / static_cast<double>(x_.shape()[0]));
  }

  bool FormsAgree() const {
    for (size_t block = 0; block < model_.blocks().size(); ++block) {
      const auto bytes =
          static_cast<size_t>(forms_[0]->own(block).count) * sizeof(float);
      if (std::memcmp(forms_[0]->own_parameters(block),
                      forms_[1]->own_parameters(block), bytes) != 0) {
        return false;
      }
    }
    return true;
  }

 private:
  Trainer(int rank, const std::vector<int64_t>& widths, int64_t tokens)
      : model_(widths, DType::kF32),
        x_(DType::kF32, {tokens, widths.front()}),
        dy_(DType::kF32, {tokens, widths.back()}),
        y_(DType::kF32, {tokens, widths.back()}),
        dx_(DType::kF32, {tokens, widths.front()}) {
    const auto own = static_cast<uint64_t>(rank);
    Draw("x", own, x_);
    Draw("dy", own, dy_);
  }

  static void Draw(std::string_view name, uint64_t rank, Tensor& to) {
    Fill(Uniform(DType::kF32, 0.1),
         {.seed = 1, .tensor = TensorId(name), .rank = rank}, 0,
         to.num_elements(), to.raw());
  }

  Status Load(Zero& zero) {
    std::vector<Tensor> blocks;
    std::vector<const void*> parameters;
    for (const int64_t n : model_.blocks()) {
      blocks.emplace_back(DType::kF32, Shape{n});
      Draw("w", blocks.size(), blocks.back());
    }
    for (const Tensor& t : blocks) parameters.push_back(t.raw());
    return zero.Load(parameters);
  }

  BlockStack model_;
  Tensor x_, dy_, y_, dx_;
  std::array<std::optional<Zero>, 2> forms_;
};

Status Measure(const char* link, const std::vector<int64_t>& widths,
               int64_t tokens, const CollectiveFamily& collectives,
               const SpeedOptions& options) {
  SP_ASSIGN_OR_RETURN(const auto world,
                      ThreadWorld::Create({.ranks = options.ranks}));
  std::vector<std::optional<Trainer>> trainers(
      static_cast<size_t>(options.ranks));
  SP_RETURN_IF_ERROR(world->Run([&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(trainers[static_cast<size_t>(comm.rank())],
                        Trainer::Create(comm, widths, tokens, collectives));
    return OkStatus();
  }));
  const auto step = [&](bool prefetch) {
    return [&, prefetch] {
      return world->Run([&](const Communicator& comm) {
        return trainers[static_cast<size_t>(comm.rank())]->Step(prefetch);
      });
    };
  };
  SP_RETURN_IF_ERROR(step(false)());
  SP_RETURN_IF_ERROR(step(true)());
  for (const auto& trainer : trainers) {
    if (!trainer->FormsAgree()) {
      return Internal("with prefetch, other parameters come out");
    }
  }
  SP_ASSIGN_OR_RETURN(const std::vector<Times> t,
                      SideBySide({step(false), step(true)}, options.rounds));
  fmt::print(
      "zero 3 over {} [{} tokens, {} layers of {}]: without prefetch {:.1f} "
      "ms, "
      "with prefetch {:.1f} ms: {:.2f}x\n",
      link, tokens, widths.size() - 1, widths[0], t[0].median * 1e3,
      t[1].median * 1e3, t[0].median / t[1].median);
  return OkStatus();
}

}  // namespace

Status ZeroPrefetchSpeed(const SpeedOptions& options) {
  const std::vector<int64_t> widths(7, options.smoke ? 16 : 2048);
  const int64_t tokens = options.smoke ? 4 : 256;
  SP_RETURN_IF_ERROR(
      Measure("shared memory", widths, tokens, kAutoCollectives, options));
  return Measure("a link of 1 GB/s", widths, tokens, kLinkCollectives, options);
}

}  // namespace shardproof
