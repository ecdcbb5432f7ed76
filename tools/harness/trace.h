// What crosses between ranks in one execution of a variant, seen and not
// declared: for people who want to understand a scheme.
#ifndef SHARDPROOF_TOOLS_HARNESS_TRACE_H_
#define SHARDPROOF_TOOLS_HARNESS_TRACE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/traffic.h"
#include "tools/harness/registry.h"
#include "tools/harness/world.h"

namespace shardproof {

// Bytes that go from one rank to another within a step.
struct TraceTransfer {
  int from = 0, to = 0;
  int64_t bytes = 0;  // Added up over `messages`.
  int64_t messages = 0;
  friend bool operator==(const TraceTransfer&, const TraceTransfer&) = default;
};

enum class TraceKind {
  kMessage,  // Sent by `from`.
  kLoad,     // Loaded by `to` from the memory of `from`.
  kStore     // Stored by `from` to the memory of `to`.
};
// "message", "load", "store".
std::string_view Name(TraceKind kind);

// What can be under way at the same time. A message belongs to the step after
// the last that its sender has received from; loads and stores of one meeting
// are one step.
struct TraceStep {
  int number = 1;
  std::string operation;  // "all_reduce/ring"
  TraceKind kind = TraceKind::kMessage;
  std::vector<TraceTransfer> transfers;  // Sorted by (from, to).
};

struct Trace {
  std::vector<TraceStep> steps;  // In order.
  Traffic total;                 // As the communicators counted.
  // Some of it went through sub-communicators, where ranks have other numbers:
  // transfers name those, and steps are counted on each rank by itself.
  bool in_groups = false;
};

// Runs `variant` once at `instance`. Errors: a variant that is not supported
// here (kUnsupported with the reason) or fails.
StatusOr<Trace> TraceSteps(World& world, const CaseInfo& info,
                           const ErasedVariant& variant,
                           const Instance& instance, uint64_t seed = 1);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_TRACE_H_
