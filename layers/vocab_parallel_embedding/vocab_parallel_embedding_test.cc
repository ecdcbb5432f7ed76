// What the case cannot say: refusals, layers with nothing in them, and bits that
// do not depend on the cut.
#include "layers/vocab_parallel_embedding/vocab_parallel_embedding.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "reference/random.h"

namespace shardproof {
namespace {

using Ids = std::vector<int64_t>;
using Floats = std::vector<float>;

size_t Size(int64_t rows, int64_t columns) {
  return static_cast<size_t>(rows * columns);
}

// Elements [begin, begin + n) of a tensor that is the same for every cut.
Floats Draw(const char* name, int64_t begin, int64_t n) {
  Floats values(static_cast<size_t>(n));
  Fill(Uniform(DType::kF32), {.seed = 3, .tensor = TensorId(name)}, begin, n,
       values.data());
  return values;
}

TEST(VocabPartition, PadsAndCuts) {
  // GPT-2's, as Megatron-LM cuts it.
  const VocabPartition last = VocabPartition::Of(50257, 128, 4, 3);
  EXPECT_EQ(last.padded, 50688);
  EXPECT_EQ(last.rows, 12672);
  EXPECT_EQ(last.begin, 38016);
  EXPECT_EQ(last.valid(), 12241);
  // Padding only.
  EXPECT_EQ(VocabPartition::Of(3, 1, 5, 4).valid(), 0);
  EXPECT_EQ(VocabPartition::Of(3, 1, 5, 4).rows, 1);
  EXPECT_EQ(VocabPartition::Of(21, 4, 2, 1).valid(), 9);
}

Status CreateError(const Communicator& comm,
                   const VocabEmbeddingConfig& config) {
  return VocabParallelEmbedding::Create(comm, config).status();
}

TEST(VocabParallelEmbedding, RefusesOnEveryRankAlike) {
  std::vector<Status> refusals(3), projections(3);
  const Status ran = RunThreads(3, [&](const Communicator& comm) {
    const VocabEmbeddingConfig config = {.vocabulary = 7,
                                         .hidden = 5,
                                         .tokens = 4,
                                         .multiple = comm.rank() == 2 ? 8 : 1};
    const auto rank = static_cast<size_t>(comm.rank());
    refusals[rank] = CreateError(comm, config);
    projections[rank] = TiedOutputProjection::Create(comm, config).status();
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(refusal.message(),
              "ranks 0 and 2 make different layers: "
              "\"vocab_parallel_embedding of 4 tokens, vocabulary 7 in "
              "multiples of 1, 5 wide, f32\" and \"vocab_parallel_embedding of "
              "4 tokens, vocabulary 7 in multiples of 8, 5 wide, f32\"");
  }
  for (const Status& refusal : projections) {
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
  }
}

TEST(VocabParallelEmbedding, RefusesSizesAndTypes) {
  const Status ran = RunThreads(1, [&](const Communicator& comm) {
    EXPECT_EQ(CreateError(comm, {.vocabulary = 0}).message(),
              "vocab_parallel_embedding of 0 tokens, vocabulary 0 in multiples "
              "of 1, 0 wide, f32: the vocabulary and its multiple are at least "
              "1");
    for (const VocabEmbeddingConfig& config :
         {VocabEmbeddingConfig{.vocabulary = 1, .multiple = 0},
          VocabEmbeddingConfig{.vocabulary = 1, .hidden = -1},
          VocabEmbeddingConfig{.vocabulary = 1, .tokens = -1}}) {
      EXPECT_EQ(CreateError(comm, config).code(), StatusCode::kInvalidArgument);
    }
    EXPECT_EQ(CreateError(comm, {.vocabulary = 1, .dtype = DType::kI32}).code(),
              StatusCode::kUnsupported);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// Padding is out of range too: 7 has a row on rank 2, but is no id.
TEST(VocabParallelEmbedding, NamesAnIdOutOfRangeOnEveryRankAndGoesOn) {
  for (const int64_t bad : {int64_t{7}, int64_t{-1}, int64_t{1} << 40}) {
    for (const bool sequence_parallel : {false, true}) {
      std::vector<std::string> forward(3), backward(3);
      const Status ran = RunThreads(3, [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(
            VocabParallelEmbedding layer,
            VocabParallelEmbedding::Create(
                comm, {.vocabulary = 7,
                       .hidden = 2,
                       .tokens = 4,
                       .sequence_parallel = sequence_parallel}));
        const auto rank = static_cast<size_t>(comm.rank());
        const Floats table(Size(layer.partition().rows, 2), 1);
        Floats y(Size(layer.local_tokens(), 2), -1), dtable(table.size());
        const Ids wrong = {0, 6, bad, -5}, right = {0, 6, 2, 5};
        forward[rank] = std::string(
            layer.Forward({wrong.data(), table.data(), y.data()}).message());
        EXPECT_EQ(y, Floats(y.size(), -1)) << "written before the check";
        backward[rank] = std::string(
            layer.Backward({wrong.data(), y.data(), dtable.data()}).message());
        // Nobody is left behind in a collective.
        SP_RETURN_IF_ERROR(
            layer.Forward({right.data(), table.data(), y.data()}));
        EXPECT_EQ(y, Floats(y.size(), 1));
        return OkStatus();
      });
      ASSERT_TRUE(ran.ok()) << ran.ToString();
      const std::string want = fmt::format(
          "vocab_parallel_embedding: id {} at position 2 is not in [0, 7)",
          bad);
      EXPECT_EQ(forward, std::vector<std::string>(3, want));
      EXPECT_EQ(backward, std::vector<std::string>(3, want));
    }
  }
}

TEST(VocabParallelEmbedding, AnErrorOnAStreamDropsWhatIsBehindIt) {
  const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Stream stream, Stream::Create("embedding"));
    SP_ASSIGN_OR_RETURN(VocabParallelEmbedding layer,
                        VocabParallelEmbedding::Create(
                            comm, {.vocabulary = 4, .hidden = 3, .tokens = 2}));
    const Ids wrong = {0, 4};
    const Floats table(Size(layer.partition().rows, 3), 1);
    Floats y(6, -1);
    static_cast<void>(
        layer.Forward({wrong.data(), table.data(), y.data()}, stream));
    EXPECT_EQ(stream.Synchronize().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(y, Floats(6, -1));
    return comm.Barrier();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// Rows of padding hold what must never be looked up.
TEST(VocabParallelEmbedding, PaddingIsNotReadAndHasZeroGradients) {
  for (const bool sequence_parallel : {false, true}) {
    const VocabEmbeddingConfig config = {
        .vocabulary = 3,
        .hidden = 2,
        .tokens = 5,
        .multiple = 2,
        .sequence_parallel = sequence_parallel};
    const Status ran = RunThreads(4, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(VocabParallelEmbedding layer,
                          VocabParallelEmbedding::Create(comm, config));
      const VocabPartition& cut = layer.partition();
      EXPECT_EQ(cut.padded, 8);
      Floats table(Size(cut.rows, 2), std::numeric_limits<float>::quiet_NaN());
      std::fill_n(table.begin(), cut.valid() * 2, 3.F);
      const Ids ids = {2, 0, 2, 1, 2};
      Floats y(Size(layer.local_tokens(), 2), -1), dtable(table.size(), -1);
      SP_RETURN_IF_ERROR(layer.Forward({ids.data(), table.data(), y.data()}));
      EXPECT_EQ(y, Floats(y.size(), 3));
      SP_RETURN_IF_ERROR(layer.Backward({ids.data(), y.data(), dtable.data()}));
      for (int64_t k = 0; k < cut.rows; ++k) {
        const int64_t id = cut.begin + k;
        const float want = id > 2 ? 0 : id == 2 ? 9 : 3;
        EXPECT_EQ(dtable[Size(k, 2)], want) << "id " << id;
      }
      return OkStatus();
    });
    EXPECT_TRUE(ran.ok()) << ran.ToString();
  }
}

// Each row is added in the order of the ids, whoever holds it.
TEST(VocabParallelEmbedding, GradientsHaveTheSameBitsInEveryCut) {
  const int64_t vocabulary = 5, hidden = 9, tokens = 200;
  Ids ids;
  for (int64_t i = 0; i < tokens; ++i) ids.push_back(i * i % vocabulary);
  const Floats dy = Draw("dy", 0, tokens * hidden);
  Floats dense;
  for (const int ranks : {1, 2, 3}) {
    std::vector<Floats> parts(static_cast<size_t>(ranks));
    const Status ran =
        RunThreads(ranks, [&](const Communicator& comm) -> Status {
          SP_ASSIGN_OR_RETURN(
              VocabParallelEmbedding layer,
              VocabParallelEmbedding::Create(comm, {.vocabulary = vocabulary,
                                                    .hidden = hidden,
                                                    .tokens = tokens}));
          Floats& dtable = parts[static_cast<size_t>(comm.rank())];
          dtable.assign(Size(layer.partition().rows, hidden), -1);
          return layer.Backward({ids.data(), dy.data(), dtable.data()});
        });
    ASSERT_TRUE(ran.ok()) << ran.ToString();
    Floats all;
    for (const Floats& part : parts) {
      all.insert(all.end(), part.begin(), part.end());
    }
    all.resize(Size(vocabulary, hidden));
    if (ranks == 1) dense = all;
    EXPECT_EQ(all, dense) << ranks << " ranks";
  }
}

TEST(VocabParallelEmbedding, WithoutTokensHasZeroGradients) {
  for (const bool sequence_parallel : {false, true}) {
    const VocabEmbeddingConfig config = {
        .vocabulary = 3,
        .hidden = 2,
        .tokens = 0,
        .sequence_parallel = sequence_parallel};
    const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(VocabParallelEmbedding layer,
                          VocabParallelEmbedding::Create(comm, config));
      SP_ASSIGN_OR_RETURN(const TiedOutputProjection projection,
                          TiedOutputProjection::Create(comm, config));
      const Floats table(4, 1);
      Floats dtable(4, -1);
      SP_RETURN_IF_ERROR(layer.Forward({nullptr, table.data(), nullptr}));
      SP_RETURN_IF_ERROR(layer.Backward({nullptr, nullptr, dtable.data()}));
      EXPECT_EQ(dtable, Floats(4, 0));
      dtable.assign(4, -1);
      SP_RETURN_IF_ERROR(projection.Backward(
          {nullptr, table.data(), nullptr, nullptr, dtable.data()}));
      EXPECT_EQ(dtable, Floats(4, 0));
      return OkStatus();
    });
    EXPECT_TRUE(ran.ok()) << ran.ToString();
  }
}

// A row of 2 and x of 3 of width 4: logits 24; dlogits of 5 over padding too.
TEST(TiedOutputProjection, AddsToTheGradientButNotToPadding) {
  for (const bool sequence_parallel : {false, true}) {
    const VocabEmbeddingConfig config = {
        .vocabulary = 4,
        .hidden = 4,
        .tokens = 3,
        .sequence_parallel = sequence_parallel};
    const Status ran = RunThreads(3, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(VocabParallelEmbedding embedding,
                          VocabParallelEmbedding::Create(comm, config));
      SP_ASSIGN_OR_RETURN(const TiedOutputProjection projection,
                          TiedOutputProjection::Create(comm, config));
      const VocabPartition& cut = projection.partition();
      EXPECT_EQ(cut.rows, 2);
      Floats table(Size(cut.rows, 4), 0);
      std::fill_n(table.begin(), cut.valid() * 4, 2.F);
      const Floats x(Size(projection.local_tokens(), 4), 3);
      const Floats dlogits(Size(3, cut.rows), 5);
      Floats logits(dlogits.size(), -1), dx(x.size(), -1);
      Floats dtable(table.size(), -1);
      SP_RETURN_IF_ERROR(
          projection.Forward({x.data(), table.data(), logits.data()}));
      SP_RETURN_IF_ERROR(projection.Backward(
          {x.data(), table.data(), dlogits.data(), dx.data(), dtable.data()}));
      EXPECT_EQ(dx, Floats(dx.size(), 4 * 5 * 2));
      const Ids ids = {3, 0, 3};
      SP_RETURN_IF_ERROR(embedding.Backward(
          {ids.data(), x.data(), dtable.data(), /*accumulate=*/true}));
      for (int64_t k = 0; k < cut.rows; ++k) {
        const int64_t id = cut.begin + k;
        const float uses = id == 3 ? 2 * 3 : id == 0 ? 3 : 0;
        EXPECT_EQ(logits[static_cast<size_t>(k)], id < 4 ? 24 : 0);
        EXPECT_EQ(dtable[Size(k, 4)], id < 4 ? 3 * 5 * 3 + uses : 0)
            << "id " << id;
      }
      return OkStatus();
    });
    EXPECT_TRUE(ran.ok()) << ran.ToString();
  }
}

}  // namespace
}  // namespace shardproof
