#include "reports/store/store.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "reports/key.h"
#include "reports/store/testing/store_fixture.h"

namespace shardproof {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// The value, or a failed test and an empty one.
template <class T>
T Must(StatusOr<T> value) {
  EXPECT_TRUE(value.ok()) << value.status().ToString();
  return value.ok() ? *std::move(value) : T();
}

class StoreTest : public StoreFixture {
 protected:
  Store Open() {
    auto store = Store::Open(path_);
    EXPECT_TRUE(store.ok()) << store.status().ToString();
    return *std::move(store);
  }
};

TEST_F(StoreTest, KeepsALaunchAsItHappens) {
  const Record ring = Sample("ring", 1024, 12.5);
  const Record direct = Sample("direct", 7);
  {
    Store store = Open();
    const int64_t id = Must(store.BeginLaunch({.fingerprint = Machine(),
                                               .command = "run \xff",
                                               .started = "2026-03-01T10:00Z",
                                               .before = {.load = 0.5}}));
    ASSERT_TRUE(store.Add(id, ring).ok());
    // Not ended: it is there, and not complete.
    EXPECT_TRUE(Must(store.Launches({})).empty());
    EXPECT_EQ(Must(store.Launches({.complete_only = false})).size(), 1u);
    ASSERT_TRUE(store.Add(id, direct).ok());
    ASSERT_TRUE(store
                    .EndLaunch(id, {.finished = "2026-03-01T10:01Z",
                                    .complete = true,
                                    .left_out = {"pipeline: out of time"},
                                    .after = {.load = 1.5}})
                    .ok());
  }
  Store store = *Store::Open(path_, StoreMode::kReadOnly);
  const auto launches = Must(store.Launches({}));
  ASSERT_EQ(launches.size(), 1u);
  const Launch& launch = launches[0];
  EXPECT_EQ(launch.command, "run \xff");
  EXPECT_EQ(launch.finished, "2026-03-01T10:01Z");
  EXPECT_TRUE(launch.complete);
  EXPECT_FALSE(launch.interrupted);
  EXPECT_EQ(launch.fingerprint, Machine());
  EXPECT_EQ(launch.before.load, 0.5);
  EXPECT_EQ(launch.after.load, 1.5);
  EXPECT_EQ(launch.left_out, std::vector<std::string>{"pipeline: out of time"});
  EXPECT_EQ(launch.records, (std::vector<Record>{ring, direct}));
  EXPECT_TRUE(store.Check().ok());
}

TEST_F(StoreTest, LeavesTheSamplesOfRanksOut) {
  Record record = Sample("ring", 1, 2.0);
  record.time_us->rank_samples_us = {{1, 2}, {3, 4}};
  Store store = Open();
  Must(store.Import(LaunchAt(0, {record})));
  record.time_us->rank_samples_us.clear();
  EXPECT_EQ(Must(store.Launches({}))[0].records[0], record);
}

TEST_F(StoreTest, ImportsAFileOnceAndWhatItGrewBy) {
  Store store = Open();
  Launch launch = LaunchAt(0, {Sample("ring", 1, 10), Sample("ring", 2, 20)});
  launch.complete = false;
  const auto first = Must(store.Import(launch));
  EXPECT_EQ(first.records, 2);
  EXPECT_EQ(Must(store.Import(launch)).records, 0);
  launch.records.push_back(Sample("ring", 3, 30));
  launch.complete = true;
  launch.finished = "2026-03-01T10:59:00Z";
  const auto grown = Must(store.Import(launch));
  EXPECT_EQ(grown.records, 1);
  EXPECT_EQ(grown.launch, first.launch);
  // An older copy of the file takes nothing away.
  Launch older = launch;
  older.records.pop_back();
  older.complete = false;
  EXPECT_EQ(Must(store.Import(older)).records, 0);

  auto launches = Must(store.Launches({}));
  ASSERT_EQ(launches.size(), 1u);
  EXPECT_EQ(launches[0].records, launch.records);
  EXPECT_EQ(launches[0].finished, launch.finished);

  // Another launch of the same second: other times.
  launch.records[0].time_us->median = 11;
  EXPECT_EQ(Must(store.Import(launch)).records, 3);
  // And one on another host.
  launch.fingerprint.host = "node2";
  EXPECT_EQ(Must(store.Import(launch)).records, 3);
  EXPECT_EQ(Must(store.Launches({})).size(), 3u);
}

TEST_F(StoreTest, ImportFindsTheLaunchThatWasKeptAsItHappened) {
  Store store = Open();
  Launch launch = LaunchAt(0, {Sample("ring", 1, 10), Sample("ring", 2, 20)});
  launch.records[0].time_us->rank_samples_us = {{1}, {2}};
  const int64_t id = Must(store.BeginLaunch({.fingerprint = launch.fingerprint,
                                             .command = launch.command,
                                             .started = launch.started}));
  ASSERT_TRUE(store.Add(id, launch.records[0]).ok());
  const auto imported = Must(store.Import(launch));
  EXPECT_EQ(imported.launch, id);
  EXPECT_EQ(imported.records, 1);
  EXPECT_TRUE(Must(store.Launches({}))[0].complete);
}

TEST_F(StoreTest, FiltersKeys) {
  Store store = Open();
  Must(store.Import(LaunchAt(
      0, {Sample("ring", 1), Sample("direct", 1), Sample("ring", 22)})));
  Must(store.Import(LaunchAt(1, {Sample("ring", 1)})));
  EXPECT_EQ(Must(store.Keys()).size(), 3u);
  EXPECT_EQ(Must(store.Keys("^collectives.* ring .*count=\\d$")),
            std::vector<std::string>{KeyOf(Sample("ring", 1))});
  EXPECT_EQ(store.Keys("(").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(store.Launches({.filter = "["}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(store.Histories({.filter = "*"}).status().code(),
            StatusCode::kInvalidArgument);
}

TEST_F(StoreTest, HistoriesAreInTheOrderOfTimeWithTheirEpochs) {
  Store store = Open();
  // Not in the order in which they happened.
  Must(store.Import(LaunchAt(3, {Sample("ring", 1, 13)},
                             Machine("Xeon", "Open MPI v4.1.5"))));
  Must(
      store.Import(LaunchAt(1, {Sample("ring", 1, 11), Sample("tree", 1, 5)})));
  Record wrong = Sample("ring", 1, 12);
  wrong.verdict = Verdict::kIncorrect;
  wrong.error->worst_ratio = 7;
  Must(store.Import(LaunchAt(2, {wrong})));
  Record absent = Sample("ring", 1);
  absent.verdict = Verdict::kUnsupported;
  Must(store.Import(LaunchAt(4, {absent})));
  Must(store.Import(LaunchAt(5, {Sample("ring", 1, kNaN), Sample("ring", 1)},
                             Machine("Xeon", "Open MPI v4.1.5"))));
  Must(store.Import(LaunchAt(6, {Sample("ring", 1, 99)}, Machine("EPYC"))));

  const auto all = Must(store.Histories({}));
  ASSERT_EQ(all.size(), 3u);  // ring on two machines, tree on one.
  const auto histories = Must(
      store.Histories({.filter = "ring", .machine = MachineId(Machine())}));
  ASSERT_EQ(histories.size(), 1u);
  const History& history = histories[0];
  EXPECT_EQ(history.key, KeyOf(Sample("ring", 1)));
  EXPECT_EQ(history.machine, MachineId(Machine()));
  ASSERT_EQ(history.points.size(), 5u);
  EXPECT_EQ(history.points[0].median_us, 11);
  EXPECT_EQ(history.points[0].started, "2026-03-01T10:01:00Z");
  EXPECT_EQ(history.points[0].label, "abc");
  EXPECT_EQ(history.points[0].binary, "feedfacefeedface");
  EXPECT_EQ(history.points[0].epoch, EpochId(Machine()));
  EXPECT_TRUE(history.points[0].passed);
  EXPECT_EQ(history.points[1].median_us, 12);
  EXPECT_EQ(history.points[1].worst_ratio, 7);
  EXPECT_FALSE(history.points[1].passed);
  EXPECT_EQ(history.points[2].median_us, 13);
  EXPECT_EQ(history.points[3].median_us, 0);  // Not a number.
  EXPECT_EQ(history.points[4].median_us, 0);  // Not measured.
  ASSERT_EQ(history.epochs.size(), 1u);
  EXPECT_EQ(history.epochs[0].first, 2u);
  EXPECT_EQ(history.epochs[0].label, "Open MPI v4.1.4 -> v4.1.5");

  const auto late = Must(store.Histories({.since = "2026-03-01T10:06:00Z"}));
  ASSERT_EQ(late.size(), 1u);
  EXPECT_EQ(late[0].points.size(), 1u);
}

TEST_F(StoreTest, EveryTurnOfAnEpochHasItsLabel) {
  Store store = Open();
  for (int minute = 0; minute < 4; ++minute) {
    Must(store.Import(
        LaunchAt(minute, {Sample("ring", 1, 10), Sample("tree", 1, 20)},
                 Machine("Xeon", minute % 2 == 0 ? "MPI 1" : "MPI 2"))));
  }
  const auto histories = Must(store.Histories({}));
  ASSERT_EQ(histories.size(), 2u);
  for (const History& history : histories) {
    ASSERT_EQ(history.epochs.size(), 3u);
    EXPECT_EQ(history.epochs[0].label, "MPI 1 -> 2");
    EXPECT_EQ(history.epochs[1].label, "MPI 2 -> 1");
    EXPECT_EQ(history.epochs[2].first, 3u);
    EXPECT_EQ(history.epochs[2].label, "MPI 1 -> 2");
  }
}

TEST_F(StoreTest, BaselinesAreOfTheSameMachineAndEpoch) {
  Store store = Open();
  for (int minute = 0; minute < 8; ++minute) {
    Launch launch =
        LaunchAt(minute, {Sample("ring", 1, 100 + minute), Sample("tree", 1)});
    if (minute == 4) launch.complete = false;
    if (minute == 5) launch.fingerprint = Machine("EPYC");
    if (minute == 6) launch.fingerprint.mpi = "another";
    if (minute == 7) launch.records.erase(launch.records.begin());
    Must(store.Import(launch));
  }
  const auto launches = Must(store.Launches({.filter = " ring ",
                                             .machine = MachineId(Machine()),
                                             .epoch = EpochId(Machine()),
                                             .last = 3}));
  ASSERT_EQ(launches.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_EQ(launches[i].records.size(), 1u);
    EXPECT_EQ(launches[i].records[0].time_us->median, 101.0 + i);
  }
  EXPECT_EQ(Must(store.Launches({.last = 0})).size(), 7u);
  EXPECT_EQ(Must(store.Launches({.before_id = 3, .last = 0})).size(), 2u);
  EXPECT_EQ(Must(store.Launches({.id = 2})).size(), 1u);
  EXPECT_TRUE(Must(store.Launches({.label = "other"})).empty());
}

TEST_F(StoreTest, PairsLaunchesOfTheSameBinary) {
  Store store = Open();
  for (int minute = 0; minute < 7; ++minute) {
    Launch launch = LaunchAt(minute, {Sample("ring", 1, 100 + minute)});
    if (minute == 3) launch.fingerprint.binary = "another";
    if (minute == 4) launch.records[0].verdict = Verdict::kIncorrect;
    Must(store.Import(launch));
  }
  // Of 0 1 2 4 5 6: (5, 6), (2, 4) without a key that passed twice, (0, 1).
  const auto pairs = Must(store.LaunchesOfSameBinary(MachineId(Machine())));
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].first_us, 105);
  EXPECT_EQ(pairs[0].second_us, 106);
  EXPECT_EQ(pairs[1].first_us, 100);
  EXPECT_EQ(pairs[1].second_us, 101);
  EXPECT_EQ(pairs[1].key, KeyOf(Sample("ring", 1)));
  EXPECT_EQ(Must(store.LaunchesOfSameBinary(MachineId(Machine()), 1)).size(),
            1u);
  EXPECT_TRUE(Must(store.LaunchesOfSameBinary("elsewhere")).empty());
}

TEST_F(StoreTest, ForgetsWhatIsOld) {
  Store store = Open();
  for (int minute = 0; minute < 4; ++minute) {
    Must(store.Import(LaunchAt(minute, {Sample("ring", minute, 10)})));
  }
  EXPECT_EQ(Must(store.Prune("2026-03-01T10:02:00Z")), 2);
  EXPECT_EQ(Must(store.Launches({.last = 0})).size(), 2u);
  EXPECT_EQ(Must(store.Keys()).size(), 2u);  // The records went with them.
}

TEST_F(StoreTest, HostileTextIsText) {
  Record record = Sample("ring'); DROP TABLE records; --", 1, 10);
  record.params = {{"a\"b", std::string("x\0y", 3)}};
  Store store = Open();
  Must(store.Import(LaunchAt(0, {record})));
  EXPECT_EQ(Must(store.Launches({.filter = "DROP TABLE"}))[0].records[0],
            record);
  EXPECT_EQ(Must(store.Keys()), std::vector<std::string>{KeyOf(record)});
}

TEST(StorePath, IsWhereTheSpecificationSays) {
  setenv("SHARDPROOF_HISTORY", "/x/y.db", 1);
  setenv("XDG_STATE_HOME", "/state", 1);
  setenv("HOME", "/home/me", 1);
  EXPECT_EQ(Store::DefaultPath(), "/x/y.db");
  unsetenv("SHARDPROOF_HISTORY");
  EXPECT_EQ(Store::DefaultPath(), "/state/shardproof/history.db");
  setenv("XDG_STATE_HOME", "relative", 1);
  EXPECT_EQ(Store::DefaultPath(),
            "/home/me/.local/state/shardproof/history.db");
  unsetenv("XDG_STATE_HOME");
  EXPECT_EQ(Store::DefaultPath(),
            "/home/me/.local/state/shardproof/history.db");
  unsetenv("HOME");
  EXPECT_EQ(Store::DefaultPath(), "");
  EXPECT_EQ(Store::Open("").status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace shardproof
