// write_exports FOLDER: every export of the sample reports, for check_exports.py
// to read, and the hostile strings themselves, one a line in hexadecimal.
#include <fmt/format.h>

#include <fstream>
#include <string>

#include "reports/exports/chrome_trace.h"
#include "reports/exports/csv.h"
#include "reports/exports/junit.h"
#include "reports/exports/openmetrics.h"
#include "reports/exports/step_summary.h"
#include "reports/exports/testing/sample_reports.h"

namespace {

bool Write(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  return out.flush().good();
}

bool WriteAll(const std::string& prefix, const shardproof::Report& report) {
  return Write(prefix + ".xml", JUnit(report)) &&
         Write(prefix + ".csv", RecordsCsv(report)) &&
         Write(prefix + ".comparisons.csv", ComparisonsCsv(report)) &&
         Write(prefix + ".openmetrics", OpenMetrics(report)) &&
         Write(prefix + ".md", StepSummary(report)) &&
         Write(prefix + ".json", ChromeTrace(report));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::string folder = argv[1];
  std::string hex;
  for (const std::string& text : shardproof::HostileStrings()) {
    for (const char c : text) {
      hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
    }
    hex += '\n';
  }
  const bool written =
      Write(folder + "/hostile.hex", hex) &&
      WriteAll(folder + "/typical", shardproof::TypicalReport()) &&
      WriteAll(folder + "/hostile", shardproof::HostileReport()) &&
      WriteAll(folder + "/empty", {});
  return written ? 0 : 1;
}
