// What the case cannot say: layouts in numbers, several saved shards on a rank,
// refusals, and what a plan sends.
#include "layers/reshard/reshard.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"

namespace shardproof {
namespace {

using Ints = std::vector<int32_t>;
using Pieces = std::vector<Piece>;
using Shards = std::vector<Ints>;

void OnRanks(int ranks, const std::function<Status(const Communicator&)>& f) {
  const Status ran = RunThreads(ranks, f);
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

ReshardedParameter Matrix(ParameterCut cut, int64_t layers, int64_t rows,
                          int64_t columns) {
  return {.cut = cut,
          .layers = layers,
          .rows = rows,
          .columns = columns,
          .dtype = DType::kI32};
}

ReshardedParameter Qkv(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  ReshardedParameter p =
      Matrix(ParameterCut::kQkv, 2, (heads + 2 * kv_heads) * head_dim, 3);
  p.heads = heads;
  p.kv_heads = kv_heads;
  p.head_dim = head_dim;
  return p;
}

// The element (l, i, j) is its index in the parameter, plus 1; padding is
// `padding`.
Ints ShardOf(const ReshardedParameter& p, const ShardLayout& layout, int shard,
             int padding) {
  const ShardPart part = PartOf(p, layout, shard);
  Ints out;
  std::vector<int64_t> cut;
  for (const Piece& piece : part.pieces) {
    for (int64_t i = 0; i < piece.count; ++i) {
      cut.push_back(piece.begin == kPadding ? -1 : piece.begin + i);
    }
  }
  std::vector<int64_t> whole;
  const int64_t other = p.cuts_columns() ? p.rows : p.columns;
  for (int64_t i = 0; i < other; ++i) whole.push_back(i);
  for (int64_t l = 0; l < part.layers.count; ++l) {
    for (const int64_t i : p.cuts_columns() ? whole : cut) {
      for (const int64_t j : p.cuts_columns() ? cut : whole) {
        const int64_t index =
            ((part.layers.begin + l) * p.rows + i) * p.columns + j;
        out.push_back(i < 0 ? padding : static_cast<int32_t>(index + 1));
      }
    }
  }
  return out;
}

Shards ShardsOf(const ReshardedParameter& p, const ShardLayout& layout,
                int padding) {
  Shards shards;
  for (int n = 0; n < layout.shards(); ++n) {
    shards.push_back(ShardOf(p, layout, n, padding));
  }
  return shards;
}

// Every rank's new shard; saved shard n is on rank n mod ranks.
Shards Load(int ranks, const ReshardConfig& config, const Shards& saved) {
  Shards loaded(static_cast<size_t>(ranks));
  OnRanks(ranks, [&](const Communicator& comm) -> Status {
    std::vector<SavedShard> own;
    std::vector<const void*> data;
    for (int n = comm.rank(); n < config.from.shards(); n += ranks) {
      const Ints& shard = saved[static_cast<size_t>(n)];
      own.push_back({config.from, n, static_cast<int64_t>(shard.size() * 4)});
      data.push_back(shard.data());
    }
    SP_ASSIGN_OR_RETURN(const Reshard reshard,
                        Reshard::Create(comm, config, own));
    Ints& mine = loaded[static_cast<size_t>(comm.rank())];
    mine.assign(static_cast<size_t>(reshard.loaded_elements()), -7);
    return reshard.Run(data, mine.data());
  });
  loaded.resize(static_cast<size_t>(config.to.shards()));
  return loaded;
}

TEST(ShardLayout, CutsHeadsWithTheirKvHeads) {
  // H = 12, G = 4, t = 5: as in head_share.h.
  const ReshardedParameter p = Qkv(12, 4, 2);
  const ShardLayout five = {.tensor = 5};
  EXPECT_EQ(PartOf(p, five, 0).pieces, (Pieces{{0, 6}, {24, 2}, {32, 2}}));
  EXPECT_EQ(PartOf(p, five, 3).pieces, (Pieces{{16, 4}, {28, 4}, {36, 4}}));
  const ShardLayout two = {.tensor = 2, .pipeline = 2};
  EXPECT_EQ(PartOf(p, two, 3).pieces, (Pieces{{12, 12}, {28, 4}, {36, 4}}));
  EXPECT_EQ(PartOf(p, two, 3).layers, (Chunk{1, 1}));
}

TEST(ShardLayout, CutsGateAndUpEachByItself) {
  const ReshardedParameter p = Matrix(ParameterCut::kGateUp, 1, 10, 1);
  EXPECT_EQ(PartOf(p, {.tensor = 2}, 1).pieces, (Pieces{{3, 2}, {8, 2}}));
  EXPECT_EQ(
      PartOf(p, {.tensor = 2, .gate_up = GateUpOrder::kInterleaved}, 1).pieces,
      (Pieces{{3, 1}, {8, 1}, {4, 1}, {9, 1}}));
}

TEST(ShardLayout, PadsTheVocabulary) {
  const ReshardedParameter p = Matrix(ParameterCut::kVocabulary, 1, 10, 1);
  const ShardLayout layout = {.tensor = 3, .vocab_multiple = 2};
  EXPECT_EQ(PartOf(p, layout, 1).pieces, (Pieces{{4, 4}, {kPadding, 0}}));
  EXPECT_EQ(PartOf(p, layout, 2).pieces, (Pieces{{8, 2}, {kPadding, 2}}));
}

TEST(ShardLayout, PutsEndsOnTheEndsOfThePipeline) {
  ReshardedParameter p = Matrix(ParameterCut::kRows, 1, 2, 1);
  const ShardLayout layout = {.tensor = 2, .pipeline = 3};
  p.placement = StagePlacement::kFirstStage;
  EXPECT_EQ(PartOf(p, layout, 1).layers, (Chunk{0, 1}));
  EXPECT_EQ(PartOf(p, layout, 4).layers.count, 0);
  p.placement = StagePlacement::kLastStage;
  EXPECT_EQ(PartOf(p, layout, 1).layers.count, 0);
  EXPECT_EQ(PartOf(p, layout, 4).layers, (Chunk{0, 1}));
}

// Six saved shards on four ranks, and back; all cuts.
TEST(Reshard, FromMoreShardsThanRanks) {
  std::vector<ReshardedParameter> parameters = {
      Qkv(12, 4, 2),
      Qkv(5, 5, 3),
      Qkv(6, 1, 1),
      Matrix(ParameterCut::kRows, 3, 7, 2),
      Matrix(ParameterCut::kColumns, 3, 4, 7),
      Matrix(ParameterCut::kReplicated, 5, 3, 1),
      Matrix(ParameterCut::kGateUp, 2, 14, 2),
      Matrix(ParameterCut::kVocabulary, 1, 13, 2)};
  for (const ReshardedParameter& p : parameters) {
    const ReshardConfig there = {.parameter = p,
                                 .from = {.tensor = 3, .pipeline = 2},
                                 .to = {.tensor = 4, .vocab_multiple = 3}};
    const Shards loaded = Load(4, there, ShardsOf(p, there.from, 99));
    EXPECT_EQ(loaded, ShardsOf(p, there.to, 0)) << Name(p.cut);
    const ReshardConfig on = {p, there.to, {.tensor = 1, .pipeline = 4}};
    const Shards staged = Load(4, on, loaded);
    EXPECT_EQ(staged, ShardsOf(p, on.to, 0)) << Name(p.cut);
    const ReshardConfig back = {p, on.to, there.from};
    EXPECT_EQ(Load(6, back, staged), ShardsOf(p, there.from, 0)) << Name(p.cut);
  }
}

// What is in the first column of a saved shard is not always what comes first.
TEST(Reshard, LoadsAFusedWeightInNumbers) {
  ReshardedParameter p = Qkv(4, 2, 1);
  p.layers = 1;
  p.columns = 1;
  // Queries 1-4, keys 5-6, values 7-8.
  const Shards saved = {{1, 2, 3, 4, 5, 6, 7, 8}};
  EXPECT_EQ(Load(4, {p, {}, {.tensor = 4}}, saved),
            (Shards{{1, 5, 7}, {2, 5, 7}, {3, 6, 8}, {4, 6, 8}}));
  EXPECT_EQ(Load(2, {p, {}, {.tensor = 2}}, saved),
            (Shards{{1, 2, 5, 7}, {3, 4, 6, 8}}));
}

TEST(ReshardPlan, WritesEveryElementOnce) {
  for (const ReshardedParameter& p :
       {Qkv(12, 4, 2), Matrix(ParameterCut::kColumns, 3, 4, 7),
        Matrix(ParameterCut::kVocabulary, 1, 13, 2)}) {
    const ReshardConfig config = {
        p, {.tensor = 3, .pipeline = 2}, {.tensor = 5}};
    const StatusOr<ReshardPlan> plan =
        PlanReshard(config, std::vector<int>{0, 1, 2, 3, 4, 0}, 5);
    ASSERT_TRUE(plan.ok()) << plan.status().ToString();
    Shards times(5);
    for (int n = 0; n < 5; ++n) {
      times[static_cast<size_t>(n)].resize(
          static_cast<size_t>(PartOf(p, config.to, n).Elements(p)));
    }
    for (const ReshardMove& move : plan->moves) {
      for (int64_t l = 0; l < move.layers; ++l) {
        for (int64_t i = 0; i < move.rows; ++i) {
          for (int64_t k = 0; k < move.length; ++k) {
            ++times[static_cast<size_t>(move.to_shard)][static_cast<size_t>(
                move.to.begin + l * move.to.layer_stride +
                i * move.to.row_stride + k)];
          }
        }
      }
    }
    for (const Ints& one : times) EXPECT_EQ(one, Ints(one.size(), 1));
  }
}

TEST(ReshardPlan, SendsNothingThatIsThere) {
  const ReshardedParameter norm = Matrix(ParameterCut::kReplicated, 4, 8, 1);
  const ReshardConfig same = {norm, {.tensor = 4}, {.tensor = 4}};
  // Whichever replica it is that a rank has.
  const ReshardPlan plan = *PlanReshard(same, std::vector<int>{3, 2, 1, 0}, 4);
  EXPECT_EQ(plan.counts, std::vector<int64_t>(16, 0));
  // Two halves to four quarters: ranks 2 and 3 get theirs of rank 1, rank 1 its
  // of rank 0.
  const ReshardConfig halves = {
      Matrix(ParameterCut::kRows, 1, 8, 1), {.tensor = 2}, {.tensor = 4}};
  EXPECT_EQ((*PlanReshard(halves, std::vector<int>{0, 1}, 4)).counts,
            (std::vector<int64_t>{0, 2, 0, 0,  //
                                  0, 0, 2, 2,  //
                                  0, 0, 0, 0,  //
                                  0, 0, 0, 0}));
  EXPECT_EQ(ReshardCost(*PlanReshard(halves, std::vector<int>{0, 1}, 4), 4,
                        DType::kI32, kRingCollectives)
                .total,
            (Traffic{.bytes = 6 * 4, .messages = 3}));
}

// Replicas share the sending.
TEST(ReshardPlan, TakesReplicasInTurn) {
  const ReshardConfig config = {
      Matrix(ParameterCut::kReplicated, 1, 8, 1), {.tensor = 2}, {.tensor = 4}};
  const ReshardPlan plan = *PlanReshard(config, std::vector<int>{0, 1}, 4);
  EXPECT_EQ(plan.counts, (std::vector<int64_t>{0, 0, 8, 0,  //
                                               0, 0, 0, 8,  //
                                               0, 0, 0, 0,  //
                                               0, 0, 0, 0}));
}

TEST(Reshard, HasNoRoomForTheWholeParameter) {
  const ReshardConfig config = {
      Matrix(ParameterCut::kRows, 1, 64, 64), {.tensor = 4}, {.tensor = 3}};
  OnRanks(4, [&](const Communicator& comm) -> Status {
    const ReshardedParameter& p = config.parameter;
    const int64_t bytes =
        PartOf(p, config.from, comm.rank()).Elements(p) * SizeOf(p.dtype);
    SP_ASSIGN_OR_RETURN(
        const Reshard reshard,
        Reshard::Create(comm, config, {{config.from, comm.rank(), bytes}}));
    // At most all of its old and of its new shard.
    EXPECT_LE(reshard.working_bytes(),
              bytes + reshard.loaded_elements() * SizeOf(p.dtype));
    EXPECT_LT(reshard.working_bytes(), 64 * 64 * 4);
    return OkStatus();
  });
}

// The error of every rank of three, of which each says what shards it has.
std::string Refusal(const ReshardConfig& config,
                    const std::vector<std::vector<SavedShard>>& saved) {
  std::vector<Status> refusals(3);
  OnRanks(3, [&](const Communicator& comm) {
    const auto rank = static_cast<size_t>(comm.rank());
    refusals[rank] = Reshard::Create(comm, config, saved[rank]).status();
    return OkStatus();
  });
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(refusal.ToString(), refusals[0].ToString());
  }
  return std::string(refusals[0].message());
}

TEST(Reshard, RefusesShardsThatDoNotFit) {
  // 7 rows of 2 at t = 2: 4 and 3 rows.
  const ReshardConfig config = {
      Matrix(ParameterCut::kRows, 1, 7, 2), {.tensor = 2}, {.tensor = 3}};
  const std::string text =
      "reshard rows [1, 7, 2] i32 from t = 2, p = 1 to t = 3, p = 1: ";
  const SavedShard first = {config.from, 0, 32}, second = {config.from, 1, 24};
  EXPECT_EQ(Refusal(config, {{first}, {{config.from, 1, 32}}, {}}),
            text + "rank 1: shard 1 (stage 0, rank 1) has 32 bytes, not 24");
  EXPECT_EQ(Refusal(config, {{first}, {{{.tensor = 4}, 1, 24}}, {}}),
            text +
                "rank 1: shard 1 (stage 0, rank 1) was saved at t = 4, p = "
                "1, not at t = 2, p = 1");
  EXPECT_EQ(Refusal(config, {{first}, {{{.tensor = 0}, 1, 24}}, {}}),
            text +
                "rank 1: shard 1 was saved at t = 0, p = 1, not at t = 2, p = "
                "1");
  EXPECT_EQ(Refusal(config, {{first}, {}, {{config.from, 2, 24}}}),
            text + "rank 2: there is no shard 2: at t = 2, p = 1 there are 2");
  EXPECT_EQ(Refusal(config, {{first}, {}, {}}),
            text + "no rank has shard 1 (stage 0, rank 1)");
  EXPECT_EQ(Refusal(config, {{first}, {second}, {first}}),
            text +
                "shard 0 (stage 0, rank 0) is there twice: on rank 0 and on "
                "rank 2");
  EXPECT_EQ(Refusal(config, {{first}, {second, second}, {}}),
            text +
                "shard 1 (stage 0, rank 1) is there twice: on rank 1 and on "
                "rank 1");
}

TEST(Reshard, RefusesLayoutsThatCannotBe) {
  const auto ends_with = [](const std::string& text, const std::string& end) {
    return text.size() >= end.size() &&
           text.substr(text.size() - end.size()) == end;
  };
  const auto refuses = [&](const ReshardConfig& config,
                           const std::string& end) {
    const ShardLayout& from = config.from;
    const int64_t bytes =
        CheckLayout(config.parameter, from).ok()
            ? PartOf(config.parameter, from, 0).Elements(config.parameter) * 4
            : 0;
    const std::string text = Refusal(config, {{{from, 0, bytes}}, {}, {}});
    EXPECT_TRUE(ends_with(text, end)) << text;
  };
  refuses({Qkv(4, 3, 1), {}, {.tensor = 2}},
          "the saved layout: 4 query heads of 1 are no multiple of 3 KV heads");
  refuses({Qkv(2, 1, 1), {}, {.tensor = 3}},
          "the new layout: 2 query heads are not enough for 3 ranks");
  ReshardedParameter odd = Qkv(2, 1, 1);
  odd.rows = 5;
  refuses({odd, {}, {}}, "2 query and twice 1 KV heads of 1 are 4 rows, not 5");
  refuses({Matrix(ParameterCut::kGateUp, 1, 7, 1), {}, {}},
          "7 rows are not as many gates as ups");
  refuses(
      {Matrix(ParameterCut::kRows, 1, 4, 1), {}, {.tensor = 2, .pipeline = 2}},
      "the new layout has 4 shards for 3 ranks");
  const ShardLayout many = {.tensor = 1 << 16, .pipeline = 1 << 16};
  refuses({Matrix(ParameterCut::kRows, 1, 4, 1), many, {}},
          "the saved layout: 4294967296 shards are too many");
  refuses({Matrix(ParameterCut::kRows, 1, 4, 1), {}, many},
          "the new layout: 4294967296 shards are too many");
  // With no more memory for it than for the shards that there are.
  refuses({Matrix(ParameterCut::kRows, 1, 4, 1), {.tensor = 1 << 30}, {}},
          "no rank has shard 1 (stage 0, rank 1)");
  refuses({Matrix(ParameterCut::kRows, 1, -4, 1), {}, {}},
          "the saved layout: a size is negative");
  refuses({Matrix(ParameterCut::kRows, 1, 4, 1), {}, {.tensor = 0}},
          "the new layout: there are no ranks in t = 0, p = 1");
  refuses(
      {Matrix(ParameterCut::kVocabulary, 1, 4, 1), {}, {.vocab_multiple = 0}},
      "the new layout: a vocabulary cannot be padded to 0s");
}

// What one rank does not send, another would wait for.
TEST(Reshard, RunsWithAsManyShardsAsItWasToldOf) {
  const ReshardConfig config = {
      Matrix(ParameterCut::kRows, 1, 4, 1), {.tensor = 2}, {.tensor = 1}};
  for (const size_t given : {0, 2}) {
    std::vector<Status> ends(2);
    const auto run = [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(
          const Reshard reshard,
          Reshard::Create(comm, config, {{config.from, comm.rank(), 8}}));
      // Both know now what they are to send. The abort may reach rank 0 in here
      // already.
      SP_RETURN_IF_ERROR(comm.Barrier());
      const Ints shard(2);
      Ints loaded(4);
      const std::vector<const void*> shards(comm.rank() == 1 ? given : 1,
                                            shard.data());
      return reshard.Run(shards, loaded.data());
    };
    static_cast<void>(RunThreads(2, [&](const Communicator& comm) {
      ends[static_cast<size_t>(comm.rank())] = run(comm);
      return OkStatus();
    }));
    EXPECT_EQ(ends[0].code(), StatusCode::kAborted) << ends[0].ToString();
    EXPECT_EQ(ends[1].code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(ends[1].message(),
              fmt::format("{} saved shards on rank 1, which has 1", given));
  }
}

TEST(ReshardPlan, RefusesOwnersThatAreNone) {
  const ReshardConfig config = {
      Matrix(ParameterCut::kRows, 1, 4, 1), {.tensor = 2}, {.tensor = 1}};
  const auto refusal = [&](const std::vector<int>& owners) {
    const Status status = PlanReshard(config, owners, 2).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_EQ(refusal({0}), "1 owners for 2 saved shards");
  EXPECT_EQ(refusal({0, 1, 1}), "3 owners for 2 saved shards");
  EXPECT_EQ(refusal({0, 2}),
            "shard 1 (stage 0, rank 1) is on rank 2, and there are 2");
  EXPECT_EQ(refusal({-1, 1}),
            "shard 0 (stage 0, rank 0) is on rank -1, and there are 2");
}

TEST(Reshard, RefusesRanksThatDiffer) {
  std::vector<Status> refusals(2);
  OnRanks(2, [&](const Communicator& comm) {
    const ReshardConfig config = {
        Matrix(ParameterCut::kRows, 1, 4 + comm.rank(), 1), {}, {}};
    refusals[static_cast<size_t>(comm.rank())] =
        Reshard::Create(comm, config, {}).status();
    return OkStatus();
  });
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(refusal.message(),
              "ranks 0 and 1 make different layers: \"reshard rows [1, 4, 1] "
              "i32 from t = 1, p = 1 to t = 1, p = 1\" and \"reshard rows [1, "
              "5, 1] i32 from t = 1, p = 1 to t = 1, p = 1\"");
  }
}

TEST(Reshard, OfNothing) {
  for (const ReshardedParameter& p :
       {Matrix(ParameterCut::kRows, 1, 0, 3),
        Matrix(ParameterCut::kGateUp, 0, 4, 3),
        Matrix(ParameterCut::kVocabulary, 1, 0, 3),
        Matrix(ParameterCut::kColumns, 2, 3, 0)}) {
    const ReshardConfig config = {p, {.tensor = 2}, {.tensor = 3}};
    EXPECT_EQ(Load(3, config, ShardsOf(p, config.from, 9)), Shards(3));
  }
}

}  // namespace
}  // namespace shardproof
