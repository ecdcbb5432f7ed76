// Writes a report to look at: sample_report rich|empty|hostile|large FILE
#include <cstdio>
#include <fstream>
#include <string>

#include "reports/html/html.h"
#include "reports/html/testing/sample.h"

int main(int argc, char** argv) {
  const std::string kind = argc == 3 ? argv[1] : "";
  shardproof::Report report;
  if (kind == "rich") {
    report = shardproof::testing::RichReport();
  } else if (kind == "hostile") {
    report = shardproof::testing::HostileReport();
  } else if (kind == "large") {
    report = shardproof::testing::LargeReport(2000);
  } else if (kind != "empty") {
    std::fputs("usage: sample_report rich|empty|hostile|large FILE\n", stderr);
    return 2;
  }
  std::ofstream out(argv[2], std::ios::binary);
  out << shardproof::Html(report);
  out.close();
  return out ? 0 : 1;
}
