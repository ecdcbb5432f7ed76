#include "collectives/backend/mpi/mpi_test_main.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>

namespace shardproof {
namespace {

std::unique_ptr<MpiWorld>& WorldSlot() {
  static std::unique_ptr<MpiWorld> world;
  return world;
}

// What ranks other than 0 print: their failures.
class FailurePrinter : public testing::EmptyTestEventListener {
 public:
  explicit FailurePrinter(int rank) : rank_(rank) {}
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", rank_, result.file_name(),
                 result.line_number(), result.message());
  }

 private:
  int rank_;
};

}  // namespace

MpiWorld& TestWorld() { return *WorldSlot(); }

void ExpectOkOnAllRanks(const Status& status) {
  EXPECT_TRUE(status.ok()) << status.ToString();
  if (!status.ok()) TestWorld().world().Abort(status.ToString());
}

namespace {

int RunTests(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  MpiWorldOptions options;
  constexpr std::string_view kFlag = "--ranks_per_node=";
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]).starts_with(kFlag)) {
      options.ranks_per_node =
          static_cast<int>(std::strtol(argv[i] + kFlag.size(), nullptr, 10));
    }
  }
  StatusOr<std::unique_ptr<MpiWorld>> world = MpiWorld::Create(options);
  if (!world.ok()) {
    std::fprintf(stderr, "%s\n", world.status().ToString().c_str());
    return 6;
  }
  WorldSlot() = *std::move(world);
  const int rank = TestWorld().world().rank();
  if (rank != 0) {
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailurePrinter(rank));
  }
  int result = RUN_ALL_TESTS();
  // Counted while the tests run. A filter that matches nothing is not a pass.
  if (testing::UnitTest::GetInstance()->test_to_run_count() == 0) {
    std::fprintf(stderr, "no test has a name like that\n");
    result = 2;
  }
  WorldSlot().reset();
  // After an abort that a test provoked, the world leaves MPI as it is, and a
  // rank that exits so makes mpirun report a failure. All ranks are here, so
  // MPI can be ended after all.
  int ended = 0;
  MPI_Finalized(&ended);
  if (ended == 0 && result == 0) MPI_Finalize();
  return result;
}

}  // namespace
}  // namespace shardproof

int main(int argc, char** argv) { return shardproof::RunTests(argc, argv); }
