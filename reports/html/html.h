// The report as one self-contained HTML file, for three readers: who decides
// on a change (gate), who runs the network (interconnect) and who writes the
// kernels (kernel); and the layers, as pictures of who holds what.
//
//     std::ofstream("report.html") << Html(report);
//
// Contract: valid HTML that needs no network, readable without scripts (every
// chart stands beside a table), with a Content-Security-Policy that runs no
// script but the two in this file, known by their SHA-256. Whatever the members
// of `report` hold (markup, invalid UTF-8, NaN), they are shown as text.
// A page without data says which command would bring it. Large reports are
// thinned: each table says how many of how many rows it shows.
// Errors: none.
//
// Charts: Chart.js 3.9 (MIT, its notice is kept), embedded when this is built.
#ifndef SHARDPROOF_REPORTS_HTML_HTML_H_
#define SHARDPROOF_REPORTS_HTML_HTML_H_

#include <string>

#include "reports/report.h"

namespace shardproof {

std::string Html(const Report& report);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_HTML_HTML_H_
