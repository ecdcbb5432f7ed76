#include "tools/harness/runner.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <utility>

#include "tools/harness/allocator.h"
#include "tools/harness/instance_run.h"

namespace shardproof {
namespace {

// An instance of more elements leaves gigabytes behind.
constexpr int64_t kLargeElements = 1 << 24;

// As a POSIX shell reads it back.
std::string Quoted(const std::string& text) {
  constexpr std::string_view kPlain = "-_./=,:+@%";
  const bool plain =
      !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
               kPlain.find(c) != std::string_view::npos;
      });
  if (plain) return text;
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

}  // namespace

std::string ReproLine(const CaseInfo& info, const ErasedVariant& variant,
                      const Instance& instance, const RunOptions& options) {
  std::string line;
  if (options.launched) {
    line = fmt::format("mpirun -np {} ", instance.ranks);
  }
  line += fmt::format("{} --backend {} --ranks {} --filter '^{}$' --variant {}",
                      options.repro_prefix, options.backend, instance.ranks,
                      info.name,
                      Quoted((variant.mutant ? "mutant/" : "") + variant.name));
  for (const auto& [axis, value] : instance.values) {
    line +=
        fmt::format(" --axis {}", Quoted(fmt::format("{}={}", axis, value)));
  }
  line += fmt::format(" --seed {}", options.seed);
  if (options.ordinary_memory) line += " --memory ordinary";
  return line;
}

Record FailedRecord(const CaseInfo& info, const ErasedVariant& variant,
                    const Instance& instance, const RunOptions& options,
                    const Status& status) {
  Record r;
  r.case_name = info.name;
  r.variant = (variant.mutant ? "mutant/" : "") + variant.name;
  r.backend = options.backend;
  r.ranks = instance.ranks;
  r.params = instance.values;
  r.verdict = Verdict::kFailed;
  r.reason = std::string(status.message());
  r.repro = ReproLine(info, variant, instance, options);
  r.memory = options.ordinary_memory ? "ordinary" : "shared";
  r.native = variant.native;
  return r;
}

bool Kills(const Record& record) {
  switch (record.verdict) {
    case Verdict::kPassed:
    case Verdict::kUnsupported:
    case Verdict::kNotBuilt:
      return false;
    case Verdict::kIncorrect:
    case Verdict::kSuspect:
      return true;
    case Verdict::kFailed:
      return !record.reason.starts_with("blind:");
  }
  return false;
}

StatusOr<Record> RunInstance(const Communicator& comm, const CaseInfo& info,
                             const ErasedVariant& variant,
                             const Instance& instance,
                             const RunOptions& options) {
  return internal::InstanceRun(comm, info, variant, instance, options).Go();
}

Record RunOnWorld(World& world, const CaseInfo& info,
                  const ErasedVariant& variant, const Instance& instance,
                  const RunOptions& options) {
  std::mutex mutex;
  std::optional<Record> record;
  const Status status =
      world.Run(instance.ranks, [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(
            Record mine, RunInstance(comm, info, variant, instance, options));
        const std::lock_guard<std::mutex> lock(mutex);
        if (!record.has_value()) record = std::move(mine);
        return OkStatus();
      });
  if (ElementsOf(info.tensors(instance)) > kLargeElements) {
    GiveBackFreedMemory();
  }
  if (!status.ok()) {
    return FailedRecord(info, variant, instance, options, status);
  }
  if (!record.has_value()) {
    Record none = FailedRecord(info, variant, instance, options,
                               Unsupported("this process holds none of the "
                                           "ranks"));
    none.verdict = Verdict::kUnsupported;
    return none;
  }
  return *std::move(record);
}

}  // namespace shardproof
