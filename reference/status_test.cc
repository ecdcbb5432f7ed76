#include "reference/status.h"

#include <gtest/gtest.h>

namespace shardproof {
namespace {

TEST(Status, OkIsEmpty) {
  const Status ok = OkStatus();
  EXPECT_TRUE(ok.ok());
  EXPECT_EQ(ok.code(), StatusCode::kOk);
  EXPECT_EQ(ok.message(), "");
  EXPECT_EQ(ok.ToString(), "ok");
  EXPECT_TRUE(ok.WithContext("here").ok());
}

TEST(Status, EachHelperHasItsCode) {
  EXPECT_EQ(InvalidArgument("{}", 1).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Unsupported("{}", 1).code(), StatusCode::kUnsupported);
  EXPECT_EQ(OutOfMemory("{}", 1).code(), StatusCode::kOutOfMemory);
  EXPECT_EQ(Aborted("{}", 1).code(), StatusCode::kAborted);
  EXPECT_EQ(Timeout("{}", 1).code(), StatusCode::kTimeout);
  EXPECT_EQ(Unavailable("{}", 1).code(), StatusCode::kUnavailable);
  EXPECT_EQ(DataLoss("{}", 1).code(), StatusCode::kDataLoss);
  EXPECT_EQ(Internal("{}", 1).code(), StatusCode::kInternal);
}

TEST(Status, CopiesMovesAndTakesContext) {
  const Status error = InvalidArgument("rank {} is negative", -1);
  Status copy = error;
  Status assigned;
  assigned = copy;
  EXPECT_EQ(assigned.WithContext("send").ToString(),
            "invalid argument: send: rank -1 is negative");
  EXPECT_EQ(copy.message(), error.message());
  copy = OkStatus();
  EXPECT_FALSE(error.ok());
  assigned = OkStatus();
  EXPECT_TRUE(assigned.ok());
}

StatusOr<int> Half(int x) {
  if (x % 2 != 0) return InvalidArgument("{} is odd", x);
  return x / 2;
}

StatusOr<int> Quarter(int x) {
  SP_ASSIGN_OR_RETURN(const int half, Half(x));
  SP_ASSIGN_OR_RETURN(const int quarter, Half(half));
  return quarter;
}

Status IsMultipleOfFour(int x) {
  SP_RETURN_IF_ERROR(Quarter(x).status());
  return OkStatus();
}

TEST(StatusOr, ValueOrReason) {
  EXPECT_EQ(*Quarter(12), 3);
  EXPECT_EQ(Quarter(6).status().message(), "3 is odd");
  EXPECT_TRUE(IsMultipleOfFour(8).ok());
  EXPECT_FALSE(IsMultipleOfFour(7).ok());
}

TEST(StatusOr, HoldsWhatCannotBeCopied) {
  StatusOr<std::unique_ptr<int>> p = std::make_unique<int>(7);
  ASSERT_TRUE(p.ok());
  EXPECT_EQ(**p, 7);
  const std::unique_ptr<int> taken = *std::move(p);
  EXPECT_EQ(*taken, 7);
}

TEST(StatusOr, OkStatusWithoutValueIsAnError) {
  const StatusOr<int> x = OkStatus();
  EXPECT_EQ(x.status().code(), StatusCode::kInternal);
}

TEST(StatusOrDeathTest, ValueOfAnErrorAborts) {
  const StatusOr<int> x = Timeout("rank 3 never came");
  EXPECT_DEATH((void)x.value(), "rank 3 never came");
}

}  // namespace
}  // namespace shardproof
