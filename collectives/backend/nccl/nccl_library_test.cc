// Libraries that can be loaded, and what is said of those that cannot.
#include "collectives/backend/nccl/nccl_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "collectives/backend/nccl/nccl_types.h"
#include "collectives/backend/nccl/testing/host_device.h"

namespace shardproof {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string WhyNot(const std::string& path) {
  const auto library = NcclLibrary::Load(path);
  EXPECT_EQ(library.status().code(), StatusCode::kUnavailable) << path;
  const std::string why(library.status().message());
  EXPECT_THAT(why, Not(HasSubstr("\n")));
  return why;
}

std::vector<std::string> Present(const NcclLibrary& library) {
  std::vector<std::string> names;
  for (const NcclCapability& one : library.Capabilities()) {
    EXPECT_EQ(one.present, library.Has(one.feature)) << one.name;
    EXPECT_EQ(one.present, library.version() >= one.since) << one.name;
    if (one.present) names.emplace_back(one.name);
  }
  return names;
}

TEST(NcclVersionTextTest, KnowsBothCodings) {
  EXPECT_EQ(NcclVersionText(22809), "2.28.9");
  EXPECT_EQ(NcclVersionText(21400), "2.14.0");
  EXPECT_EQ(NcclVersionText(2708), "2.7.8");
}

TEST(NcclLibraryTest, SaysWhatItIsAndCan) {
  const auto library = NcclLibrary::Load(testing::kHostNccl);
  ASSERT_TRUE(library.ok()) << library.status().ToString();
  EXPECT_EQ((*library)->version(), 22809);
  EXPECT_THAT((*library)->Describe(),
              AllOf(HasSubstr("NCCL 2.28.9 at "), EndsWith("libnccl_host.so")));
  EXPECT_THAT(Present(**library),
              ElementsAre("scalable init", "fp8", "ncclAlltoAll", "ncclGather",
                          "ncclScatter"));
}

TEST(NcclLibraryTest, AnOlderOneCanLess) {
  const auto library = NcclLibrary::Load(testing::kHostNccl219);
  ASSERT_TRUE(library.ok()) << library.status().ToString();
  EXPECT_THAT(Present(**library), IsEmpty());
  EXPECT_EQ((*library)->api().all_to_all, nullptr);
}

TEST(NcclLibraryTest, RefusesWhatIsNotThere) {
  EXPECT_THAT(WhyNot("/nowhere/libnccl.so.2"),
              AllOf(HasSubstr("/nowhere/libnccl.so.2 cannot be loaded"),
                    HasSubstr("No such file")));
}

TEST(NcclLibraryTest, RefusesWhatIsNoLibrary) {
  const std::string path = ::testing::TempDir() + "/libtext.so";
  std::ofstream(path) << "This is not an ELF file, but it is long enough.\n";
  EXPECT_THAT(WhyNot(path), HasSubstr(path + " cannot be loaded: "));
}

TEST(NcclLibraryTest, RefusesAnotherLibrary) {
  EXPECT_EQ(WhyNot("libm.so.6"),
            "libm.so.6 is not an NCCL library: it has no ncclGetVersion");
}

TEST(NcclLibraryTest, NamesTheFunctionThatIsMissing) {
  EXPECT_THAT(WhyNot(testing::kHostNcclWithoutAllGather),
              AllOf(HasSubstr("NCCL 2.28.9 at "),
                    EndsWith("libnccl_host_without_all_gather.so has no "
                             "ncclAllGather")));
}

TEST(NcclLibraryTest, RefusesAnOldOne) {
  EXPECT_THAT(WhyNot(testing::kHostNccl213),
              AllOf(HasSubstr("NCCL 2.13.4 at "),
                    HasSubstr("is too old: 2.14.0 or newer is needed")));
}

TEST(NcclLibraryTest, LooksForTheLinkersLibraryFirst) {
  setenv("CUDA_HOME", "/home", 1);
  setenv("CUDA_PATH", "/path", 1);
  EXPECT_EQ(NcclSearchPaths(),
            (std::vector<std::string>{
                "libnccl.so.2", "/home/lib/libnccl.so.2",
                "/home/lib64/libnccl.so.2", "/path/lib/libnccl.so.2",
                "/path/lib64/libnccl.so.2", "/usr/local/cuda/lib/libnccl.so.2",
                "/usr/local/cuda/lib64/libnccl.so.2"}));
  unsetenv("CUDA_HOME");
  unsetenv("CUDA_PATH");
  EXPECT_EQ(NcclSearchPaths().size(), 3);
}

TEST(NcclLibraryTest, LooksInTheToolkit) {
  // A folder that looks like a toolkit's, with the library for tests in it. Only
  // where the dynamic linker itself finds no NCCL.
  const std::string root = ::testing::TempDir() + "/toolkit";
  std::filesystem::create_directories(root + "/lib64");
  std::filesystem::copy_file(testing::kHostNccl, root + "/lib64/libnccl.so.2",
                             std::filesystem::copy_options::overwrite_existing);
  setenv("CUDA_HOME", root.c_str(), 1);
  const auto library = NcclLibrary::Load();
  unsetenv("CUDA_HOME");
  ASSERT_TRUE(library.ok()) << library.status().ToString();
  if ((*library)->path().find("libnccl.so.2") != 0 &&
      (*library)->path().find(root) != 0) {
    GTEST_SKIP() << "this machine has " << (*library)->Describe();
  }
  EXPECT_EQ((*library)->path(), root + "/lib64/libnccl.so.2");
}

TEST(NcclLibraryTest, QuotesTheLibrarysOwnError) {
  const auto library = NcclLibrary::Load(testing::kHostNccl);
  ASSERT_TRUE(library.ok()) << library.status().ToString();
  const testing::PlantedFault fault(testing::kHostNccl, "no_id", 0);
  const auto id = (*library)->MakeUniqueId();
  EXPECT_EQ(id.status().ToString(),
            "unavailable: ncclGetUniqueId: unhandled cuda error: no device is "
            "planted here");
  EXPECT_TRUE((*library)->StatusOf(nccl::Result::kInProgress, "x").ok());
  EXPECT_EQ((*library)->StatusOf(nccl::Result::kRemoteError, "x").code(),
            StatusCode::kAborted);
  EXPECT_EQ((*library)->StatusOf(nccl::Result::kInvalidUsage, "x").code(),
            StatusCode::kInternal);
}

TEST(NcclTypesTest, EveryTypeHasItsOwn) {
  const auto library = NcclLibrary::Load(testing::kHostNccl);
  ASSERT_TRUE(library.ok()) << library.status().ToString();
  for (const DType dtype : kAllDTypes) {
    const auto reduces = NcclReductionType(**library, dtype);
    ASSERT_TRUE(reduces.ok()) << reduces.status().ToString();
    EXPECT_EQ(*reduces, NcclMovementType(**library, dtype)) << Name(dtype);
  }
  EXPECT_EQ(NcclMovementType(**library, DType::kE5M2),
            nccl::DataType::kFloat8E5M2);
}

TEST(NcclTypesTest, Fp8CameWith224) {
  const auto library = NcclLibrary::Load(testing::kHostNccl219);
  ASSERT_TRUE(library.ok()) << library.status().ToString();
  EXPECT_EQ(NcclMovementType(**library, DType::kE4M3), nccl::DataType::kUint8);
  EXPECT_EQ(
      NcclReductionType(**library, DType::kE4M3).status().ToString(),
      "unsupported: NCCL 2.19.3 cannot reduce e4m3: 2.24 was the first with "
      "fp8");
  EXPECT_TRUE(NcclReductionType(**library, DType::kBF16).ok());
}

}  // namespace
}  // namespace shardproof
