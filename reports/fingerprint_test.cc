#include "reports/fingerprint.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace shardproof {
namespace {

Fingerprint Sample() {
  return {.host = "node\xc3\xa9 <7>",
          .cpu = "Example 9000",
          .kernel = "Linux 6.1.0",
          .cores = 64,
          .memory_bytes = (int64_t{256} << 30) - 12345,
          .topology = "0123456789abcdef",
          .governor = "performance",
          .gpus = {{.name = "H100", .memory_bytes = int64_t{80} << 30},
                   {.name = "H100", .memory_bytes = int64_t{80} << 30}},
          .driver = "550.54",
          .cuda = "12.4",
          .nccl = "2.20.5",
          .mpi = "Open MPI v4.1.4, package: Debian",
          .compiler = "gcc 12.2.0",
          .version = "1",
          .binary = "feedfacefeedface",
          .label = "abc123",
          .variables = {{"NCCL_ALGO", "Ring"}, {"OMPI_MCA_pml", "ob1"}}};
}

TEST(Fingerprint, IsReadBack) {
  const Fingerprint f = Sample();
  EXPECT_EQ(FingerprintFromJson(ToJson(f)), f);
  // Through text too, as a file has it.
  EXPECT_EQ(
      FingerprintFromJson(nlohmann::ordered_json::parse(ToJson(f).dump())), f);
  EXPECT_EQ(FingerprintFromJson(ToJson(Fingerprint())), Fingerprint());
  const Conditions c{.load = 1.5,
                     .steal_share = 0.25,
                     .busy_share = 0.125,
                     .throttle_events = 7,
                     .mhz = 2600};
  EXPECT_EQ(ConditionsFromJson(ToJson(c)), c);
}

TEST(Fingerprint, ReadsFilesOfEarlierVersions) {
  const auto json = nlohmann::ordered_json::parse(R"({
      "host": "vm", "cpu": "Xeon", "cores": 2, "kernel": "Linux 6.18",
      "mpi": "Open MPI v4.1.4", "gpus": ["H100"],
      "variables": {"OMPI_MCA_pml": "ob1"}})");
  const Fingerprint f = FingerprintFromJson(json);
  EXPECT_EQ(f.host, "vm");
  EXPECT_EQ(f.cores, 2);
  EXPECT_EQ(f.gpus, std::vector<Gpu>{{.name = "H100"}});
  ASSERT_EQ(f.variables.size(), 1u);
  EXPECT_EQ(f.variables[0].second, "ob1");
  EXPECT_EQ(f.governor, "");
}

TEST(Fingerprint, TakesNothingFromMembersOfAnotherType) {
  for (const char* text :
       {"null", "[]", "7", "\"x\"",
        R"({"host": 7, "cores": "many", "cpu": null, "memory_bytes": {},
            "gpus": {"a": 1}, "variables": [1, 2], "label": []})",
        R"({"gpus": [7, null, []], "variables": {"A": 1}})"}) {
    EXPECT_EQ(FingerprintFromJson(nlohmann::ordered_json::parse(text)),
              Fingerprint())
        << text;
  }
  EXPECT_EQ(FingerprintFromJson({{"cores", -5}}).cores, 0);
  EXPECT_EQ(FingerprintFromJson({{"cores", int64_t{1} << 40}}).cores,
            2147483647);
  EXPECT_EQ(ConditionsFromJson({{"load", "NaN"}}), Conditions());
}

// FNV-1a's published values for 64 bits: "" is the offset basis.
TEST(Fingerprint, IdentitiesAreStable) {
  EXPECT_EQ(MachineId(Fingerprint()), "cbf29ce484222325");
  EXPECT_EQ(EpochId(Fingerprint()), "cbf29ce484222325");
  // Kept in databases: it must never change. The value is that of an
  // independent FNV-1a over "cpu=4:Xeon\ncores=1:2\n".
  EXPECT_EQ(MachineId({.cpu = "Xeon", .cores = 2}), "62b4caa893e70c32");
}

TEST(Fingerprint, MachineIsHardwareOnly) {
  const Fingerprint f = Sample();
  Fingerprint same = f;
  same.host = "other";
  same.kernel = same.driver = same.nccl = same.mpi = same.binary = "other";
  same.label = same.governor = "other";
  same.variables.clear();
  same.memory_bytes += 100 << 20;  // The same GiB.
  EXPECT_EQ(MachineId(same), MachineId(f));

  Fingerprint other = f;
  other.cpu += 'X';
  EXPECT_NE(MachineId(other), MachineId(f));
  other = f;
  other.cores = 32;
  EXPECT_NE(MachineId(other), MachineId(f));
  other = f;
  other.memory_bytes /= 2;
  EXPECT_NE(MachineId(other), MachineId(f));
  other = f;
  other.topology = "fedcba9876543210";
  EXPECT_NE(MachineId(other), MachineId(f));
  other = f;
  other.gpus.pop_back();
  EXPECT_NE(MachineId(other), MachineId(f));
}

TEST(Fingerprint, EpochIsSoftwareBelowTheProgram) {
  const Fingerprint f = Sample();
  Fingerprint same = f;
  same.host = same.cpu = same.binary = same.label = same.compiler = "other";
  same.cores = 1;
  std::swap(same.variables[0], same.variables[1]);
  EXPECT_EQ(EpochId(same), EpochId(f));
  for (std::string Fingerprint::*member :
       {&Fingerprint::kernel, &Fingerprint::driver, &Fingerprint::cuda,
        &Fingerprint::nccl, &Fingerprint::mpi, &Fingerprint::governor}) {
    Fingerprint other = f;
    other.*member += '1';
    EXPECT_NE(EpochId(other), EpochId(f));
  }
  Fingerprint other = f;
  other.variables[0].second = "Tree";
  EXPECT_NE(EpochId(other), EpochId(f));
}

TEST(Fingerprint, SaysWhatOfTheEpochChanged) {
  const Fingerprint before = Sample();
  Fingerprint after = before;
  EXPECT_EQ(EpochChange(before, after), "");
  after.mpi = "Open MPI v4.1.5, package: Debian";
  after.binary = "another";
  EXPECT_EQ(EpochChange(before, after), "Open MPI v4.1.4 -> v4.1.5");
  after.mpi = "Open MPI v4.1.4, package: local";
  EXPECT_EQ(EpochChange(before, after),
            "Open MPI v4.1.4, package: Debian -> local");
  after.mpi = before.mpi;
  after.driver = "560.1";
  after.variables = {{"OMPI_MCA_pml", "ob1"}, {"NCCL_PROTO", "LL"}};
  EXPECT_EQ(EpochChange(before, after),
            "driver 550.54 -> 560.1; NCCL_ALGO Ring -> none; "
            "NCCL_PROTO none -> LL");
}

TEST(Fingerprint, NamesEveryDifference) {
  const Fingerprint before = Sample();
  EXPECT_TRUE(Differences(before, before).empty());
  Fingerprint after = before;
  after.cores = 32;
  after.nccl = "2.21";
  after.label = "def456";
  after.gpus.pop_back();
  const std::vector<Difference> expected = {
      {.field = "cores", .before = "64", .after = "32", .machine = true},
      {.field = "gpus",
       .before = "2 x H100, 80 GiB",
       .after = "1 x H100, 80 GiB",
       .machine = true},
      {.field = "nccl", .before = "2.20.5", .after = "2.21", .epoch = true},
      {.field = "label", .before = "abc123", .after = "def456"}};
  EXPECT_EQ(Differences(before, after), expected);
}

}  // namespace
}  // namespace shardproof
