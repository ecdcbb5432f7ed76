#include "tools/cli/diagram.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tools/harness/case.h"

namespace shardproof {
namespace {

struct P {
  int64_t rows = 6;
  int ranks = 1;
};

// Rank 0 gets the rows of all others.
StatusOr<Operation> BindGather(const P& /*p*/, RankContext& c) {
  return Operation([&c]() -> Status {
    const ConstTensorView x = c.in("x");
    const TensorView y = c.out("y");
    const auto bytes = static_cast<size_t>(x.num_bytes());
    if (c.comm().rank() > 0) return c.comm().Send(x.data, bytes, 0);
    auto* to = static_cast<std::byte*>(y.data);
    std::memcpy(to, x.data, bytes);
    for (int r = 1; r < c.comm().size(); ++r) {
      SP_RETURN_IF_ERROR(
          c.comm().Recv(to + static_cast<size_t>(r) * bytes, bytes, r));
    }
    return OkStatus();
  });
}

Cost GatherCost(const P& p) {
  const int64_t others = p.ranks - 1;
  Cost cost;
  cost.total = {.bytes = others * (p.rows / p.ranks) * 16, .messages = others};
  return cost;
}

CaseInfo GatherCase(std::string name, unsigned needs = kAnywhere) {
  Case<P> c;
  c.name = std::move(name);
  c.what = "rank 0 has all rows";
  c.axes = {Axis("rows", &P::rows, {6})};
  c.tensors = [](const P& p) -> Tensors {
    return {Input("x", DType::kF32, {p.rows, 4}, Shard(0)),
            Output("y", DType::kF32, {p.rows, 4}, OnRank(0))};
  };
  // Nothing is checked here, but a case has a reference.
  c.reference = DenseReference<P>(
      [](const P&, const Arithmetic&, const Inputs&,
         const Sample&) -> StatusOr<DenseOutputs> { return DenseOutputs(); });
  Variant<P> native{.name = "native", .bind = BindGather};
  native.native = true;
  Variant<P> direct{.name = "direct", .bind = BindGather};
  direct.needs = needs;
  direct.cost = GatherCost;
  c.variants = {native, direct};
  return Erase(std::move(c));
}

World& Threads() {
  static const auto& world =
      *new std::unique_ptr<World>(CreateWorld("thread").value());
  return *world;
}

TEST(Diagram, ShowsBlocksAndWhatMoves) {
  const CaseInfo info = GatherCase("toy/gather");
  const auto instances = info.expand(Purpose::kSmoke, 3, {});
  ASSERT_TRUE(instances.ok()) << instances.status().ToString();
  const auto d = DiagramOf(Threads(), info, *info.FindVariant("direct"),
                           instances->front());
  ASSERT_TRUE(d.ok()) << d.status().ToString();
  EXPECT_EQ(d->case_name, "toy/gather");
  EXPECT_EQ(d->what, "rank 0 has all rows");
  EXPECT_EQ(d->variant, "direct");
  EXPECT_EQ(d->params, "rows=6");
  EXPECT_EQ(d->ranks, 3);
  ASSERT_EQ(d->tensors.size(), 2U);
  const ShardDiagram::Tensor& x = d->tensors[0];
  EXPECT_TRUE(x.input);
  EXPECT_EQ(x.sharding, "shard(0)");
  EXPECT_EQ(x.shape, (std::vector<int64_t>{6, 4}));
  using Block = std::vector<std::vector<std::pair<int64_t, int64_t>>>;
  ASSERT_EQ(x.blocks.size(), 3U);
  EXPECT_EQ(x.blocks[1], (Block{{{2, 4}}, {{0, 4}}}));
  const ShardDiagram::Tensor& y = d->tensors[1];
  EXPECT_FALSE(y.input);
  EXPECT_EQ(y.blocks[0], (Block{{{0, 6}}, {{0, 4}}}));
  EXPECT_EQ(y.blocks[2], (Block{{}, {}}));
  ASSERT_EQ(d->steps.size(), 1U);
  EXPECT_EQ(d->steps[0].kind, "message");
  ASSERT_EQ(d->steps[0].transfers.size(), 2U);
  EXPECT_EQ(d->steps[0].transfers[1].from, 2);
  EXPECT_EQ(d->steps[0].transfers[1].to, 0);
  EXPECT_EQ(d->steps[0].transfers[1].bytes, 32);
  EXPECT_EQ(d->note, "");
}

TEST(Diagram, OfTheLibraryHasNoSteps) {
  const CaseInfo info = GatherCase("toy/gather");
  const auto instances = info.expand(Purpose::kSmoke, 3, {});
  ASSERT_TRUE(instances.ok());
  const auto d = DiagramOf(Threads(), info, *info.FindVariant("native"),
                           instances->front());
  ASSERT_TRUE(d.ok()) << d.status().ToString();
  EXPECT_TRUE(d->steps.empty());
  EXPECT_NE(d->note, "");
}

TEST(Diagrams, TakeOursAndSayWhatIsLeftOut) {
  const CaseInfo good = GatherCase("toy/gather");
  const CaseInfo bad = GatherCase("toy/even", kPowerOfTwoRanks);
  const Diagrams all =
      DiagramsOf(Threads(), {&good, &bad}, {.ranks = 3, .seconds = 600});
  ASSERT_EQ(all.diagrams.size(), 1U);
  EXPECT_EQ(all.diagrams[0].variant, "direct");
  ASSERT_EQ(all.left_out.size(), 1U);
  EXPECT_EQ(all.left_out[0].rfind("toy/even: no picture, ", 0), 0U)
      << all.left_out[0];
}

TEST(Diagrams, BeginNothingWithoutTime) {
  const CaseInfo good = GatherCase("toy/gather");
  const Diagrams all = DiagramsOf(Threads(), {&good}, {.seconds = 0});
  EXPECT_TRUE(all.diagrams.empty());
  EXPECT_EQ(all.left_out.size(), 1U);
}

}  // namespace
}  // namespace shardproof
