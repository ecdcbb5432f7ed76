#include "tools/cli/exit_code.h"

#include <algorithm>
#include <array>

namespace shardproof {

ExitCode Worse(ExitCode a, ExitCode b) {
  static constexpr std::array kWorstFirst = {
      kExitInterrupted, kExitUsage,        kExitMismatch,
      kExitHang,        kExitBackend,      kExitInvalid,
      kExitRegression,  kExitInconclusive, kExitPass};
  const auto rank = [](ExitCode code) {
    return std::find(kWorstFirst.begin(), kWorstFirst.end(), code);
  };
  return rank(a) <= rank(b) ? a : b;
}

ExitCode ExitCodeOf(const Status& status) {
  switch (status.code()) {
    case StatusCode::kOk:
      return kExitPass;
    case StatusCode::kDataLoss:
      return kExitInvalid;
    case StatusCode::kTimeout:
      return kExitHang;
    case StatusCode::kUnavailable:
    case StatusCode::kAborted:
    case StatusCode::kInternal:
      return kExitBackend;
    default:
      return kExitUsage;
  }
}

}  // namespace shardproof
