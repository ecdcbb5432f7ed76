// What is found, where, and what is said of files that cannot be loaded. The library of the tests is that of mathematics,
// which every machine has.
#include "collectives/backend/cuda/library/shared_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace shardproof {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kMath[] = "libm.so.6";

std::string WhyNot(const std::vector<std::string>& paths) {
  const auto file = SharedLibrary::Open("fish", paths);
  EXPECT_EQ(file.status().code(), StatusCode::kUnavailable);
  const std::string why(file.status().message());
  EXPECT_THAT(why, Not(HasSubstr("\n")));
  return why;
}

SharedLibrary Math() { return *SharedLibrary::Open("fish", {kMath}); }

TEST(SharedLibraryTest, FindsFunctionsAndTheirFile) {
  const SharedLibrary file = Math();
  double (*cosine)(double) = nullptr;
  file.Want("cos", cosine);
  ASSERT_NE(cosine, nullptr);
  EXPECT_EQ(cosine(0), 1);
  EXPECT_EQ(file.path(), kMath);
  EXPECT_THAT(file.PathOf(cosine),
              AllOf(StartsWith("/"), EndsWith("/libm.so.6")));
  EXPECT_TRUE(file.Has("sin"));
  EXPECT_FALSE(file.Has("cosineOfAnotherName"));
}

TEST(SharedLibraryTest, RemembersTheFirstFunctionThatIsMissing) {
  SharedLibrary file = Math();
  double (*function)(double) = nullptr;
  file.Need("sin", function);
  EXPECT_EQ(file.missing(), "");
  file.Want("wanted", function);
  EXPECT_EQ(file.missing(), "");
  file.Need("first", function);
  EXPECT_EQ(function, nullptr);
  file.Need("second", function);
  file.Need("cos", function);
  EXPECT_NE(function, nullptr);
  EXPECT_EQ(file.missing(), "first");
}

TEST(SharedLibraryTest, SaysWhyAFileCannotBeLoaded) {
  EXPECT_THAT(WhyNot({"/nowhere/libfish.so"}),
              AllOf(StartsWith("the fish library /nowhere/libfish.so cannot be "
                               "loaded: "),
                    HasSubstr("No such file")));
  EXPECT_THAT(WhyNot({"libfish.so.17"}), HasSubstr("libfish.so.17 cannot be"));
  EXPECT_EQ(WhyNot({}), "there is no fish");
}

TEST(SharedLibraryTest, SaysThatAFileIsNoLibrary) {
  const std::string path = ::testing::TempDir() + "/libtext.so";
  std::ofstream(path) << std::string(4096, 'x');
  EXPECT_THAT(WhyNot({path}), AllOf(HasSubstr(path + " cannot be loaded: "),
                                    HasSubstr("invalid ELF header")));
  std::ofstream(path) << "";
  EXPECT_THAT(WhyNot({path}), HasSubstr("file too short"));
  EXPECT_THAT(WhyNot({::testing::TempDir()}), HasSubstr("cannot be loaded"));
}

TEST(SharedLibraryTest, TakesTheFirstThatCanBeOpened) {
  const auto file =
      SharedLibrary::Open("fish", {"/nowhere/libfish.so", kMath, "libc.so.6"});
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_EQ(file->path(), kMath);
  EXPECT_EQ(WhyNot({"/a/libfish.so", "/b/libfish.so", "/c/libfish.so"}),
            "there is no fish: nothing from /a/libfish.so to /c/libfish.so can "
            "be opened");
}

TEST(SharedLibraryTest, IsClosedUnlessItIsKept) {
  // A copy, which nothing else in this process has loaded.
  const std::string copy = ::testing::TempDir() + "/libcopy.so";
  double (*cosine)(double) = nullptr;
  {
    const SharedLibrary file = Math();
    file.Want("cos", cosine);
    std::ofstream(copy, std::ios::binary)
        << std::ifstream(file.PathOf(cosine), std::ios::binary).rdbuf();
  }
  const auto loaded = [&] {
    std::ifstream maps("/proc/self/maps");
    const std::string all{std::istreambuf_iterator<char>(maps), {}};
    return all.find("libcopy.so") != std::string::npos;
  };
  {
    const SharedLibrary file = *SharedLibrary::Open("fish", {copy});
    EXPECT_TRUE(loaded());
  }
  EXPECT_FALSE(loaded());
  {
    SharedLibrary file = *SharedLibrary::Open("fish", {copy});
    file.Keep();
  }
  EXPECT_TRUE(loaded());
}

TEST(SharedLibraryTest, SeveralThreadsOpenAtOnce) {
  constexpr int kThreads = 4;
  std::vector<std::string> paths(kThreads);
  std::vector<std::thread> threads;
  for (std::string& path : paths) {
    threads.emplace_back([&path] {
      const SharedLibrary file = Math();
      double (*cosine)(double) = nullptr;
      file.Want("cos", cosine);
      path = file.PathOf(cosine);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(paths, ::testing::Each(EndsWith("/libm.so.6")));
}

TEST(LibrarySearchPathsTest, AreTheLinkersThenThoseOfTheToolkit) {
  setenv("CUDA_HOME", "/home", 1);
  setenv("CUDA_PATH", "/path", 1);
  EXPECT_THAT(
      LibrarySearchPaths({"a", "b"}),
      ElementsAre("a", "b", "/home/lib/a", "/home/lib/b", "/home/lib64/a",
                  "/home/lib64/b", "/path/lib/a", "/path/lib/b",
                  "/path/lib64/a", "/path/lib64/b", "/usr/local/cuda/lib/a",
                  "/usr/local/cuda/lib/b", "/usr/local/cuda/lib64/a",
                  "/usr/local/cuda/lib64/b"));
  unsetenv("CUDA_HOME");
  unsetenv("CUDA_PATH");
  EXPECT_THAT(
      LibrarySearchPaths({"a"}),
      ElementsAre("a", "/usr/local/cuda/lib/a", "/usr/local/cuda/lib64/a"));
}

}  // namespace
}  // namespace shardproof
