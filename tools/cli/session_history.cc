// What a session keeps in the history.
#include <fmt/format.h>

#include <cstdio>
#include <utility>

#include "tools/cli/session.h"

namespace shardproof {

// A history that was asked for by name and cannot be had is an error; the usual
// one is a convenience, and its want is said.
Status Session::BeginHistory() {
  const bool named = !options_.history.empty();
  if (!named && !options_.keep) return OkStatus();
  const auto begin = [&]() -> Status {
    SP_ASSIGN_OR_RETURN(Store store, Store::Open(named ? options_.history
                                                       : Store::DefaultPath()));
    Store::Start start{.command = options_.command_line,
                       .started = started_,
                       .name = options_.json,
                       .before = conditions_.before()};
    start.fingerprint = CollectFingerprint(options_.label);
    SP_ASSIGN_OR_RETURN(launch_, store.BeginLaunch(start));
    history_.emplace(std::move(store));
    return OkStatus();
  };
  const Status begun = begin();
  if (begun.ok() || named) return begun;
  fmt::print(stderr, "shardproof: nothing goes into the history: {}\n",
             begun.message());
  return OkStatus();
}

void Session::KeepInHistory(const Record& record) {
  if (!history_.has_value()) return;
  // Thousands of passes without a time would bury what changes.
  const bool told =
      record.time_us.has_value() || (record.verdict != Verdict::kPassed &&
                                     record.verdict != Verdict::kUnsupported);
  if (!told) return;
  const Status added = history_->Add(launch_, record);
  if (added.ok()) return;
  fmt::print(stderr, "shardproof: {}: no more goes into the history\n",
             added.message());
  Note(kExitInvalid);
  history_.reset();
}

void Session::EndHistory(const ResultEnd& end, const Conditions& after) {
  if (!history_.has_value()) return;
  const Status ended =
      history_->EndLaunch(launch_, {.finished = end.finished,
                                    .complete = !end.interrupted,
                                    .interrupted = end.interrupted,
                                    .left_out = end.left_out,
                                    .after = after});
  if (!ended.ok()) {
    fmt::print(stderr, "shardproof: {}\n", ended.message());
    Note(kExitInvalid);
  }
}

}  // namespace shardproof
