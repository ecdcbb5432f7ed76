#include "pipeline/registry.h"

#include <algorithm>
#include <utility>

namespace shardproof {
namespace {

std::vector<ScheduleInfo>& All() {
  static std::vector<ScheduleInfo> all;
  return all;
}

}  // namespace

const std::vector<ScheduleInfo>& Schedules() { return All(); }

const ScheduleInfo* FindSchedule(std::string_view name) {
  for (const ScheduleInfo& info : All()) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

StatusOr<Schedule> BuildSchedule(std::string_view name,
                                 const ScheduleShape& shape) {
  const ScheduleInfo* const info = FindSchedule(name);
  if (info == nullptr) {
    std::string names;
    for (const ScheduleInfo& i : All()) {
      names += (names.empty() ? "" : ", ") + i.name;
    }
    return InvalidArgument("there is no schedule \"{}\"; there are {}", name,
                           names);
  }
  if (shape.ranks < 1 || shape.micro_batches < 1 || shape.chunks < 1) {
    return InvalidArgument(
        "{} over {} ranks, of {} micro-batches and {} chunks: a size is below "
        "1",
        name, shape.ranks, shape.micro_batches, shape.chunks);
  }
  // Not a number is neither.
  if (!(shape.memory_limit >= 0)) {
    return InvalidArgument("{} with a memory limit of {}: it is below 0", name,
                           shape.memory_limit);
  }
  if (shape.chunks > 1 && !info->takes_chunks) {
    return InvalidArgument("{} has one chunk on each rank, not {}", name,
                           shape.chunks);
  }
  return info->build(shape);
}

RegisterSchedule::RegisterSchedule(ScheduleInfo info) {
  std::vector<ScheduleInfo>& all = All();
  const auto at =
      std::lower_bound(all.begin(), all.end(), info,
                       [](const ScheduleInfo& a, const ScheduleInfo& b) {
                         return a.name < b.name;
                       });
  all.insert(at, std::move(info));
}

}  // namespace shardproof
