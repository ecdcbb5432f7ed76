// What a thread finds in its context.
#include "collectives/rank_context.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <utility>

namespace shardproof {
namespace {

class Doubler {
 public:
  virtual ~Doubler() = default;
  virtual int Double(int x) = 0;
};
class ByAdding final : public Doubler {
 public:
  explicit ByAdding(int* gone = nullptr) : gone_(gone) {}
  ~ByAdding() override {
    if (gone_ != nullptr) ++*gone_;
  }
  int Double(int x) override { return x + x; }

 private:
  int* gone_;
};
class Other {};

std::shared_ptr<RankServices> ContextWithDoubler(int* gone = nullptr) {
  auto context = std::make_shared<RankServices>();
  context->Put<Doubler>(std::make_shared<ByAdding>(gone));
  return context;
}

TEST(RankContextTest, FindsByTheTypeOfTheInterface) {
  const auto context = ContextWithDoubler();
  Doubler* const found = context->Find<Doubler>();
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->Double(21), 42);
  EXPECT_EQ(context->Find<Other>(), nullptr);
  // By the interface it was put as, and not by what implements that.
  EXPECT_EQ(context->Find<ByAdding>(), nullptr);
}

TEST(RankContextTest, TheLastOneIsFound) {
  const auto context = ContextWithDoubler();
  const auto second = std::make_shared<ByAdding>();
  context->Put<Doubler>(second);
  EXPECT_EQ(context->Find<Doubler>(), second.get());
}

TEST(RankContextTest, AThreadWithoutAContextFindsNothing) {
  EXPECT_EQ(CurrentContext(), nullptr);
  EXPECT_EQ(FindService<Doubler>(), nullptr);
}

TEST(RankContextTest, EachThreadHasItsOwn) {
  SetCurrentContext(ContextWithDoubler());
  Doubler* const here = FindService<Doubler>();
  ASSERT_NE(here, nullptr);
  EXPECT_EQ(FindService<Other>(), nullptr);
  Doubler* elsewhere = here;
  Doubler* given = nullptr;
  std::thread([&, context = CurrentContext()] {
    elsewhere = FindService<Doubler>();
    SetCurrentContext(context);
    given = FindService<Doubler>();
  }).join();
  EXPECT_EQ(elsewhere, nullptr);
  EXPECT_EQ(given, here);
  SetCurrentContext(nullptr);
  EXPECT_EQ(FindService<Doubler>(), nullptr);
}

// Of a rank, as long as its thread: what is in it goes with the last that holds
// it.
TEST(RankContextTest, LivesAsLongAsItIsSomewhere) {
  int gone = 0;
  auto context = ContextWithDoubler(&gone);
  std::thread([&] { SetCurrentContext(std::move(context)); }).join();
  EXPECT_EQ(gone, 1);
}

}  // namespace
}  // namespace shardproof
