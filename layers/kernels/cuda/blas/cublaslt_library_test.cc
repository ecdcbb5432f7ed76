// Libraries that can be loaded, and what is said of those that cannot.
#include "layers/kernels/cuda/blas/cublaslt_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "layers/kernels/cuda/blas/testing/host_blas.h"

namespace shardproof {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

std::string WhyNot(const std::string& path) {
  const auto library = CublasLtLibrary::Load(path);
  EXPECT_EQ(library.status().code(), StatusCode::kUnavailable) << path;
  const std::string why(library.status().message());
  EXPECT_THAT(why, Not(HasSubstr("\n")));
  return why;
}

TEST(CublasLtVersionTextTest, KnowsBothCodings) {
  EXPECT_EQ(CublasLtVersionText(130100), "13.1.0");
  EXPECT_EQ(CublasLtVersionText(120402), "12.4.2");
  EXPECT_EQ(CublasLtVersionText(11902), "11.9.2");
}

TEST(CublasLtLibraryTest, SaysWhatItIs) {
  const auto library = CublasLtLibrary::Load(testing::kHostCublasLt);
  ASSERT_TRUE(library.ok()) << library.status().ToString();
  EXPECT_EQ((*library)->version(), 130100);
  EXPECT_TRUE((*library)->emulated());
  EXPECT_THAT((*library)->Describe(), AllOf(HasSubstr("cuBLASLt 13.1.0 at "),
                                            EndsWith("libcublaslt_host.so")));
  const auto real = CublasLtLibrary::Load(testing::kHostCublasLtForGpus);
  ASSERT_TRUE(real.ok()) << real.status().ToString();
  EXPECT_FALSE((*real)->emulated());
}

TEST(CublasLtLibraryTest, RefusesWhatIsNotThere) {
  EXPECT_THAT(WhyNot("/nowhere/libcublasLt.so.13"),
              AllOf(HasSubstr("/nowhere/libcublasLt.so.13 cannot be loaded"),
                    HasSubstr("No such file")));
}

TEST(CublasLtLibraryTest, RefusesWhatIsNoLibrary) {
  const std::string path = ::testing::TempDir() + "/libtext.so";
  std::ofstream(path) << "This is not an ELF file, but it is long enough.\n";
  EXPECT_THAT(WhyNot(path), HasSubstr(path + " cannot be loaded: "));
}

TEST(CublasLtLibraryTest, RefusesAnotherLibrary) {
  EXPECT_EQ(
      WhyNot("libm.so.6"),
      "libm.so.6 is not a cuBLASLt library: it has no cublasLtGetVersion");
}

TEST(CublasLtLibraryTest, NamesTheFunctionThatIsMissing) {
  EXPECT_THAT(WhyNot(testing::kHostCublasLtWithoutMatmul),
              AllOf(HasSubstr("cuBLASLt 12.4.2 at "),
                    EndsWith("libcublaslt_host_without_matmul.so has no "
                             "cublasLtMatmul")));
}

TEST(CublasLtLibraryTest, RefusesAnOldOne) {
  EXPECT_THAT(WhyNot(testing::kHostCublasLt119),
              AllOf(HasSubstr("cuBLASLt 11.9.2 at "),
                    HasSubstr("is too old: 12.0 or newer is needed")));
}

TEST(CublasLtLibraryTest, LooksForTheLinkersLibraryFirst) {
  setenv("CUDA_HOME", "/home", 1);
  unsetenv("CUDA_PATH");
  EXPECT_EQ(CublasLtSearchPaths(),
            (std::vector<std::string>{
                "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so",
                "/home/lib/libcublasLt.so.13", "/home/lib/libcublasLt.so.12",
                "/home/lib/libcublasLt.so", "/home/lib64/libcublasLt.so.13",
                "/home/lib64/libcublasLt.so.12", "/home/lib64/libcublasLt.so",
                "/usr/local/cuda/lib/libcublasLt.so.13",
                "/usr/local/cuda/lib/libcublasLt.so.12",
                "/usr/local/cuda/lib/libcublasLt.so",
                "/usr/local/cuda/lib64/libcublasLt.so.13",
                "/usr/local/cuda/lib64/libcublasLt.so.12",
                "/usr/local/cuda/lib64/libcublasLt.so"}));
  unsetenv("CUDA_HOME");
  EXPECT_EQ(CublasLtSearchPaths().size(), 9);
}

TEST(CublasLtLibraryTest, LooksInTheToolkit) {
  // A folder that looks like a toolkit's, with the library for tests in it. Only where the dynamic linker itself finds no
  // cuBLASLt.
  const std::string root = ::testing::TempDir() + "/toolkit";
  std::filesystem::create_directories(root + "/lib64");
  std::filesystem::copy_file(testing::kHostCublasLt,
                             root + "/lib64/libcublasLt.so.12",
                             std::filesystem::copy_options::overwrite_existing);
  setenv("CUDA_HOME", root.c_str(), 1);
  const auto library = CublasLtLibrary::Load();
  unsetenv("CUDA_HOME");
  ASSERT_TRUE(library.ok()) << library.status().ToString();
  if ((*library)->path().find(root) != 0 && !(*library)->emulated()) {
    GTEST_SKIP() << "this machine has " << (*library)->Describe();
  }
  EXPECT_EQ((*library)->path(), root + "/lib64/libcublasLt.so.12");
}

TEST(CublasLtLibraryTest, NamesTheStatus) {
  const auto library = CublasLtLibrary::Load(testing::kHostCublasLt);
  ASSERT_TRUE(library.ok()) << library.status().ToString();
  using cublaslt::Result;
  EXPECT_TRUE((*library)->StatusOf(Result::kSuccess, "x").ok());
  EXPECT_EQ((*library)->StatusOf(Result::kExecutionFailed, "x").ToString(),
            "internal error: x: CUBLAS_STATUS_EXECUTION_FAILED");
  EXPECT_EQ((*library)->StatusOf(Result::kAllocFailed, "x").code(),
            StatusCode::kOutOfMemory);
  EXPECT_EQ((*library)->StatusOf(Result::kNotSupported, "x").code(),
            StatusCode::kUnsupported);
}

}  // namespace
}  // namespace shardproof
