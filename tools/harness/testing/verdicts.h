// For tests of the runner: variants that are right but for one thing, and what
// is expected of their records.
#ifndef SHARDPROOF_TOOLS_HARNESS_TESTING_VERDICTS_H_
#define SHARDPROOF_TOOLS_HARNESS_TESTING_VERDICTS_H_

#include <gtest/gtest.h>

#include <string_view>
#include <utility>

#include "reports/record.h"
#include "tools/harness/testing/toy_case.h"

namespace shardproof::testing {

inline CaseInfo Only(Variant<Toy> variant) {
  return Erase(ToyCase({std::move(variant)}));
}

// A variant that is right but for what `spoil` does.
inline Record RunSpoiled(const Spoil& spoil, const Toy& toy,
                         const RunOptions& options = {}) {
  return RunToy(Only(ToyVariant("v", spoil)), "v", toy, options);
}

inline bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace shardproof::testing

#define EXPECT_VERDICT(record, wanted, part)                                   \
  do {                                                                         \
    const ::shardproof::Record& r_ = (record);                                 \
    EXPECT_EQ(Name(r_.verdict), Name(wanted)) << r_.reason;                    \
    EXPECT_TRUE(::shardproof::testing::Contains(r_.reason, part))              \
        << r_.reason;                                                          \
    EXPECT_EQ(r_.repro.empty(), r_.verdict == ::shardproof::Verdict::kPassed); \
  } while (false)

#endif  // SHARDPROOF_TOOLS_HARNESS_TESTING_VERDICTS_H_
