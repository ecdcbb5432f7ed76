#include "tools/cli/plan.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <fstream>
#include <sstream>
#include <utility>

#include "reports/key.h"
#include "tools/harness/runner.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kMostShare = 10;

// `operation`, and then a wait of `share` of what it took. The stream is waited
// for: what runs there belongs to the operation.
Status RunSlowed(const Operation& operation, const Stream& stream,
                 double share) {
  const Clock::time_point start = Clock::now();
  SP_RETURN_IF_ERROR(operation());
  SP_RETURN_IF_ERROR(stream.Synchronize());
  const Clock::time_point end = Clock::now();
  const auto until =
      end + std::chrono::duration_cast<Clock::duration>((end - start) * share);
  while (Clock::now() < until) {
  }
  return OkStatus();
}

}  // namespace

StatusOr<Plan> ParsePlan(const std::string& text, const std::string& name) {
  Plan plan;
  std::istringstream in(text);
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    const size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string::npos || line[first] == '#') continue;
    double share = 0;
    const char* end = line.data() + line.size();
    const auto [stop, error] = std::from_chars(line.data() + first, end, share);
    const size_t key =
        line.find_first_not_of(" \t", static_cast<size_t>(stop - line.data()));
    if (error != std::errc() || !(share >= 0 && share <= kMostShare) ||
        stop == end || (*stop != ' ' && *stop != '\t') ||
        key == std::string::npos) {
      return InvalidArgument(
          "{}, line {}: \"{}\" is not a share (0 to {}) and a key", name,
          number, line, kMostShare);
    }
    plan[line.substr(key)] = share;
  }
  return plan;
}

StatusOr<Plan> ReadPlan(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  if (!in.is_open() || in.bad()) {
    return Unavailable("--plan: cannot read {}", path);
  }
  return ParsePlan(text.str(), path);
}

std::string PlanText(const Plan& plan) {
  std::string text;
  for (const auto& [key, share] : plan) {
    text += fmt::format("{} {}\n", share, key);
  }
  return text;
}

ErasedVariant Slowed(const ErasedVariant& variant, double share) {
  ErasedVariant slowed = variant;
  slowed.bind = [bind = variant.bind, share](
                    const Instance& instance,
                    RankContext& context) -> StatusOr<Operation> {
    SP_ASSIGN_OR_RETURN(Operation operation, bind(instance, context));
    if (context.comm().rank() + 1 != context.comm().size()) return operation;
    const Stream* stream = &context.stream();
    return Operation([operation = std::move(operation), stream, share] {
      return RunSlowed(operation, *stream, share);
    });
  };
  return slowed;
}

std::string KeyOf(const Job& job, const Options& options,
                  std::string_view backend) {
  RunOptions run;
  run.backend = std::string(backend);
  run.ordinary_memory = options.memory == "ordinary";
  Record record =
      FailedRecord(*job.info, *job.variant, job.instance, run, OkStatus());
  record.time_us = Record::Time{};
  record.time_us->cadence = options.cadence;
  return KeyOf(record);
}

std::vector<Job> Planned(const std::vector<Job>& jobs, const Plan& plan,
                         const Options& options, std::string_view backend,
                         std::list<ErasedVariant>& owned) {
  std::vector<Job> chosen;
  for (const Job& job : jobs) {
    const auto found = plan.find(KeyOf(job, options, backend));
    if (found == plan.end()) continue;
    chosen.push_back(job);
    if (found->second <= 0) continue;
    owned.push_back(Slowed(*job.variant, found->second));
    chosen.back().variant = &owned.back();
  }
  return chosen;
}

}  // namespace shardproof
