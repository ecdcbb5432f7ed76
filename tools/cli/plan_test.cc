#include "tools/cli/plan.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <string>
#include <thread>

#include "tools/harness/world.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kWork{4};

TEST(Plan, ReadsBackWhatItWrites) {
  const Plan plan = {{"collectives/all_reduce ring thread 2 count=7", 0.05},
                     {"layers/mlp direct mpi 4 dtype=f32", 0}};
  const auto again = ParsePlan(PlanText(plan), "plan");
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(*again, plan);
}

TEST(Plan, SkipsCommentsAndRefusesWhatIsNoPlan) {
  const auto some = ParsePlan("# a comment\n\n  0.5\tkey with spaces\r\n", "p");
  ASSERT_TRUE(some.ok()) << some.status().ToString();
  EXPECT_EQ(some->size(), 1U);
  EXPECT_EQ(some->begin()->second, 0.5);
  for (const char* text : {"key", "0.1", "0.1 ", "-1 key", "nan key", "11 key",
                           "0.1key", "1e999 key"}) {
    const auto bad = ParsePlan(std::string("0 good\n") + text, "p");
    ASSERT_FALSE(bad.ok()) << text;
    EXPECT_EQ(bad.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(bad.status().message().find("p, line 2"), std::string::npos)
        << bad.status().ToString();
  }
  EXPECT_EQ(ReadPlan("/no/such/plan").status().code(),
            StatusCode::kUnavailable);
}

// The share is of what the operation takes on the last rank, and of no other:
// as the operation sleeps, it can be no shorter.
TEST(Plan, SlowsTheLastRankByTheShare) {
  class Context final : public RankContext {
   public:
    explicit Context(const Communicator& comm)
        : comm_(comm), stream_(Stream::Inline()) {}
    const Communicator& comm() const override { return comm_; }
    const Stream& stream() const override { return stream_; }
    ConstTensorView in(std::string_view) const override { return {}; }
    TensorView out(std::string_view) const override { return {}; }

   private:
    const Communicator& comm_;
    Stream stream_;
  };
  int bound = 0;
  ErasedVariant variant;
  variant.name = "sleeps";
  variant.bind = [&](const Instance&, RankContext& c) -> StatusOr<Operation> {
    if (c.comm().rank() == 1) ++bound;
    return Operation([] {
      std::this_thread::sleep_for(kWork);
      return OkStatus();
    });
  };
  const ErasedVariant slowed = Slowed(variant, 1.5);
  EXPECT_EQ(slowed.name, "sleeps");
  auto world = CreateWorld("thread");
  ASSERT_TRUE(world.ok());
  std::array<double, 2> took = {};
  const Status ran = (*world)->Run(2, [&](const Communicator& comm) -> Status {
    Context context(comm);
    SP_ASSIGN_OR_RETURN(const Operation operation, slowed.bind({}, context));
    const Clock::time_point start = Clock::now();
    SP_RETURN_IF_ERROR(operation());
    took[static_cast<size_t>(comm.rank())] =
        std::chrono::duration<double>(Clock::now() - start).count();
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  EXPECT_EQ(bound, 1);
  EXPECT_GE(took[1], 2.5 * std::chrono::duration<double>(kWork).count());
}

}  // namespace
}  // namespace shardproof
