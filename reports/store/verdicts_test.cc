// Comparisons and calibrations in the history.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "reports/store/store.h"
#include "reports/store/testing/store_fixture.h"

namespace shardproof {
namespace {

class VerdictsTest : public StoreFixture {};

TEST_F(VerdictsTest, ComparisonsAreReadBackInTheOrderOfTime) {
  auto store = Store::Open(path_);
  ASSERT_TRUE(store.ok()) << store.status().ToString();
  const Comparison ring{.key = "all_reduce ring",
                        .case_name = "all_reduce",
                        .variant = "ring",
                        .backend = "thread",
                        .change = Change::kRegressed,
                        .reason = "it is 7 percent slower",
                        .effect = 0.07,
                        .more_pairs = 3,
                        .base_launches = {1, 2},
                        .cand_launches = {2, 3}};
  Comparison tree = ring;
  tree.key = "all_reduce tree";
  tree.change = Change::kEquivalent;
  ASSERT_TRUE(store->PutComparisons("m1", "2026-02-02", {ring, tree}).ok());
  ASSERT_TRUE(store->PutComparisons("m2", "2026-01-01", {tree}).ok());

  const auto all = store->Comparisons();
  ASSERT_TRUE(all.ok()) << all.status().ToString();
  ASSERT_EQ(all->size(), 3u);
  EXPECT_EQ((*all)[0].machine, "m2");
  EXPECT_EQ((*all)[1].measured, "2026-02-02");
  EXPECT_EQ((*all)[1].comparison, ring);
  EXPECT_EQ((*all)[2].comparison, tree);
  EXPECT_EQ(store->Comparisons("tree", "m1")->size(), 1u);
  EXPECT_EQ(store->Comparisons("(").status().code(),
            StatusCode::kInvalidArgument);

  ASSERT_TRUE(store->Prune("2026-02-01").ok());
  EXPECT_EQ(store->Comparisons()->size(), 2u);
}

TEST_F(VerdictsTest, TheLatestCalibrationOfTheMachineCounts) {
  auto store = Store::Open(path_);
  ASSERT_TRUE(store.ok()) << store.status().ToString();
  Calibration calibration{.machine = "m1",
                          .measured = "2026-02-02",
                          .cases = 3,
                          .null_verdicts = 300,
                          .false_alarms = 1,
                          .noise = 0.013};
  calibration.power = {{.slowdown = 0.05, .trials = 50, .found = 49}};
  EXPECT_FALSE(store->LatestCalibration("m1")->has_value());
  ASSERT_TRUE(store->PutCalibration(calibration).ok());
  Calibration older = calibration;
  older.measured = "2026-01-01";
  older.noise = 1;
  ASSERT_TRUE(store->PutCalibration(older).ok());
  Calibration other = calibration;
  other.machine = "m2";
  other.measured = "2026-03-03";
  ASSERT_TRUE(store->PutCalibration(other).ok());

  auto latest = store->LatestCalibration("m1");
  ASSERT_TRUE(latest.ok()) << latest.status().ToString();
  EXPECT_EQ(latest->value(), calibration);
  // Put again: replaced.
  calibration.cases = 4;
  ASSERT_TRUE(store->PutCalibration(calibration).ok());
  EXPECT_EQ((*store->LatestCalibration("m1"))->cases, 4);
}

}  // namespace
}  // namespace shardproof
