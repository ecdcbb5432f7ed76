// A folder for one test, and records and launches to put into a store.
#ifndef SHARDPROOF_REPORTS_STORE_TESTING_STORE_FIXTURE_H_
#define SHARDPROOF_REPORTS_STORE_TESTING_STORE_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "reports/store/store.h"

namespace shardproof {

class StoreFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* base = std::getenv("TEST_TMPDIR");
    std::string folder =
        std::string(base != nullptr ? base : "/tmp") + "/store_XXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    path_ = (folder_ / "history.db").string();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static Record Sample(const std::string& variant, int count,
                       double median = 0) {
    Record record{.case_name = "collectives/all_reduce",
                  .variant = variant,
                  .backend = "thread",
                  .ranks = 4,
                  .params = {{"count", std::to_string(count)}},
                  .verdict = Verdict::kPassed,
                  .error = Record::Error{.tier = "exact", .worst_ratio = 0.25}};
    if (median > 0) {
      record.time_us =
          Record::Time{.median = median, .samples = 3, .samples_us = {1, 2, 3}};
    }
    return record;
  }
  static Fingerprint Machine(const std::string& cpu = "Xeon",
                             const std::string& mpi = "Open MPI v4.1.4") {
    return {.host = "node1",
            .cpu = cpu,
            .cores = 2,
            .mpi = mpi,
            .binary = "feedfacefeedface",
            .label = "abc"};
  }
  // Started in minute `minute` of an hour.
  static Launch LaunchAt(int minute, std::vector<Record> records,
                         Fingerprint fingerprint = Machine()) {
    return {.name = "results.json",
            .command = "run --json results.json",
            .started = fmt::format("2026-03-01T10:{:02}:00Z", minute),
            .finished = fmt::format("2026-03-01T10:{:02}:30Z", minute),
            .complete = true,
            .fingerprint = std::move(fingerprint),
            .records = std::move(records)};
  }

  std::filesystem::path folder_;
  std::string path_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STORE_TESTING_STORE_FIXTURE_H_
