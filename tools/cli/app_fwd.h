// What takes flags, for headers: <CLI/CLI.hpp> itself takes a compiler four
// seconds.
#ifndef SHARDPROOF_TOOLS_CLI_APP_FWD_H_
#define SHARDPROOF_TOOLS_CLI_APP_FWD_H_

namespace CLI {  // NOLINT(readability-identifier-naming): the library's
class App;
}  // namespace CLI

#endif  // SHARDPROOF_TOOLS_CLI_APP_FWD_H_
