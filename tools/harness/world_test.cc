#include "tools/harness/world.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <barrier>
#include <optional>

#include "tools/harness/testing/toy_case.h"
#include "tools/harness/world_backends.h"

namespace shardproof {
namespace {

using Lines = std::vector<std::string>;

// Those about groups.
Lines AboutGroups(const Lines& lines) {
  Lines some;
  std::copy_if(
      lines.begin(), lines.end(), std::back_inserter(some),
      [](const std::string& l) { return l.starts_with("in a group"); });
  return some;
}

constexpr char kNowhere[] = "no rank is in an operation: ";

bool SaysNowhere(const Lines& lines) {
  return std::any_of(lines.begin(), lines.end(), [](const std::string& l) {
    return l.starts_with(kNowhere);
  });
}

// A rank is in an operation of all, in one of a group, in none.
TEST(World, SaysThatNobodyIsInAnOperation) {
  const auto active = std::make_shared<ActiveCommunicator>();
  Lines none, one, of_a_group;
  std::barrier met(2);  // No operation, as Communicator::Barrier would be.
  const Status status =
      testing::ToyWorld().Run(2, [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(const Communicator group, comm.Split(0, 0));
        active->Add(comm);
        const auto look = [&](Lines& lines) {
          met.arrive_and_wait();
          if (comm.rank() == 0) lines = DescribeActive(*active);
          met.arrive_and_wait();
        };
        look(none);
        {
          std::optional<OpScope> op;
          if (comm.rank() == 1) op.emplace(comm, Op{.label = "toy/op"});
          look(one);
        }
        std::optional<OpScope> op;
        if (comm.rank() == 1) op.emplace(group, Op{.label = "toy/op"});
        look(of_a_group);
        return OkStatus();
      });
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(SaysNowhere(none));
  EXPECT_FALSE(SaysNowhere(one));
  EXPECT_FALSE(SaysNowhere(of_a_group));
}

// Rank 1 enters an operation of the odd ranks, rank 3 does not; then both are
// in one of a part of that group, and nobody is anywhere.
TEST(World, SaysWhoIsMissingInAGroup) {
  const auto active = std::make_shared<ActiveCommunicator>();
  Lines missing, nested, after;
  const Status status =
      testing::ToyWorld().Run(4, [&](const Communicator& comm) -> Status {
        const int me = comm.rank();
        SP_ASSIGN_OR_RETURN(const Communicator group, comm.Split(me % 2, me));
        SP_ASSIGN_OR_RETURN(const Communicator twin, group.Duplicate());
        active->Add(comm);
        const auto look = [&](Lines& lines) -> Status {
          SP_RETURN_IF_ERROR(comm.Barrier());
          if (me == 0) lines = AboutGroups(DescribeActive(*active));
          return comm.Barrier();
        };
        if (me == 1) {
          const OpScope op(group, {.label = "toy/lonely"});
          SP_RETURN_IF_ERROR(look(missing));
        } else {
          SP_RETURN_IF_ERROR(look(missing));
        }
        if (me % 2 == 1) {
          const OpScope op(twin, {.label = "toy/twin"});
          SP_RETURN_IF_ERROR(look(nested));
        } else {
          SP_RETURN_IF_ERROR(look(nested));
        }
        return look(after);
      });
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(missing, Lines{"in a group of ranks 1, 3: rank 1: is in #1 "
                           "toy/lonely; rank 3: never entered #1 toy/lonely "
                           "(last: nothing)"});
  EXPECT_EQ(nested, Lines{"in a group of ranks 1, 3: rank 1: is in #1 "
                          "toy/twin; rank 3: is in #1 toy/twin"});
  EXPECT_EQ(after, Lines());
  active->Clear();
  EXPECT_EQ(DescribeActive(*active), Lines());
}

TEST(World, NumbersRanksAsTheyAreCalled) {
  OpRecord entered, not_entered;
  entered.Enter({.label = "toy/op", .sequence = 3});
  EXPECT_EQ(DescribeProgress({&entered, &not_entered, nullptr}, {4, 6, 9}),
            (Lines{"rank 4: is in #3 toy/op",
                   "rank 6: never entered #3 toy/op (last: nothing)",
                   "rank 9: on another node"}));
}

}  // namespace
}  // namespace shardproof
