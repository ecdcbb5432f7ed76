#include "tools/harness/workspace.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace shardproof {
namespace {

// One output of one element: what part `part` gives.
DenseOutputs Outputs(int part) { return {{"y", {{.value = 1.0 * part}}}}; }

// Notes the order in which parts are added.
void Append(int part, const DenseOutputs& outputs, Evaluated& evaluated) {
  EXPECT_EQ(outputs.at("y").at(0).value, part);
  evaluated.values["y"].push_back(outputs.at("y").at(0));
}

std::vector<double> Values(const Evaluation::Dense& dense) {
  std::vector<double> values;
  for (const Bounded& b : (*dense)->values.at("y")) values.push_back(b.value);
  return values;
}

TEST(Evaluation, AddsPartsInOrder) {
  Evaluation e(4);
  for (int part = 0; part < 4; ++part) EXPECT_EQ(e.Take(), part);
  EXPECT_FALSE(e.Take().has_value());
  for (const int part : {2, 0, 3}) {
    e.Deliver(part, Outputs(part), Append);
    EXPECT_FALSE(e.bytes().has_value());
  }
  e.Deliver(1, Outputs(1), Append);
  EXPECT_EQ(Values(e.Wait()), (std::vector<double>{0, 1, 2, 3}));
  EXPECT_EQ(e.bytes(), 4 * sizeof(Bounded));
}

TEST(Evaluation, ThreadsShareTheParts) {
  constexpr int kParts = 200;
  Evaluation e(kParts);
  std::atomic<int> taken = 0;
  std::vector<Evaluation::Dense> seen(4);
  {
    std::vector<std::jthread> threads;
    for (Evaluation::Dense& mine : seen) {
      threads.emplace_back([&] {
        while (const auto part = e.Take()) {
          ++taken;
          e.Deliver(*part, Outputs(*part), Append);
        }
        mine = e.Wait();
      });
    }
  }
  EXPECT_EQ(taken, kParts);
  for (const Evaluation::Dense& one : seen) EXPECT_EQ(one, seen[0]);
  const std::vector<double> values = Values(seen[0]);
  ASSERT_EQ(values.size(), size_t{kParts});
  for (int part = 0; part < kParts; ++part) {
    EXPECT_EQ(values[static_cast<size_t>(part)], part);
  }
}

// Whoever fails first, the error of the first part that fails is the result.
TEST(Evaluation, EndsAtAnError) {
  Evaluation e(4);
  for (int part = 0; part < 3; ++part) EXPECT_EQ(e.Take(), part);
  e.Deliver(2, Internal("two"), Append);
  e.Deliver(1, Internal("one"), Append);
  EXPECT_FALSE(e.bytes().has_value());
  e.Deliver(0, Outputs(0), Append);
  const Evaluation::Dense dense = e.Wait();
  EXPECT_EQ(dense->status().message(), "one");
  EXPECT_FALSE(e.Take().has_value());  // There is no use in it any more.
  EXPECT_EQ(e.bytes(), 0);
}

TEST(Workspace, KeepsWhatWasAskedForLast) {
  Workspace workspace;
  const auto evaluate = [&](uint64_t key) {
    const Workspace::Found found = workspace.Find(key, 1);
    if (const auto part = found.evaluation->Take()) {
      found.evaluation->Deliver(*part, Outputs(0), Append);
    }
    return found;
  };
  const Workspace::Found first = evaluate(0);
  EXPECT_TRUE(first.fresh);
  const Workspace::Found again = evaluate(0);
  EXPECT_FALSE(again.fresh);
  EXPECT_EQ(again.evaluation, first.evaluation);
  const Workspace::Found under_way = workspace.Find(1000, 1);
  for (uint64_t key = 1; key < 600; ++key) EXPECT_TRUE(evaluate(key).fresh);
  EXPECT_FALSE(evaluate(599).fresh);
  EXPECT_FALSE(evaluate(599 - 500).fresh);
  EXPECT_TRUE(evaluate(0).fresh);  // Too long ago.
  // Those who evaluate it must come together.
  EXPECT_FALSE(workspace.Find(1000, 1).fresh);
}

}  // namespace
}  // namespace shardproof
