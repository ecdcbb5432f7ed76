#include "reports/read_launch.h"

#include <utility>

#include "reports/json_io.h"

namespace shardproof {
namespace {

using Json = nlohmann::ordered_json;

const Json* Member(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found == json.end() ? nullptr : &*found;
}

std::string Text(const Json& json, const char* name) {
  const Json* member = Member(json, name);
  return member != nullptr && member->is_string() ? member->get<std::string>()
                                                  : "";
}

bool Flag(const Json& json, const char* name) {
  const Json* member = Member(json, name);
  return member != nullptr && member->is_boolean() && member->get<bool>();
}

Conditions ConditionsOf(const Json& header, const char* when) {
  const Json* both = Member(header, "conditions");
  if (both == nullptr || !both->is_object()) return {};
  const Json* one = Member(*both, when);
  return one == nullptr ? Conditions{} : ConditionsFromJson(*one);
}

Status ReadSections(const Json& header, LoadedLaunch& loaded) {
  if (const Json* list = Member(header, "comparisons")) {
    if (!list->is_array()) {
      return InvalidArgument("\"comparisons\" is not an array");
    }
    for (const Json& item : *list) {
      SP_ASSIGN_OR_RETURN(Comparison comparison, ComparisonFromJson(item));
      loaded.comparisons.push_back(std::move(comparison));
    }
  }
  if (const Json* base = Member(header, "base_environment")) {
    loaded.base_fingerprint = FingerprintFromJson(*base);
  }
  if (const Json* calibration = Member(header, "calibration")) {
    SP_ASSIGN_OR_RETURN(loaded.calibration, CalibrationFromJson(*calibration));
  }
  SP_ASSIGN_OR_RETURN(loaded.interconnect, InterconnectFromJson(header));
  return OkStatus();
}

}  // namespace

StatusOr<LoadedLaunch> LaunchFrom(Results results, const std::string& name) {
  const Json& header = results.header;
  LoadedLaunch loaded;
  Launch& launch = loaded.launch;
  launch.name = name;
  launch.command = Text(header, "command");
  launch.started = Text(header, "started");
  launch.finished = Text(header, "finished");
  launch.complete = results.complete;
  launch.interrupted = Flag(header, "interrupted");
  if (const Json* list = Member(header, "left_out");
      list != nullptr && list->is_array()) {
    for (const Json& item : *list) {
      if (item.is_string()) launch.left_out.push_back(item.get<std::string>());
    }
  }
  if (const Json* environment = Member(header, "environment")) {
    launch.fingerprint = FingerprintFromJson(*environment);
  }
  launch.before = ConditionsOf(header, "before");
  launch.after = ConditionsOf(header, "after");
  if (Status status = ReadSections(header, loaded); !status.ok()) {
    return status.WithContext(name);
  }
  launch.records = std::move(results.records);
  return loaded;
}

StatusOr<LoadedLaunch> ReadLaunch(const std::string& path) {
  SP_ASSIGN_OR_RETURN(Results results, ReadResults(path));
  return LaunchFrom(std::move(results), path);
}

}  // namespace shardproof
