// A layer in a world on emulated GPUs: the same code computes by the kernels of
// the GPU that its rank lives on, which the counts of launches show.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "collectives/backend/cuda/device/cuda_world.h"
#include "collectives/backend/cuda/device/emulated_gpu.h"
#include "collectives/backend/thread/thread_world.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/cuda/device/layer_kernels_on_gpu.h"
#include "layers/norm/norm.h"

namespace shardproof {
namespace {

using cuda::LayerKernelsOnGpu;
using Numbers = std::vector<double>;

constexpr int kRanks = 3, kGpus = 2;

// Two emulated GPUs, and the kernels of each.
struct Gpus {
  explicit Gpus(const cuda::EmulatedFaults& faults = {})
      : gpus(*cuda::OpenEmulatedGpus({.count = kGpus, .faults = faults})) {
    for (int gpu = 0; gpu < kGpus; ++gpu) {
      kernels.push_back(std::make_shared<LayerKernelsOnGpu>(
          cuda::GpuLanesOptions{.gpus = gpus,
                                .gpu = gpu,
                                .grace = std::chrono::milliseconds(20)}));
    }
  }
  Status Run(const std::function<Status(const Communicator&)>& rank_main) {
    SP_ASSIGN_OR_RETURN(
        const std::unique_ptr<ThreadWorld> world,
        cuda::CreateCudaWorld(
            {.ranks = kRanks,
             .gpus = gpus,
             .services = [this](RankServices& context,
                                const cuda::Place& place) {
               const auto* const health = context.Find<cuda::RankHealth>();
               context.Put<LayerKernels>(
                   kernels[static_cast<size_t>(place.gpu)]->ForWorld(
                       health->ask));
             }}));
    return world->Run(rank_main);
  }

  std::shared_ptr<cuda::GpuSystem> gpus;
  std::vector<std::shared_ptr<LayerKernelsOnGpu>> kernels;
};

// Both passes of a norm on this rank; all that they wrote is added to `out`.
template <class T>
Status RunNorm(const Communicator& comm, DType dtype, const Stream& stream,
               Numbers& out) {
  const ParallelNormConfig config = {.tokens = 7,
                                     .hidden = 33,
                                     .dtype = dtype,
                                     .bias = true,
                                     .sequence_parallel = true};
  SP_ASSIGN_OR_RETURN(ParallelNorm norm, ParallelNorm::Create(comm, config));
  const auto n = static_cast<size_t>(norm.local_tokens() * config.hidden);
  std::vector<T> x(n), dy(n), y(n), dx(n);
  std::vector<T> weight(33), bias(33), dweight(33), dbias(33);
  const auto fill = [&](std::vector<T>& to, int seed) {
    for (size_t i = 0; i < to.size(); ++i) {
      to[i] = static_cast<T>(std::sin(static_cast<double>(i * 7) + seed));
    }
  };
  fill(x, comm.rank());
  fill(dy, comm.rank() + 10);
  fill(weight, 20);
  fill(bias, 30);
  SP_RETURN_IF_ERROR(norm.Forward({.x = x.data(),
                                   .weight = weight.data(),
                                   .bias = bias.data(),
                                   .y = y.data()},
                                  stream));
  SP_RETURN_IF_ERROR(norm.Backward({.z = x.data(),
                                    .weight = weight.data(),
                                    .dy = dy.data(),
                                    .dx = dx.data(),
                                    .dweight = dweight.data(),
                                    .dbias = dbias.data()},
                                   stream));
  SP_RETURN_IF_ERROR(stream.Synchronize());
  for (const auto* part : {&y, &dx, &dweight, &dbias}) {
    out.insert(out.end(), part->begin(), part->end());
  }
  return OkStatus();
}

std::vector<Numbers> OnTheHost() {
  std::vector<Numbers> out(kRanks);
  const Status ran = RunThreads(kRanks, [&](const Communicator& comm) {
    return RunNorm<float>(comm, DType::kF32, Stream::Inline(),
                          out[static_cast<size_t>(comm.rank())]);
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
  return out;
}

TEST(LayersOnGpusTest, ANormComputesByTheKernelsOfItsGpu) {
  const std::vector<Numbers> want = OnTheHost();
  for (const bool queued : {false, true}) {
    SCOPED_TRACE(queued);
    Gpus gpus;
    std::vector<Numbers> got(kRanks);
    const Status ran = gpus.Run([&](const Communicator& comm) -> Status {
      Stream stream;
      if (queued) {
        SP_ASSIGN_OR_RETURN(stream, Stream::Create("norm"));
      }
      return RunNorm<float>(comm, DType::kF32, stream,
                            got[static_cast<size_t>(comm.rank())]);
    });
    ASSERT_TRUE(ran.ok()) << ran.ToString();
    for (size_t r = 0; r < want.size(); ++r) {
      ASSERT_EQ(got[r].size(), want[r].size());
      for (size_t i = 0; i < want[r].size(); ++i) {
        ASSERT_NEAR(got[r][i], want[r][i], 1e-5) << "rank " << r;
      }
    }
    // Forward one kernel, backward two, and the roundings of two sums. Ranks 0
    // and 2 live on GPU 0, rank 1 on GPU 1.
    EXPECT_EQ(gpus.kernels[0]->counts().launches, 2 * 5);
    EXPECT_EQ(gpus.kernels[1]->counts().launches, 5);
    EXPECT_EQ(gpus.kernels[0]->counts().left_to_host, 0);
  }
}

TEST(LayersOnGpusTest, WhatHasNoKernelIsComputedOnTheHost) {
  Gpus gpus;
  std::vector<Numbers> got(kRanks);
  const Status ran = gpus.Run([&](const Communicator& comm) {
    return RunNorm<double>(comm, DType::kF64, Stream::Inline(),
                           got[static_cast<size_t>(comm.rank())]);
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  const std::vector<Numbers> want = OnTheHost();
  for (size_t i = 0; i < want[1].size(); ++i) {
    ASSERT_NEAR(got[1][i], want[1][i], 1e-5);
  }
  EXPECT_EQ(gpus.kernels[1]->counts().launches, 0);
  EXPECT_EQ(gpus.kernels[1]->counts().left_to_host, 4);
}

TEST(LayersOnGpusTest, AKernelThatFailsIsTheErrorOfTheLayer) {
  Gpus gpus({.failing_launch = 0});
  const Status ran = gpus.Run([&](const Communicator& comm) {
    Numbers ignored;
    return RunNorm<float>(comm, DType::kF32, Stream::Inline(), ignored);
  });
  EXPECT_NE(ran.message().find("Normalize: launch 0 was told to fail"),
            std::string_view::npos)
      << ran.ToString();
}

TEST(LayersOnGpusTest, AnAbortEndsTheWaitForAKernel) {
  Gpus gpus({.endless_launch = 0});
  Status ended;
  static_cast<void>(gpus.Run([&](const Communicator& comm) {
    if (comm.rank() != 0) {
      comm.Abort("a rank gave up");
      return OkStatus();
    }
    std::vector<float> b(10, 1), y(10, 5);
    ended = AddBias(Stream::Inline(), DType::kF32, 1, 10, b.data(), y.data());
    return OkStatus();
  }));
  EXPECT_EQ(gpus.kernels[0]->counts().launches, 1);
  EXPECT_EQ(ended.code(), StatusCode::kAborted);
  EXPECT_NE(ended.message().find("GPU 0 (emulated): AddBias: "),
            std::string_view::npos)
      << ended.ToString();
  EXPECT_NE(ended.message().find("a rank gave up"), std::string_view::npos)
      << ended.ToString();
}

TEST(LayersOnGpusTest, TheHealthOfARankMayBeAskedForAfterItsWorld) {
  const auto gpus = *cuda::OpenEmulatedGpus({.count = 1});
  std::function<Status()> ask;
  {
    const auto world = cuda::CreateCudaWorld(
        {.ranks = 1,
         .gpus = gpus,
         .services = [&](RankServices& context, const cuda::Place& /*place*/) {
           ask = context.Find<cuda::RankHealth>()->ask;
         }});
    ASSERT_TRUE(world.ok());
    const Status ran =
        (*world)->Run([](const Communicator&) { return OkStatus(); });
    ASSERT_TRUE(ran.ok()) << ran.ToString();
    EXPECT_TRUE(ask().ok());
    (*world)->Abort("enough");
    EXPECT_EQ(ask().code(), StatusCode::kAborted);
  }
  EXPECT_TRUE(ask().ok());
}

// Without services a world on GPUs computes on the host, as it always did.
TEST(LayersOnGpusTest, AWorldWithoutServicesComputesOnTheHost) {
  const auto gpus = *cuda::OpenEmulatedGpus({.count = 1});
  const auto world = cuda::CreateCudaWorld({.ranks = 2, .gpus = gpus});
  ASSERT_TRUE(world.ok());
  const Status ran = (*world)->Run([](const Communicator&) -> Status {
    return FindService<LayerKernels>() == nullptr ? OkStatus()
                                                  : Internal("there are some");
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

}  // namespace
}  // namespace shardproof
