#include "pipeline/trace.h"

#include <fmt/format.h>

#include <cmath>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <utility>

namespace shardproof {
namespace {

using Json = nlohmann::ordered_json;

Status CheckTimes(const Schedule& s, const TraceProcess& process) {
  if (process.times.size() != s.actions.size()) {
    return InvalidArgument("{}: times of {} ranks, and the schedule has {}",
                           process.name, process.times.size(), s.ranks());
  }
  for (size_t rank = 0; rank < process.times.size(); ++rank) {
    const std::vector<TimeSpan>& times = process.times[rank];
    if (times.size() != s.actions[rank].size()) {
      return InvalidArgument("{}: rank {} has {} times for {} actions",
                             process.name, rank, times.size(),
                             s.actions[rank].size());
    }
    for (size_t i = 0; i < times.size(); ++i) {
      if (std::isfinite(times[i].start) && std::isfinite(times[i].end) &&
          times[i].start <= times[i].end) {
        continue;
      }
      return InvalidArgument("{}: rank {}, action {}, {}: from {} to {}",
                             process.name, rank, i, s.Text(s.actions[rank][i]),
                             times[i].start, times[i].end);
    }
  }
  return OkStatus();
}

// What a process or a lane is called, and which comes first.
void Name(const char* what, int pid, int tid, const std::string& name,
          Json& events) {
  const std::string kind = what;
  events.push_back({{"ph", "M"},
                    {"name", kind + "_name"},
                    {"pid", pid},
                    {"tid", tid},
                    {"args", {{"name", name}}}});
  events.push_back({{"ph", "M"},
                    {"name", kind + "_sort_index"},
                    {"pid", pid},
                    {"tid", tid},
                    {"args", {{"sort_index", kind == "process" ? pid : tid}}}});
}

// Microseconds on a grid that has whole nanoseconds and no error in binary.
double OnGrid(double microseconds) { return std::round(microseconds * 8) / 8; }

Json Slice(const Schedule& s, int rank, size_t i) {
  const std::vector<Action>& actions = s.actions[static_cast<size_t>(rank)];
  const Action& action = actions[i];
  const std::string kind(1, Letter(action.kind));
  Json args = {{"micro_batch", action.micro_batch},
               {"stage", s.StageAt(action.micro_batch, {rank, action.chunk})},
               {"chunk", action.chunk},
               {"kind", kind}};
  if (s.pipelines.size() > 1) {
    args["pipeline"] = s.PipelineOf(action.micro_batch);
  }
  if (s.IsPair(rank, i)) args["with"] = s.Text(actions[i + 1]);
  return {{"ph", "X"},
          {"name", s.Text(action)},
          {"cat", kind},
          {"args", std::move(args)}};
}

}  // namespace

StatusOr<std::string> ChromeTrace(const Schedule& schedule,
                                  const std::vector<TraceProcess>& processes) {
  Json events = Json::array();
  int pid = 0;
  for (const TraceProcess& process : processes) {
    SP_RETURN_IF_ERROR(CheckTimes(schedule, process));
    ++pid;
    Name("process", pid, 0, process.name, events);
    const double microseconds = process.seconds * 1e6;
    for (int rank = 0; rank < schedule.ranks(); ++rank) {
      const int tid = rank + 1;
      Name("thread", pid, tid, fmt::format("rank {}", rank), events);
      const std::vector<TimeSpan>& times =
          process.times[static_cast<size_t>(rank)];
      for (size_t i = 0; i < times.size(); ++i) {
        Json slice = Slice(schedule, rank, i);
        slice["pid"] = pid;
        slice["tid"] = tid;
        const double start = OnGrid(times[i].start * microseconds);
        slice["ts"] = start;
        slice["dur"] = OnGrid(times[i].end * microseconds) - start;
        events.push_back(std::move(slice));
      }
    }
  }
  const Json trace = {{"displayTimeUnit", "ms"},
                      {"otherData",
                       {{"schedule", schedule.name},
                        {"ranks", schedule.ranks()},
                        {"stages", schedule.stages()},
                        {"micro_batches", schedule.micro_batches}}},
                      {"traceEvents", std::move(events)}};
  // A name may come from a file.
  return trace.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace shardproof
