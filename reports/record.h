// What is known about one variant of one instance of a case: the record of
// result schema 1.
//
//     Record r{.case_name = "collectives/all_reduce", .variant = "ring", ...};
//     out << ToJson(r).dump();
//     SP_ASSIGN_OR_RETURN(Record again, RecordFromJson(json));   // again == r
//
// Contract: RecordFromJson(ToJson(r)) gives r back, and unknown members are
// ignored, so that a newer writer does not break an older reader. A missing
// or mistyped member that the schema requires (case, variant, backend, ranks,
// verdict) is kInvalidArgument and names the member.
//
// JSON has no NaN and no infinity. They are written as the strings "NaN",
// "Infinity" and "-Infinity", and null is read as NaN.
#ifndef SHARDPROOF_REPORTS_RECORD_H_
#define SHARDPROOF_REPORTS_RECORD_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "reference/status.h"

namespace shardproof {

enum class Verdict : uint8_t {
  kPassed,
  kIncorrect,    // A check found a wrong answer.
  kSuspect,      // Between the likely and the certain bound.
  kFailed,       // Crash, hang, error, or a case that cannot see mistakes.
  kUnsupported,  // Has a meaning, but not here; `reason` says why.
  kNotBuilt      // The backend is not compiled in.
};
// "passed", "incorrect", "suspect", "failed", "unsupported", "not_built".
std::string_view Name(Verdict verdict);
StatusOr<Verdict> ParseVerdict(std::string_view name);

// Enough for a distribution function, and for a picture of ranks over time.
inline constexpr int kKeptSamples = 200;
inline constexpr int kKeptRankSamples = 48;

struct Record {
  struct Mismatch {
    std::string tensor = {};
    int rank = 0;
    std::vector<int64_t> index = {};  // In the tensor that the rank holds.
    double expected = 0, got = 0;
    friend bool operator==(const Mismatch&, const Mismatch&) = default;
  };
  // The worst over ranks, outputs and executions of one tier.
  struct Error {
    std::string tier = {};  // "exact" or "bounded": the one that decided.
    double worst_ratio = 0, max_abs = 0, max_ulp = 0;
    std::optional<double> gain = {};  // Where one was taken.
    int64_t compared = 0;             // Elements, over all ranks.
    std::vector<Mismatch> mismatches = {};
    std::string diagnosis = {};  // "rank 3 counted twice in chunks 4 to 7"
    friend bool operator==(const Error&, const Error&) = default;
  };
  // Microseconds per operation; a sample is the maximum over ranks.
  struct Time {
    double median = 0, p10 = 0, p90 = 0, min = 0, max = 0;
    double interval_low = 0, interval_high = 0;  // Of the median, 95 percent.
    int samples = 0;
    int operations_per_sample = 1;
    std::string cadence = "isolated";  // or "streaming"
    std::vector<double> per_rank_median = {};
    // In the order of time, evenly thinned: at most kKeptSamples of the
    // maxima over ranks, and at most kKeptRankSamples of each rank.
    std::vector<double> samples_us = {};
    std::vector<std::vector<double>> rank_samples_us = {};
    std::vector<std::string> flags = {};  // "warm-up did not settle", ...
    friend bool operator==(const Time&, const Time&) = default;
  };
  // Over all ranks, for one operation.
  struct Traffic {
    int64_t bytes = 0, messages = 0;
    std::optional<int64_t> predicted_bytes = {}, predicted_messages = {};
    friend bool operator==(const Traffic&, const Traffic&) = default;
  };

  std::string case_name = {}, variant = {}, backend = {};
  int ranks = 1;
  // (axis, value as text) in axis order. In JSON an object whose integers and
  // booleans are such.
  std::vector<std::pair<std::string, std::string>> params = {};
  Verdict verdict = Verdict::kFailed;
  std::string reason = {};        // Empty when passed.
  std::string repro = {};         // A command line; empty when passed.
  std::string memory = "shared";  // or "ordinary": peers cannot address it
  bool native = false;            // The library under test, not ours.
  std::optional<Error> error = {};
  std::optional<Time> time_us = {};
  std::optional<double> algbw_gbps = {},
                        busbw_gbps = {};  // 1e9 bytes per second.
  std::optional<double> gflops = {};
  std::optional<double> predicted_us = {}, floor_us = {};
  std::optional<Traffic> traffic = {};
  bool emulated = false;  // Several ranks on one GPU: no bus bandwidth.

  friend bool operator==(const Record&, const Record&) = default;
};

nlohmann::ordered_json ToJson(const Record& record);
StatusOr<Record> RecordFromJson(const nlohmann::ordered_json& json);

// "dtype=f32 count=1024": how a person names an instance.
std::string ParamsText(const Record& record);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_RECORD_H_
