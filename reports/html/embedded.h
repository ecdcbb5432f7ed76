// The styles and scripts of the report, put into the program when it is built
// (embed.py), and their SHA-256 as a Content-Security-Policy names them.
#ifndef SHARDPROOF_REPORTS_HTML_EMBEDDED_H_
#define SHARDPROOF_REPORTS_HTML_EMBEDDED_H_

#include <string_view>

namespace shardproof::html {

std::string_view Style();         // report.css
std::string_view ThemeScript();   // theme.js: before the page is drawn.
std::string_view ChartLibrary();  // Chart.js, with its licence notice.
std::string_view Script();        // charts.js and report.js
// "'sha256-...' 'sha256-...'"
std::string_view StyleHash();
std::string_view ScriptHashes();

}  // namespace shardproof::html

#endif  // SHARDPROOF_REPORTS_HTML_EMBEDDED_H_
