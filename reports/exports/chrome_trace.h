// The samples of every rank as a Chrome trace: chrome://tracing, Perfetto.
//
// One process per launch and key, one thread per rank, one event per sample;
// where a record holds no samples of ranks, one thread with the slowest rank's.
// Samples are thinned and have no clock, so event i of every rank begins where
// the slowest rank ended sample i - 1: widths are measured, gaps say who waited.
//
// Contract: valid JSON in UTF-8. Samples that are no times are left out. At
// most kTraceEvents events: "left_out" in otherData counts the records beyond.
//
// Source: Trace Event Format, Google, 2016 ("X" and "M" events; us).
#ifndef SHARDPROOF_REPORTS_EXPORTS_CHROME_TRACE_H_
#define SHARDPROOF_REPORTS_EXPORTS_CHROME_TRACE_H_

#include <string>

#include "reports/report.h"

namespace shardproof {

inline constexpr int kTraceEvents = 200000;  // About 20 MB.

std::string ChromeTrace(const Report& report);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_EXPORTS_CHROME_TRACE_H_
