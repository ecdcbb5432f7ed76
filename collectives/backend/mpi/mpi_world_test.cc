// Runs under mpirun, with any number of ranks; see mpi_test_main.h.
#include "collectives/backend/mpi/mpi_world.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <string>

#include "collectives/backend/conformance.h"
#include "collectives/backend/mpi/mpi_agree.h"
#include "collectives/backend/mpi/mpi_test_main.h"
#include "collectives/backend/mpi/mpi_types.h"

namespace shardproof {
namespace {

class MpiConformanceTest : public testing::TestWithParam<ConformanceCheck> {
 protected:
  void SetUp() override {
    if (!TestWorld().world().health().ok()) {
      GTEST_FAIL() << "the world was aborted by an earlier test";
    }
  }
};

std::string CheckName(const testing::TestParamInfo<ConformanceCheck>& info) {
  return std::string(info.param.name);
}

INSTANTIATE_TEST_SUITE_P(Communicator, MpiConformanceTest,
                         testing::ValuesIn(CommunicatorConformance()),
                         CheckName);

TEST_P(MpiConformanceTest, World) {
  ExpectOkOnAllRanks(GetParam().run(TestWorld().world()));
}

TEST_P(MpiConformanceTest, Group) {
  const Communicator& world = TestWorld().world();
  auto group = world.Split(world.rank() % 2, -world.rank());
  ExpectOkOnAllRanks(group.status());
  if (group.ok()) ExpectOkOnAllRanks(GetParam().run(*group));
}

TEST(MpiWorldTest, KnowsTheLibrary) {
  const StatusOr<std::string> version = MpiVersion();
  ASSERT_TRUE(version.ok()) << version.status().ToString();
  EXPECT_NE(version->find("MPI"), std::string::npos) << *version;
  EXPECT_EQ(version->find_first_of(std::string_view("\n\0", 2)),
            std::string::npos);
  EXPECT_TRUE(StartedByMpiLauncher());
}

TEST(MpiWorldTest, StartsOnce) {
  const auto second = MpiWorld::Create();
  EXPECT_EQ(second.status().code(), StatusCode::kInvalidArgument);
}

TEST(MpiWorldTest, ExhaustsItsHeapWithASentence) {
  const Communicator& world = TestWorld().world();
  // Takes what is there, a quarter at a time of what is refused, so that the
  // refusal is the budget's; then gives it back.
  const auto refused = world.Allocate(size_t{1} << 45);
  ASSERT_EQ(refused.status().code(), StatusCode::kOutOfMemory);
  const std::string message(refused.status().message());
  EXPECT_NE(message.find("32 TiB of shared memory asked for"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("left of its"), std::string::npos) << message;
  EXPECT_TRUE(world.Allocate(1 << 20).ok());
}

// One rank's error becomes everybody's.
TEST(AgreeTest, TakesTheFirstError) {
  const int rank = TestWorld().world().rank();
  const int size = TestWorld().world().size();
  EXPECT_TRUE(Agree(MPI_COMM_WORLD, OkStatus()).ok());
  const Status status =
      Agree(MPI_COMM_WORLD,
            rank == size - 1 ? OutOfMemory("{} is full", rank) : OkStatus());
  EXPECT_EQ(status.code(), StatusCode::kOutOfMemory);
  EXPECT_NE(status.message().find(std::to_string(size - 1) + " is full"),
            std::string_view::npos)
      << status.ToString();
}

// Rows of 5 elements and a rest: as with INT_MAX, only smaller.
TEST(ElementsTest, DescribesMoreThanAnIntCounts) {
  for (const int64_t count : {0, 1, 4, 5, 6, 10, 23}) {
    const auto elements = Elements::Of(MPI_DOUBLE, count, 5);
    ASSERT_TRUE(elements.ok()) << elements.status().ToString();
    EXPECT_EQ(elements->count(), count <= 5 ? count : 1);
    MPI_Count size = 0;
    MPI_Type_size_x(elements->type(), &size);
    EXPECT_EQ(size * elements->count(), count * 8);
    MPI_Aint low = 0;
    MPI_Aint extent = 0;
    MPI_Type_get_extent(elements->type(), &low, &extent);
    EXPECT_EQ(extent, size) << count;
  }
  EXPECT_EQ(Elements::Of(MPI_DOUBLE, 31, 5).status().code(),
            StatusCode::kUnsupported);
}

TEST(MpiTypesTest, SaysWhatMpiCannotReduce) {
  EXPECT_TRUE(ReductionType(DType::kF64).ok());
  EXPECT_EQ(ReductionType(DType::kBF16).status().code(),
            StatusCode::kUnsupported);
  EXPECT_EQ(ReductionOp(ReduceOp::kAvg).status().code(),
            StatusCode::kUnsupported);
  for (const DType dtype : kAllDTypes) {
    int size = 0;
    MPI_Type_size(MovementType(dtype), &size);
    EXPECT_EQ(size, SizeOf(dtype)) << Name(dtype);
  }
}

}  // namespace
}  // namespace shardproof
