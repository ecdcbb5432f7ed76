#include "reports/record.h"

#include <array>
#include <charconv>

#include "reports/json_io.h"

namespace shardproof {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 6> kVerdicts = {
    "passed", "incorrect", "suspect", "failed", "unsupported", "not_built"};

// Text that is exactly how JSON would print a boolean or an integer becomes
// one; everything else stays text, so that reading gives the same text back.
Json ParamValue(const std::string& text) {
  if (text == "true") return true;
  if (text == "false") return false;
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && stop == end && std::to_string(value) == text) {
    return value;
  }
  return text;
}

std::string ParamText(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

Json ErrorJson(const Record::Error& e) {
  Json mismatches = Json::array();
  for (const Record::Mismatch& m : e.mismatches) {
    mismatches.push_back({{"tensor", m.tensor},
                          {"rank", m.rank},
                          {"index", m.index},
                          {"expected", JsonNumber(m.expected)},
                          {"got", JsonNumber(m.got)}});
  }
  Json out = {{"tier", e.tier},
              {"worst_ratio", JsonNumber(e.worst_ratio)},
              {"max_abs", JsonNumber(e.max_abs)},
              {"max_ulp", JsonNumber(e.max_ulp)}};
  if (e.gain.has_value()) out["gain"] = JsonNumber(*e.gain);
  out["compared"] = e.compared;
  out["mismatches"] = std::move(mismatches);
  if (!e.diagnosis.empty()) out["diagnosis"] = e.diagnosis;
  return out;
}

Json TimeJson(const Record::Time& t) {
  Json out = {{"median", JsonNumber(t.median)},
              {"p10", JsonNumber(t.p10)},
              {"p90", JsonNumber(t.p90)},
              {"min", JsonNumber(t.min)},
              {"max", JsonNumber(t.max)},
              {"interval_low", JsonNumber(t.interval_low)},
              {"interval_high", JsonNumber(t.interval_high)},
              {"samples", t.samples},
              {"operations_per_sample", t.operations_per_sample},
              {"cadence", t.cadence},
              {"per_rank_median", JsonNumbers(t.per_rank_median)}};
  if (!t.samples_us.empty()) out["samples_us"] = JsonNumbers(t.samples_us);
  if (!t.rank_samples_us.empty()) {
    Json ranks = Json::array();
    for (const auto& rank : t.rank_samples_us)
      ranks.push_back(JsonNumbers(rank));
    out["rank_samples_us"] = std::move(ranks);
  }
  if (!t.flags.empty()) out["flags"] = t.flags;
  return out;
}

Json TrafficJson(const Record::Traffic& t) {
  Json out = {{"bytes", t.bytes}, {"messages", t.messages}};
  if (t.predicted_bytes.has_value())
    out["predicted_bytes"] = *t.predicted_bytes;
  if (t.predicted_messages.has_value()) {
    out["predicted_messages"] = *t.predicted_messages;
  }
  return out;
}

Record::Error ReadError(const Json& json, JsonReader& parent) {
  JsonReader in(json, "error of " + parent.where());
  Record::Error e;
  in.Required("tier", e.tier);
  in.Optional("worst_ratio", e.worst_ratio);
  in.Optional("max_abs", e.max_abs);
  in.Optional("max_ulp", e.max_ulp);
  in.Optional("gain", e.gain);
  in.Optional("compared", e.compared);
  in.Optional("diagnosis", e.diagnosis);
  if (const Json* list = in.Find("mismatches")) {
    if (!list->is_array()) in.Fail("mismatches", "an array");
    for (size_t i = 0; list->is_array() && i < list->size(); ++i) {
      JsonReader item((*list)[i], "a mismatch of " + in.where());
      Record::Mismatch& m = e.mismatches.emplace_back();
      item.Required("tensor", m.tensor);
      item.Required("rank", m.rank);
      item.Required("index", m.index);
      item.Required("expected", m.expected);
      item.Required("got", m.got);
      in.Merge(item.status());
    }
  }
  parent.Merge(in.status());
  return e;
}

Record::Time ReadTime(const Json& json, JsonReader& parent) {
  JsonReader in(json, "time_us of " + parent.where());
  Record::Time t;
  in.Required("median", t.median);
  in.Optional("p10", t.p10);
  in.Optional("p90", t.p90);
  in.Optional("min", t.min);
  in.Optional("max", t.max);
  in.Optional("interval_low", t.interval_low);
  in.Optional("interval_high", t.interval_high);
  in.Required("samples", t.samples);
  in.Optional("operations_per_sample", t.operations_per_sample);
  in.Optional("cadence", t.cadence);
  in.Optional("per_rank_median", t.per_rank_median);
  in.Optional("samples_us", t.samples_us);
  in.Optional("rank_samples_us", t.rank_samples_us);
  in.Optional("flags", t.flags);
  parent.Merge(in.status());
  return t;
}

Record::Traffic ReadTraffic(const Json& json, JsonReader& parent) {
  JsonReader in(json, "traffic of " + parent.where());
  Record::Traffic t;
  in.Required("bytes", t.bytes);
  in.Required("messages", t.messages);
  in.Optional("predicted_bytes", t.predicted_bytes);
  in.Optional("predicted_messages", t.predicted_messages);
  parent.Merge(in.status());
  return t;
}

}  // namespace

std::string_view Name(Verdict verdict) {
  return kVerdicts[static_cast<size_t>(verdict)];
}

StatusOr<Verdict> ParseVerdict(std::string_view name) {
  for (size_t i = 0; i < kVerdicts.size(); ++i) {
    if (kVerdicts[i] == name) return static_cast<Verdict>(i);
  }
  return InvalidArgument("\"{}\" is not a verdict", name);
}

nlohmann::ordered_json ToJson(const Record& r) {
  Json params = Json::object();
  for (const auto& [key, value] : r.params) params[key] = ParamValue(value);
  Json out = {{"case", r.case_name},  {"variant", r.variant},
              {"backend", r.backend}, {"ranks", r.ranks},
              {"params", params},     {"verdict", Name(r.verdict)},
              {"reason", r.reason},   {"repro", r.repro}};
  if (r.memory != "shared") out["memory"] = r.memory;
  if (r.native) out["native"] = true;
  if (r.error.has_value()) out["error"] = ErrorJson(*r.error);
  if (r.time_us.has_value()) out["time_us"] = TimeJson(*r.time_us);
  const auto number = [&](const char* key, const std::optional<double>& value) {
    if (value.has_value()) out[key] = JsonNumber(*value);
  };
  number("algbw_gbps", r.algbw_gbps);
  number("busbw_gbps", r.busbw_gbps);
  number("gflops", r.gflops);
  number("predicted_us", r.predicted_us);
  number("floor_us", r.floor_us);
  if (r.traffic.has_value()) out["traffic"] = TrafficJson(*r.traffic);
  out["emulated"] = r.emulated;
  return out;
}

StatusOr<Record> RecordFromJson(const nlohmann::ordered_json& json) {
  std::string where = "a record";
  if (json.is_object() && json.contains("case") && json["case"].is_string()) {
    where = fmt::format("the record of {}", json["case"].get<std::string>());
  }
  JsonReader in(json, where);
  Record r;
  std::string verdict;
  in.Required("case", r.case_name);
  in.Required("variant", r.variant);
  in.Required("backend", r.backend);
  in.Required("ranks", r.ranks);
  in.Required("verdict", verdict);
  in.Optional("reason", r.reason);
  in.Optional("repro", r.repro);
  in.Optional("memory", r.memory);
  in.Optional("native", r.native);
  in.Optional("algbw_gbps", r.algbw_gbps);
  in.Optional("busbw_gbps", r.busbw_gbps);
  in.Optional("gflops", r.gflops);
  in.Optional("predicted_us", r.predicted_us);
  in.Optional("floor_us", r.floor_us);
  in.Optional("emulated", r.emulated);
  if (const Json* params = in.Find("params")) {
    if (!params->is_object()) in.Fail("params", "an object");
    for (const auto& [key, value] : params->items()) {
      r.params.emplace_back(key, ParamText(value));
    }
  }
  if (const Json* j = in.Find("error")) r.error = ReadError(*j, in);
  if (const Json* j = in.Find("time_us")) r.time_us = ReadTime(*j, in);
  if (const Json* j = in.Find("traffic")) r.traffic = ReadTraffic(*j, in);
  SP_RETURN_IF_ERROR(in.status());
  SP_ASSIGN_OR_RETURN(r.verdict, ParseVerdict(verdict));
  if (r.ranks < 1) {
    return InvalidArgument("\"ranks\" of {} is {}", where, r.ranks);
  }
  return r;
}

std::string ParamsText(const Record& record) {
  std::string text;
  for (const auto& [key, value] : record.params) {
    if (!text.empty()) text += ' ';
    text += key;
    text += '=';
    text += value;
  }
  return text;
}

}  // namespace shardproof
