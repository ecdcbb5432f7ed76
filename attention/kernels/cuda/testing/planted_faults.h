// For the tests: kernels with one line broken, each of which must be found, by numbers beyond their bounds, by the machine
// they run on or by ThreadSanitizer.
//
//     const std::vector<PlantedFault>& shardproof::cuda::testing::PlantedFaults() {...}      // By the test.
//     INSTANTIATE_TEST_SUITE_P(All, PlantedFaultTest, ::testing::ValuesIn(PlantedFaults()), NameOfFault);
//     int main(int argc, char** argv) { return shardproof::cuda::testing::RunPlantedFaults(argc, argv); }
//
// A fault runs in a child process (this program with its name), since ThreadSanitizer reports by ending the process.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_PLANTED_FAULTS_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_PLANTED_FAULTS_H_

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "attention/kernels/flash_testing.h"
#include "collectives/backend/cuda/testing/child.h"
#include "reference/status.h"

namespace shardproof::cuda::testing {

// Schedules for what is right and for what is not. Under sanitizers, which make one take twenty times as long, fewer: each
// fault is found in each schedule.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr uint64_t kRightSeeds = 2, kFaultSeeds = 1;
#else
inline constexpr uint64_t kRightSeeds = 6, kFaultSeeds = 6;
#endif

struct PlantedFault {
  std::string_view name;
  // Under the schedule of a seed: OK where nothing is wrong.
  std::function<Status(uint64_t seed)> run;
  bool shows = true;
};
inline std::string NameOfFault(
    const ::testing::TestParamInfo<PlantedFault>& info) {
  return std::string(info.param.name);
}
const std::vector<PlantedFault>& PlantedFaults();

// Whether every element is within its bounds.
inline Status IsRight(const Tensor& got, const Matrix& want) {
  const std::vector<double> values = Doubles(got);
  const auto stride = static_cast<size_t>(got.shape()[1]);
  const auto columns = static_cast<size_t>(want.cols);
  for (size_t i = 0; i < want.values.size(); ++i) {
    const Bounded& y = want.values[i];
    const double x = values[i / columns * stride + i % columns];
    const bool same = std::isinf(y.value) && x == y.value;
    if (!same && !(std::abs(x - y.value) <= y.worst)) {
      return Internal("beyond bounds");
    }
  }
  return OkStatus();
}

class PlantedFaultTest : public ::testing::TestWithParam<PlantedFault> {};

TEST_P(PlantedFaultTest, IsFound) {
  const PlantedFault& fault = GetParam();
  const ChildResult child = RunSelf({std::string(fault.name)});
  const bool race =
      child.output.find("ThreadSanitizer: data race") != std::string::npos;
  // 0: nothing found, 3: found, which no sanitizer ends a process with.
  fmt::print("{:36} {}\n", fault.name, race ? "race" : child.output);
  EXPECT_TRUE(child.exit_code == 0 || child.exit_code == 3 || race)
      << child.output;
  EXPECT_EQ(child.exit_code == 3 || race, fault.shows) << child.output;
}

// -1 where no fault has this name.
inline int RunAsChild(std::string_view name) {
  for (const PlantedFault& fault : PlantedFaults()) {
    if (fault.name != name) continue;
    const uint64_t seeds = fault.shows ? kFaultSeeds : kRightSeeds;
    int wrong = 0;
    std::string first;
    for (uint64_t seed = 0; seed < seeds; ++seed) {
      const Status status = fault.run(seed);
      if (status.ok()) continue;
      if (++wrong == 1) first = status.message().substr(0, 60);
    }
    fmt::print("wrong in {} of {} schedules; {}", wrong, seeds, first);
    return wrong == 0 ? 0 : 3;
  }
  return -1;
}

inline int RunPlantedFaults(int argc, char** argv) {
  if (argc == 2) {
    const int status = RunAsChild(argv[1]);
    if (status >= 0) return status;
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_PLANTED_FAULTS_H_
