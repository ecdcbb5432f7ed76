// What the case cannot say: refusals, targets that are none, tokens that do not
// count, and that the steady state asks for no memory.
#include "layers/vocab_parallel_cross_entropy/vocab_parallel_cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "collectives/mesh.h"
#include "layers/testing/allocations.h"

namespace shardproof {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int64_t kIgnored = -100;

using Ids = std::vector<int64_t>;
using Floats = std::vector<float>;

struct Passes {
  Floats loss, dlogits;
  float mean = -1;
};

// Forward and backward with an upstream gradient of 2 for the mean; logits are
// by token and id of the padded vocabulary.
StatusOr<Passes> RunLoss(VocabParallelCrossEntropy& layer, const Ids& targets,
                         const std::function<float(int64_t, int64_t)>& logit) {
  const VocabPartition& cut = layer.partition();
  const auto tokens = static_cast<int64_t>(targets.size());
  Floats x;
  for (int64_t i = 0; i < tokens; ++i) {
    for (int64_t k = 0; k < cut.rows; ++k) x.push_back(logit(i, cut.begin + k));
  }
  Passes run{Floats(targets.size(), -1), Floats(x.size(), -1)};
  const float upstream = 2;
  SP_RETURN_IF_ERROR(layer.Forward({.logits = x.data(),
                                    .targets = targets.data(),
                                    .loss = run.loss.data(),
                                    .mean = &run.mean}));
  SP_RETURN_IF_ERROR(layer.Backward({.logits = x.data(),
                                     .targets = targets.data(),
                                     .upstream = &upstream,
                                     .dlogits = run.dlogits.data()}));
  return run;
}

Status CreateError(const Communicator& comm,
                   const VocabCrossEntropyConfig& config,
                   const Communicator* data = nullptr) {
  return VocabParallelCrossEntropy::Create(comm, config, data).status();
}

void ExpectAll(const std::vector<Status>& all, std::string_view message) {
  for (const Status& s : all) {
    EXPECT_EQ(s.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(s.message(), message);
  }
}

TEST(VocabParallelCrossEntropy, RefusesOnEveryRankAlike) {
  std::vector<Status> refusals(3);
  const Status ran = RunThreads(3, [&](const Communicator& comm) {
    refusals[static_cast<size_t>(comm.rank())] =
        CreateError(comm, {.tokens = 4,
                           .vocabulary = 7,
                           .smoothing = comm.rank() == 1 ? 0.1 : 0});
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  ExpectAll(refusals,
            "ranks 0 and 1 make different layers: "
            "\"vocab_parallel_cross_entropy of f32 over a vocabulary of 7 in "
            "multiples of 1, smoothing 0, ignore_index -100, 4 tokens\" and "
            "\"vocab_parallel_cross_entropy of f32 over a vocabulary of 7 in "
            "multiples of 1, smoothing 0.1, ignore_index -100, 4 tokens\"");
}

// Ranks 0 and 1 are one tensor-parallel group, 2 and 3 the other.
using OnMesh = std::function<Status(const Communicator& tp,
                                    const Communicator& dp, int group)>;
void RunMesh(const OnMesh& body) {
  const Status ran = RunThreads(4, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Mesh mesh,
                        Mesh::Create(comm, {{"tp", 2}, {"dp", 2}}));
    return body(mesh.Along("tp"), mesh.Along("dp"), mesh.Coordinate("dp"));
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(VocabParallelCrossEntropy, GroupsMayDifferInTokensOnly) {
  std::vector<Status> refusals(4), wrong_inside(4);
  RunMesh([&](const Communicator& tp, const Communicator& dp, int group) {
    const auto rank = static_cast<size_t>(2 * group + tp.rank());
    EXPECT_TRUE(CreateError(tp, {.tokens = group, .vocabulary = 7}, &dp).ok());
    refusals[rank] = CreateError(tp, {.vocabulary = 7 + group}, &dp);
    // The ranks of group 1 do not agree with one another.
    wrong_inside[rank] =
        CreateError(tp, {.tokens = group * tp.rank(), .vocabulary = 7}, &dp);
    return OkStatus();
  });
  ExpectAll(refusals,
            "data-parallel ranks 0 and 1 make different layers: "
            "\"vocab_parallel_cross_entropy of f32 over a vocabulary of 7 in "
            "multiples of 1, smoothing 0, ignore_index -100\" and "
            "\"vocab_parallel_cross_entropy of f32 over a vocabulary of 8 in "
            "multiples of 1, smoothing 0, ignore_index -100\"");
  ExpectAll(wrong_inside,
            "ranks 0 and 1 make different layers: "
            "\"vocab_parallel_cross_entropy of f32 over a vocabulary of 7 in "
            "multiples of 1, smoothing 0, ignore_index -100, 0 tokens, "
            "data-parallel\" and \"vocab_parallel_cross_entropy of f32 over a "
            "vocabulary of 7 in multiples of 1, smoothing 0, ignore_index "
            "-100, 1 tokens, data-parallel\"");
}

TEST(VocabParallelCrossEntropy, RefusesSizesAndTypes) {
  const Status ran = RunThreads(1, [&](const Communicator& comm) {
    for (const VocabCrossEntropyConfig& config :
         {VocabCrossEntropyConfig{.vocabulary = 0},
          VocabCrossEntropyConfig{.vocabulary = 1, .multiple = 0},
          VocabCrossEntropyConfig{.tokens = -1, .vocabulary = 1},
          VocabCrossEntropyConfig{.vocabulary = 1, .smoothing = -0.1},
          VocabCrossEntropyConfig{.vocabulary = 1, .smoothing = 1.1},
          VocabCrossEntropyConfig{.vocabulary = 1, .smoothing = kNan}}) {
      EXPECT_EQ(CreateError(comm, config).code(), StatusCode::kInvalidArgument);
    }
    EXPECT_EQ(CreateError(comm, {.vocabulary = 1, .dtype = DType::kI32}).code(),
              StatusCode::kUnsupported);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

float Sloped(int64_t i, int64_t j) { return static_cast<float>(i + j) * 0.25F; }

// 7 is padding on rank 2.
TEST(VocabParallelCrossEntropy, NamesATargetOutOfRangeOnEveryRankAndGoesOn) {
  for (const int64_t bad : {int64_t{7}, int64_t{-1}}) {
    std::vector<Status> errors(3);
    const Status ran = RunThreads(3, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(VocabParallelCrossEntropy layer,
                          VocabParallelCrossEntropy::Create(
                              comm, {.tokens = 3, .vocabulary = 7}));
      errors[static_cast<size_t>(comm.rank())] =
          RunLoss(layer, {kIgnored, bad, 9}, Sloped).status();
      return RunLoss(layer, {0, 6, kIgnored}, Sloped).status();
    });
    ASSERT_TRUE(ran.ok()) << ran.ToString();
    ExpectAll(errors,
              fmt::format("vocab_parallel_cross_entropy: target {} at position "
                          "1 is neither in [0, 7) nor the ignored -100",
                          bad));
  }
}

// The other group has nothing wrong, and must neither wait nor go on.
TEST(VocabParallelCrossEntropy, ABadTargetOfOneGroupIsAnErrorOfAll) {
  std::vector<Status> errors(4);
  RunMesh(
      [&](const Communicator& tp, const Communicator& dp, int group) -> Status {
        SP_ASSIGN_OR_RETURN(VocabParallelCrossEntropy layer,
                            VocabParallelCrossEntropy::Create(
                                tp, {.tokens = 2, .vocabulary = 5}, &dp));
        const Ids bad = group == 1 ? Ids{1, 5} : Ids{1, 2};
        errors[static_cast<size_t>(2 * group + tp.rank())] =
            RunLoss(layer, bad, Sloped).status();
        return RunLoss(layer, {4, 0}, Sloped).status();
      });
  ExpectAll(errors,
            "vocab_parallel_cross_entropy: target 5 at position 1 of "
            "data-parallel rank 1 is neither in [0, 5) nor the ignored -100");
}

TEST(VocabParallelCrossEntropy, AllIgnoredIsZeroWhateverTheLogitsAre) {
  const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(
        VocabParallelCrossEntropy layer,
        VocabParallelCrossEntropy::Create(
            comm, {.tokens = 2, .vocabulary = 5, .smoothing = 0.1}));
    SP_ASSIGN_OR_RETURN(const Passes run,
                        RunLoss(layer, {kIgnored, kIgnored},
                                [](int64_t, int64_t) { return kNan; }));
    EXPECT_EQ(run.loss, Floats(2, 0));
    EXPECT_EQ(run.mean, 0);
    EXPECT_EQ(run.dlogits, Floats(run.dlogits.size(), 0));
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// Equal logits, so a loss is log 5 and a gradient 2 (1/5 - q) / count. Group 0
// has 1 token that counts, or none, or no token at all; group 1 has 3.
TEST(VocabParallelCrossEntropy, TheMeanIsOverTheTokensOfAllGroups) {
  for (const Ids& first : {Ids{4, kIgnored}, Ids{kIgnored, kIgnored}, Ids{}}) {
    const float count = first.size() == 2 && first[0] == 4 ? 4 : 3;
    RunMesh([&](const Communicator& tp, const Communicator& dp,
                int group) -> Status {
      const Ids targets = group == 0 ? first : Ids{0, 1, kIgnored, 4};
      SP_ASSIGN_OR_RETURN(
          VocabParallelCrossEntropy layer,
          VocabParallelCrossEntropy::Create(
              tp,
              {.tokens = static_cast<int64_t>(targets.size()), .vocabulary = 5},
              &dp));
      // Padding would change everything.
      SP_ASSIGN_OR_RETURN(const Passes run,
                          RunLoss(layer, targets, [](int64_t, int64_t j) {
                            return j < 5 ? 1000.F : kNan;
                          }));
      EXPECT_FLOAT_EQ(run.mean, std::log(5.F));
      const VocabPartition& cut = layer.partition();
      for (size_t i = 0; i < targets.size(); ++i) {
        const bool counts = targets[i] != kIgnored;
        EXPECT_FLOAT_EQ(run.loss[i], counts ? std::log(5.F) : 0);
        for (int64_t k = 0; k < cut.rows; ++k) {
          const int64_t j = cut.begin + k;
          const float q = j == targets[i] ? 1 : 0;
          EXPECT_FLOAT_EQ(run.dlogits[i * static_cast<size_t>(cut.rows) +
                                      static_cast<size_t>(k)],
                          counts && j < 5 ? 2 * (0.2F - q) / count : 0)
              << "token " << i << ", id " << j;
        }
      }
      return OkStatus();
    });
  }
}

// Ranks with padding only.
TEST(VocabParallelCrossEntropy, MoreRanksThanIds) {
  const Status ran = RunThreads(5, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(
        VocabParallelCrossEntropy layer,
        VocabParallelCrossEntropy::Create(
            comm, {.tokens = 1, .vocabulary = 2, .smoothing = 0.5}));
    SP_ASSIGN_OR_RETURN(const Passes run, RunLoss(layer, {1}, Sloped));
    EXPECT_EQ(layer.partition().valid(), comm.rank() < 2 ? 1 : 0);
    // Logits 0 and 1/4 with weights 1/4 and 3/4.
    EXPECT_FLOAT_EQ(run.loss[0],
                    std::log(1 + std::exp(-0.25F)) + 0.25F * 0.25F);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(VocabParallelCrossEntropy, OnAStreamAndWithoutTheMean) {
  const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Stream stream, Stream::Create("loss"));
    SP_ASSIGN_OR_RETURN(VocabParallelCrossEntropy layer,
                        VocabParallelCrossEntropy::Create(
                            comm, {.tokens = 1, .vocabulary = 4}));
    const Floats x(2, 7);
    const Ids targets = {2}, wrong = {4};
    float loss = -1;
    SP_RETURN_IF_ERROR(layer.Forward(
        {.logits = x.data(), .targets = targets.data(), .loss = &loss},
        stream));
    SP_RETURN_IF_ERROR(stream.Synchronize());
    EXPECT_FLOAT_EQ(loss, std::log(4.F));
    static_cast<void>(layer.Forward(
        {.logits = x.data(), .targets = wrong.data(), .loss = &loss}, stream));
    EXPECT_EQ(stream.Synchronize().code(), StatusCode::kInvalidArgument);
    return comm.Barrier();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(VocabParallelCrossEntropy, SteadyStateAsksForNoMemory) {
  constexpr int64_t kTokens = 3000, kVocabulary = 40;
  const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(
        VocabParallelCrossEntropy layer,
        VocabParallelCrossEntropy::Create(
            comm,
            {.tokens = kTokens, .vocabulary = kVocabulary, .smoothing = 0.1}));
    Floats x(static_cast<size_t>(kTokens * layer.partition().rows), 1);
    const Ids targets(kTokens, 3);
    Floats loss(kTokens);
    const float upstream = 2;
    const auto run = [&]() -> Status {
      SP_RETURN_IF_ERROR(layer.Forward({.logits = x.data(),
                                        .targets = targets.data(),
                                        .loss = loss.data()}));
      return layer.Backward({.logits = x.data(),
                             .targets = targets.data(),
                             .upstream = &upstream,
                             .dlogits = x.data()});
    };
    for (int i = 0; i < 2; ++i) SP_RETURN_IF_ERROR(run());
    SP_RETURN_IF_ERROR(comm.Barrier());
    const int64_t before = LargeAllocations();
    SP_RETURN_IF_ERROR(comm.Barrier());
    for (int i = 0; i < 3; ++i) SP_RETURN_IF_ERROR(run());
    SP_RETURN_IF_ERROR(comm.Barrier());
    EXPECT_EQ(LargeAllocations(), before);
    return comm.Barrier();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

}  // namespace
}  // namespace shardproof
