// This program once more, as a child: for what a sanitizer says of a planted race, since it says it by ending the
// process.
//
//     if (const char* reason = NoThreadSanitizer()) GTEST_SKIP() << reason;
//     const ChildResult child = RunSelf({"--planted=weak_release"});
//     EXPECT_NE(child.output.find("data race"), std::string::npos);
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_TESTING_CHILD_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_TESTING_CHILD_H_

#include <string>
#include <vector>

namespace shardproof::cuda::testing {

// Null where this program is built with ThreadSanitizer; else why a test of it is skipped.
const char* NoThreadSanitizer();

struct ChildResult {
  int exit_code = -1;  // -1: it did not end by itself, or could not be started.
  std::string output;  // stdout and stderr.
};

ChildResult RunSelf(const std::vector<std::string>& arguments);

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_TESTING_CHILD_H_
