#include "tools/cli/exit_code.h"

#include <gtest/gtest.h>

#include <vector>

namespace shardproof {
namespace {

TEST(ExitCode, TheWorstWins) {
  // The precedence that callers rely on: 1 > 124 > 6 > 5 > 3 > 4 > 0.
  const std::vector<ExitCode> worst_first = {
      kExitMismatch,   kExitHang,         kExitBackend, kExitInvalid,
      kExitRegression, kExitInconclusive, kExitPass};
  for (size_t i = 0; i < worst_first.size(); ++i) {
    for (size_t j = i; j < worst_first.size(); ++j) {
      EXPECT_EQ(Worse(worst_first[i], worst_first[j]), worst_first[i]);
      EXPECT_EQ(Worse(worst_first[j], worst_first[i]), worst_first[i]);
    }
  }
}

TEST(ExitCode, ErrorsThatEndACommand) {
  EXPECT_EQ(ExitCodeOf(Status()), kExitPass);
  EXPECT_EQ(ExitCodeOf(InvalidArgument("x")), kExitUsage);
  EXPECT_EQ(ExitCodeOf(Unavailable("x")), kExitBackend);
  EXPECT_EQ(ExitCodeOf(DataLoss("x")), kExitInvalid);
  EXPECT_EQ(ExitCodeOf(Timeout("x")), kExitHang);
}

}  // namespace
}  // namespace shardproof
