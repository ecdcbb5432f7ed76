// The pages of the report, one file each.
#ifndef SHARDPROOF_REPORTS_HTML_PAGES_H_
#define SHARDPROOF_REPORTS_HTML_PAGES_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "reports/html/chart.h"
#include "reports/html/markup.h"
#include "reports/report.h"

namespace shardproof::html {

// What the pages share.
struct Page {
  const Report& report;
  Writer& w;
  Charts& charts;
};

void GatePage(Page page);
void InterconnectPage(Page page);
void KernelPage(Page page);
void LayersPage(Page page);

// Parts of the gate page.
void EnvironmentSection(Page page);
void LeftOutSection(Page page);
// Parts of the kernel page, which is long.
void HistorySection(Page page);
void SliceSection(Page page);
void SampleSection(Page page);  // ECDF by launch, ranks over iterations.
void RecordSection(Page page);  // Roofline, distance to the bound, all records.
// Parts of the interconnect page.
void FitSection(Page page);
void PairSection(Page page);

// A verdict or a change as a word with a symbol, so that it is not told by
// colour alone: `kind` is a name of Verdict or Change, or a kind of finding.
Markup Badge(std::string_view kind);
// "mpi", or "mpi of node3" in a report over several machines.
inline std::string Of(const std::string& backend, const std::string& machine) {
  return machine.empty() ? backend : backend + " of " + machine;
}
// In place of what is not there: what would bring it.
void Missing(Writer& w, std::string_view what, std::string_view command);

// The records of one key, one per launch that has it, in the order of launches.
struct Measured {
  std::string key = {};
  struct In {
    size_t launch = 0;
    const Record* record = nullptr;
  };
  std::vector<In> in = {};
  // The worst over launches that is neither unsupported nor not built.
  const Record* shown = nullptr;
  // The median of the launches' medians, us; NaN where there is no time.
  double median_us = 0;
};
// In the order of appearance.
std::vector<Measured> ByKey(const Report& report);
const Comparison* FindComparison(const Report& report, std::string_view key);

// The picture of one tensor's blocks, and of what moves.
Markup TensorPicture(const ShardDiagram::Tensor& tensor, int ranks);
Markup StepsPicture(const ShardDiagram& diagram);

}  // namespace shardproof::html

#endif  // SHARDPROOF_REPORTS_HTML_PAGES_H_
