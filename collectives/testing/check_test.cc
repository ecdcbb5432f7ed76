// The checks of the primitives' unit tests, and the mistakes that they must not
// make: each is planted once.
#include "collectives/testing/check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"

namespace shardproof::testing {
namespace {

constexpr int64_t kCount = 9;

// What a run does to its buffers once `recv` holds what it should; `call` counts
// from 1.
using Spoil = std::function<void(float* send, float* recv, int call)>;

// A copy of the rank's own input, on two ranks.
Status CheckCopy(const Spoil& spoil,
                 std::optional<Traffic> traffic = std::nullopt) {
  return RunThreads(2, [&](const Communicator& comm) {
    int calls = 0;
    const InputFn input = SmallIntegers(DType::kF32, comm.size());
    return Check(comm, {.name = "copy",
                        .dtype = DType::kF32,
                        .send_count = kCount,
                        .recv_count = kCount,
                        .input = input,
                        .run = [&](const void* send, void* recv) -> Status {
                          auto* from =
                              static_cast<float*>(const_cast<void*>(send));
                          auto* to = static_cast<float*>(recv);
                          std::copy_n(from, kCount, to);
                          if (spoil) spoil(from, to, ++calls);
                          return OkStatus();
                        },
                        .expected =
                            [&](std::span<Bounded> out) {
                              std::vector<double> x(out.size());
                              input(comm.rank(), 0, x);
                              for (size_t i = 0; i < x.size(); ++i) {
                                out[i] = {.value = x[i]};
                              }
                            },
                        .traffic = traffic});
  });
}

void ExpectFound(const Spoil& spoil, std::string_view what) {
  const Status s = CheckCopy(spoil);
  EXPECT_FALSE(s.ok()) << what;
  EXPECT_NE(s.message().find(what), std::string_view::npos) << s.ToString();
}

TEST(Check, PassesWhatIsRight) {
  const Status s = CheckCopy(nullptr, Traffic{});
  EXPECT_TRUE(s.ok()) << s.ToString();
}

TEST(Check, FindsAnyElementWrong) {
  for (int64_t i = 0; i < kCount; ++i) {
    ExpectFound([i](float*, float* recv, int) { recv[i] += 0.25F; },
                fmt::format("recv[{}] is", i));
  }
}

TEST(Check, FindsNan) {
  ExpectFound([](float*, float* recv,
                 int) { recv[3] = std::numeric_limits<float>::quiet_NaN(); },
              "recv[3] is nan");
}

TEST(Check, FindsWhatTheSecondRunBreaks) {
  ExpectFound(
      [](float*, float* recv, int call) { recv[5] += call == 2 ? 1 : 0; },
      "recv[5] is");
}

TEST(Check, FindsWritesOutside) {
  ExpectFound([](float*, float* recv, int) { recv[-1] = 0; }, "recv[-1] is 0");
  ExpectFound([](float*, float* recv, int) { recv[kCount] = 0; },
              fmt::format("recv[{}] is 0", kCount));
}

TEST(Check, FindsInputsThatAreChanged) {
  ExpectFound([](float* send, float*, int) { send[kCount - 1] += 1; },
              fmt::format("send[{}] is", kCount - 1));
}

TEST(Check, FindsTrafficThatIsNotDeclared) {
  const Status s = CheckCopy(nullptr, Traffic{.bytes = 36, .messages = 2});
  EXPECT_NE(s.message().find("0 bytes in 0 messages, and should be 36 in 2"),
            std::string_view::npos)
      << s.ToString();
}

std::vector<double> Draw(const InputFn& input, int rank, int64_t n) {
  std::vector<double> x(static_cast<size_t>(n));
  input(rank, 0, x);
  return x;
}

// A wrong rank, a misplaced chunk and a constant must show: no two windows are
// alike. Of a type with few values the windows are long.
TEST(CheckInputs, DifferBetweenRanksAndIndices) {
  constexpr int kRanks = 4, kWindow = 64, kWindows = 64;
  for (const DType dtype : kAllDTypes) {
    for (const ReduceOp op :
         {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kAvg}) {
      const InputFn input = ExactInput(dtype, op, kRanks);
      std::set<std::vector<double>> windows;
      for (int rank = 0; rank < kRanks; ++rank) {
        const auto x = Draw(input, rank, int64_t{kWindow} * kWindows);
        for (auto at = x.begin(); at != x.end(); at += kWindow) {
          windows.insert(std::vector<double>(at, at + kWindow));
        }
      }
      EXPECT_EQ(windows.size(), size_t{kRanks} * kWindows)
          << Name(dtype) << " " << Name(op);
    }
  }
}

TEST(CheckInputs, DoNotDependOnWhereReadingBegins) {
  const InputFn input = SmallIntegers(DType::kBF16, 3);
  const std::vector<double> whole = Draw(input, 1, 100);
  std::vector<double> part(60);
  input(1, 40, part);
  EXPECT_EQ(part, std::vector<double>(whole.begin() + 40, whole.end()));
}

}  // namespace
}  // namespace shardproof::testing
