#include "tools/harness/faults.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "reference/dtype.h"
#include "tools/harness/runner.h"

namespace shardproof {
namespace {

constexpr int kRanks = 4;
constexpr int kCulprit = 2;
constexpr uint64_t kSeed = kCulprit;  // Rank seed % ranks is the culprit.

using Floats = std::vector<float>;

Floats Ramp(float first, size_t n = 40) {
  Floats x(n);
  std::iota(x.begin(), x.end(), first);
  return x;
}

// One interceptor, and operations as a communicator would run them.
class FaultTest : public ::testing::Test {
 protected:
  void Plant(Fault fault) {
    struck_ = 0;
    interceptor_ = MakeFault(fault, kCulprit, kRanks, kSeed, &struck_);
    ASSERT_NE(interceptor_, nullptr);
  }
  void Begin() {
    op_ = {.label = "all_reduce/ring",
           .dtype = DType::kF32,
           .count = 40,
           .root = -1,
           .sequence = ++sequence_};
    ASSERT_TRUE(interceptor_->OnBegin(op_).ok());
  }
  void End() { interceptor_->OnEnd(op_); }
  // What arrives of `sent` from `peer`.
  Floats Receive(int peer, Floats sent) {
    interceptor_->OnReceive(op_, kCulprit, peer,
                            std::as_writable_bytes(std::span(sent)));
    return sent;
  }
  Floats Load(int peer, const Floats& there) {
    const auto bytes = std::as_bytes(std::span(there));
    const std::byte* got =
        interceptor_->OnLoad(op_, kCulprit, peer, bytes.data(), bytes.size());
    Floats out(there.size());
    std::copy_n(got, bytes.size(),
                std::as_writable_bytes(std::span(out)).begin());
    return out;
  }
  // An operation in which one payload arrives.
  Floats OneOperation(const Floats& sent) {
    Begin();
    Floats got = Receive(0, sent);
    End();
    return got;
  }
  Floats Faulty(Fault fault, const Floats& sent) {
    Plant(fault);
    return OneOperation(sent);
  }

  std::atomic<int> struck_{0};
  std::unique_ptr<Interceptor> interceptor_;
  Op op_;
  uint64_t sequence_ = 0;
};

TEST(Faults, NamesAreReadBack) {
  EXPECT_EQ(AllFaults().size(), 12u);
  for (const Fault fault : AllFaults()) {
    const auto parsed = ParseFault(Name(fault));
    ASSERT_TRUE(parsed.ok()) << Name(fault);
    EXPECT_EQ(*parsed, fault);
    EXPECT_FALSE(Describe(fault).empty());
  }
  const Status unknown = ParseFault("gremlins").status();
  EXPECT_EQ(unknown.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(unknown.message().find("wrong_scale"), std::string::npos);
}

TEST(Faults, OneRankIsTheCulprit) {
  for (const Fault fault : AllFaults()) {
    EXPECT_EQ(MakeFault(fault, 0, 1, 0), nullptr) << "one rank has no peers";
    int culprits = 0;
    for (int r = 0; r < kRanks; ++r) {
      culprits += MakeFault(fault, r, kRanks, kSeed) != nullptr ? 1 : 0;
    }
    // Who the root is comes to light later.
    EXPECT_EQ(culprits, fault == Fault::kWrongRoot ? kRanks : 1) << Name(fault);
  }
}

TEST_F(FaultTest, ChangeThePayloadAsTheySay) {
  const Floats sent = Ramp(1);
  EXPECT_EQ(Faulty(Fault::kDropContribution, sent), Floats(40, 0.0F));

  Floats twice = sent, quarter = sent;
  for (float& x : twice) x *= 2;
  for (float& x : quarter) x /= kRanks;
  EXPECT_EQ(Faulty(Fault::kCountTwice, sent), twice);
  EXPECT_EQ(Faulty(Fault::kWrongScale, sent), quarter);

  Floats swapped = sent;
  std::swap_ranges(swapped.begin(), swapped.begin() + 20, swapped.begin() + 20);
  EXPECT_EQ(Faulty(Fault::kSwapChunks, sent), swapped);

  Floats tail = sent;  // Elements 32 to 39 are the last row of 16.
  std::fill(tail.begin() + 32, tail.end(), 0.0F);
  EXPECT_EQ(Faulty(Fault::kLoseTail, sent), tail);
  EXPECT_EQ(struck_, 1);
}

// A quarter of an integer might be the same one.
TEST_F(FaultTest, IntegersAreMultipliedByTheRanks) {
  Plant(Fault::kWrongScale);
  Begin();
  op_.dtype = DType::kI32;
  std::vector<int32_t> x = {1, -3};
  interceptor_->OnReceive(op_, kCulprit, 0,
                          std::as_writable_bytes(std::span(x)));
  EXPECT_EQ(x, (std::vector<int32_t>{kRanks, -3 * kRanks}));
}

// An operation inside of another is a part of it.
TEST_F(FaultTest, StrikeOnceInNestedOperations) {
  Plant(Fault::kCountTwice);
  Begin();
  EXPECT_EQ(Receive(0, {1, 2}), (Floats{2, 4}));
  Op inner = op_;
  ASSERT_TRUE(interceptor_->OnBegin(inner).ok());
  EXPECT_EQ(Receive(0, {1, 2}), (Floats{1, 2}));
  interceptor_->OnEnd(inner);
  EXPECT_EQ(Receive(0, {1, 2}), (Floats{1, 2}));
  End();
  EXPECT_EQ(struck_, 1);
}

TEST_F(FaultTest, StrikeOncePerOperation) {
  Plant(Fault::kCountTwice);
  Begin();
  EXPECT_EQ(Receive(0, {1, 2}), (Floats{2, 4}));
  EXPECT_EQ(Receive(1, {1, 2}), (Floats{1, 2}));
  End();
  EXPECT_EQ(OneOperation({1, 2}), (Floats{2, 4}));
  EXPECT_EQ(struck_, 2);
}

TEST_F(FaultTest, LoadsAndStoresAreHitLikeMessages) {
  Plant(Fault::kCountTwice);
  Begin();
  EXPECT_EQ(Load(1, {3, 5}), (Floats{6, 10}));
  End();
  Begin();
  Floats stored = {3, 5};
  const auto bytes = std::as_writable_bytes(std::span(stored));
  EXPECT_EQ(interceptor_->OnStore(op_, kCulprit, 3, bytes.data(), bytes.size()),
            bytes.data());
  EXPECT_EQ(stored, (Floats{3, 5})) << "what is stored is there only later";
  interceptor_->OnDepart(op_, kCulprit);
  End();
  EXPECT_EQ(stored, (Floats{6, 10}));
}

TEST_F(FaultTest, WhatIsStaleComesFromTheLastTime) {
  Plant(Fault::kStaleBuffer);
  EXPECT_EQ(OneOperation(Ramp(1)), Ramp(1)) << "there was no last time";
  EXPECT_EQ(OneOperation(Ramp(100)), Ramp(1));
  EXPECT_EQ(OneOperation(Ramp(100)), Ramp(100)) << "equal is not stale";
  EXPECT_EQ(struck_, 1);
}

TEST_F(FaultTest, HalfOfALineIsTorn) {
  Plant(Fault::kTearCacheLine);
  EXPECT_EQ(OneOperation(Ramp(1)), Ramp(1));
  const Floats got = OneOperation(Ramp(100)), fresh = Ramp(100), old = Ramp(1);
  // 40 floats are three lines; seed 2 takes the last, of 8 floats.
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i], i < 36 ? fresh[i] : old[i]) << i;
  }
}

TEST_F(FaultTest, AnotherRanksPayloadComes) {
  Plant(Fault::kWrongGroup);
  Begin();
  EXPECT_EQ(Receive(0, Ramp(1)), Ramp(1)) << "nobody else has been seen";
  EXPECT_EQ(Receive(1, Ramp(50)), Ramp(1));
  End();
  EXPECT_EQ(struck_, 1);
}

TEST_F(FaultTest, OneRowInEveryThirdOperation) {
  Plant(Fault::kCorruptRow);
  for (int operation = 1; operation <= 6; ++operation) {
    const Floats got = OneOperation(Ramp(1)), right = Ramp(1);
    size_t wrong = 0;
    for (size_t i = 0; i < got.size(); ++i) wrong += got[i] != right[i] ? 1 : 0;
    EXPECT_EQ(wrong, operation % 3 == 2 ? 8u : 0u) << operation;
  }
}

TEST_F(FaultTest, TheRootErrs) {
  Plant(Fault::kWrongRoot);
  for (const auto& [root, taken] :
       {std::pair{kCulprit, kCulprit - 1}, std::pair{0, 0}, std::pair{3, 3}}) {
    Op op{.label = "broadcast/chain",
          .dtype = DType::kF32,
          .count = 1,
          .root = root,
          .sequence = 1};
    ASSERT_TRUE(interceptor_->OnBegin(op).ok());
    interceptor_->OnEnd(op);
    EXPECT_EQ(op.root, taken);
  }
  EXPECT_EQ(struck_, 1);
}

TEST_F(FaultTest, WhatHasNoPayloadIsLeftAlone) {
  Plant(Fault::kCountTwice);
  Op barrier{.label = "barrier/direct", .sequence = 1};
  ASSERT_TRUE(interceptor_->OnBegin(barrier).ok());
  Floats x = {1, 2};
  interceptor_->OnReceive(barrier, kCulprit, 0,
                          std::as_writable_bytes(std::span(x)));
  EXPECT_EQ(x, (Floats{1, 2}));
  EXPECT_EQ(struck_, 0);
}

TEST_F(FaultTest, LateChangesNothing) {
  EXPECT_FALSE(MustBeNoticed(Fault::kDelayRank));
  const Floats sent = Ramp(1);
  EXPECT_EQ(Faulty(Fault::kDelayRank, sent), sent);
  EXPECT_GT(struck_, 0);
}

TEST(Faults, WhoNeverArrivesWaitsUntilTheRunIsGivenUp) {
  int asked = 0;
  const auto never = MakeFault(Fault::kNeverArrive, kCulprit, kRanks, kSeed,
                               nullptr, [&asked] { return ++asked == 3; });
  Op op{.label = "all_reduce/ring", .count = 1, .sequence = 1};
  const Status status = never->OnBegin(op);
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  EXPECT_EQ(asked, 3);
  EXPECT_NE(status.message().find("rank 2"), std::string::npos);
}

TEST(Mutants, AreKilledByWhatIsFoundAlone) {
  const auto kills = [](Verdict verdict, std::string reason = "") {
    Record r;
    r.verdict = verdict;
    r.reason = std::move(reason);
    return Kills(r);
  };
  EXPECT_TRUE(kills(Verdict::kIncorrect));
  EXPECT_TRUE(kills(Verdict::kSuspect));
  EXPECT_TRUE(kills(Verdict::kFailed, "rank 1: it broke"));
  EXPECT_FALSE(kills(Verdict::kPassed));
  EXPECT_FALSE(kills(Verdict::kUnsupported));
  EXPECT_FALSE(kills(Verdict::kNotBuilt));
  EXPECT_FALSE(kills(Verdict::kFailed, "blind: y: the tolerance is blind"));
}

}  // namespace
}  // namespace shardproof
