// What each verdict becomes. That it is XML is exports_test's.
#include "reports/exports/junit.h"

#include <gtest/gtest.h>

#include <string>

#include "reports/exports/testing/sample_reports.h"
#include "reports/key.h"

namespace shardproof {
namespace {

// The testcase whose name begins so, to its end.
std::string TestCaseOf(const std::string& xml, const std::string& name) {
  const size_t at = xml.find(" name=\"" + name);
  EXPECT_NE(at, std::string::npos) << name;
  if (at == std::string::npos) return "";
  const size_t begin = xml.rfind("<testcase", at);
  return xml.substr(begin, xml.find("</testcase>", at) - begin);
}

bool Has(const std::string& text, const std::string& what) {
  return text.find(what) != std::string::npos;
}

TEST(JUnit, VerdictsOfRecords) {
  const std::string xml = JUnit(TypicalReport());
  const auto of = [&](const std::string& name) {
    return TestCaseOf(xml, name);
  };
  const std::string ring = of("ring thread 2 dtype=f32 count=1024\"");
  EXPECT_TRUE(Has(ring, "classname=\"collectives.all_reduce\"")) << ring;
  EXPECT_TRUE(Has(ring, "<property name=\"median_us\" value=\"100\"/>"));
  EXPECT_TRUE(Has(ring, "<property name=\"busbw_gbps\" value=\"3\"/>"));
  EXPECT_FALSE(Has(ring, "<failure") || Has(ring, "<error") ||
               Has(ring, "<skipped"));
  const std::string wrong = of("wrong");
  EXPECT_TRUE(Has(wrong,
                  "<failure type=\"incorrect\" message=\"1 of 4 elements is "
                  "wrong\">1 of 4 elements is wrong\nrank 1 missing\n"
                  "y[3, 1] on rank 2: 0.5 expected, got -0.25\n"
                  "reproduce: shardproof verify --filter rms_norm</failure>"))
      << wrong;
  EXPECT_TRUE(Has(of("doubtful"), "<failure type=\"suspect\""));
  EXPECT_TRUE(Has(of("crashed"), "<error type=\"failed\""));
  EXPECT_TRUE(Has(of("native"), "<skipped message=\"no such operation\"/>"));
  EXPECT_TRUE(Has(of("device"), "<skipped message=\"CUDA is not built\"/>"));
  const std::string known = of("known");
  EXPECT_TRUE(Has(known,
                  "<skipped message=\"quarantined by ada: ticket 7, until "
                  "2027-01-01: an old one\"/>"))
      << known;
  EXPECT_FALSE(Has(known, "<failure"));
}

TEST(JUnit, ChangesOfComparisons) {
  const std::string all = JUnit(TypicalReport());
  const std::string xml = all.substr(all.find("name=\"performance\""));
  const auto of = [&](const std::string& name) {
    return TestCaseOf(xml, name);
  };
  EXPECT_TRUE(Has(of("slower"),
                  "<failure type=\"regressed\" message=\"because of slower\">"
                  "because of slower\nreproduce: shardproof ab"));
  EXPECT_TRUE(Has(of("slower"), "<property name=\"effect\" value=\"0.12\"/>"));
  EXPECT_TRUE(Has(of("tree"), "<skipped message=\"quarantined by bob: new"));
  EXPECT_TRUE(Has(of("hot"), "<error type=\"invalid\""));
  EXPECT_TRUE(Has(of("noisy"), "<skipped message=\"because of noisy\"/>"));
  EXPECT_TRUE(Has(of("counted"), "<failure type=\"inconclusive\""));
  EXPECT_FALSE(Has(of("direct"), "<skipped"));
  // What is missing has no comparison, and is a testcase all the same.
  const std::string gone = of("ring thread 2 count=1");
  EXPECT_TRUE(Has(gone, "classname=\"collectives.gone\"")) << gone;
  EXPECT_TRUE(Has(gone, "<error type=\"missing\""));
}

TEST(JUnit, AFindingInQuarantineHidesNoOther) {
  Report report = TypicalReport();
  auto finding = report.gate->findings[3];
  ASSERT_TRUE(finding.quarantined);
  finding.quarantined = false;
  report.gate->findings.push_back(finding);
  EXPECT_TRUE(Has(TestCaseOf(JUnit(report), "known"), "<failure"));
}

TEST(JUnit, SeveralLaunchesAreToldApart) {
  Report report = TypicalReport();
  report.launches.push_back(report.launches[0]);
  report.launches[1].name = "second.json";
  const std::string xml = JUnit(report);
  EXPECT_TRUE(Has(xml, "count=1024 [results.json]\""));
  EXPECT_TRUE(Has(xml, "count=1024 [second.json]\""));
}

}  // namespace
}  // namespace shardproof
