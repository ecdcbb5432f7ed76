#include "reports/comparison.h"

#include <array>

#include "reports/json_io.h"

namespace shardproof {
namespace {

constexpr std::array<std::string_view, 5> kChanges = {
    "invalid", "regressed", "improved", "equivalent", "inconclusive"};

}  // namespace

std::string_view Name(Change change) {
  return kChanges[static_cast<size_t>(change)];
}

StatusOr<Change> ParseChange(std::string_view name) {
  for (size_t i = 0; i < kChanges.size(); ++i) {
    if (kChanges[i] == name) return static_cast<Change>(i);
  }
  return InvalidArgument("\"{}\" is not the outcome of a comparison", name);
}

nlohmann::ordered_json ToJson(const Comparison& c) {
  nlohmann::ordered_json out = {
      {"key", c.key},
      {"case", c.case_name},
      {"variant", c.variant},
      {"backend", c.backend},
      {"params", c.params},
      {"ranks", c.ranks},
      {"change", Name(c.change)},
      {"reason", c.reason},
      {"base_us", JsonNumber(c.base_us)},
      {"cand_us", JsonNumber(c.cand_us)},
      {"effect", JsonNumber(c.effect)},
      {"interval_low", JsonNumber(c.interval_low)},
      {"interval_high", JsonNumber(c.interval_high)},
      {"hodges_lehmann", JsonNumber(c.hodges_lehmann)},
      {"p", JsonNumber(c.p)},
      {"sign_flip_p", JsonNumber(c.sign_flip_p)},
      {"adjusted_p", JsonNumber(c.adjusted_p)},
      {"margin", JsonNumber(c.margin)},
      {"suspect", c.suspect},
      {"screened_pairs", c.screened_pairs},
      {"pairs", c.pairs}};
  if (c.more_pairs.has_value()) out["more_pairs"] = *c.more_pairs;
  if (c.more_seconds.has_value()) {
    out["more_seconds"] = JsonNumber(*c.more_seconds);
  }
  out["base_launches"] = JsonNumbers(c.base_launches);
  out["cand_launches"] = JsonNumbers(c.cand_launches);
  out["repro"] = c.repro;
  return out;
}

StatusOr<Comparison> ComparisonFromJson(const nlohmann::ordered_json& json) {
  std::string where = "a comparison";
  if (json.is_object() && json.contains("key") && json["key"].is_string()) {
    where = fmt::format("the comparison of {}", json["key"].get<std::string>());
  }
  JsonReader in(json, where);
  Comparison c;
  std::string change;
  in.Required("key", c.key);
  in.Required("case", c.case_name);
  in.Required("variant", c.variant);
  in.Required("backend", c.backend);
  in.Optional("params", c.params);
  in.Required("ranks", c.ranks);
  in.Required("change", change);
  in.Required("reason", c.reason);
  in.Optional("base_us", c.base_us);
  in.Optional("cand_us", c.cand_us);
  in.Optional("effect", c.effect);
  in.Optional("interval_low", c.interval_low);
  in.Optional("interval_high", c.interval_high);
  in.Optional("hodges_lehmann", c.hodges_lehmann);
  in.Optional("p", c.p);
  in.Optional("sign_flip_p", c.sign_flip_p);
  in.Optional("adjusted_p", c.adjusted_p);
  in.Optional("margin", c.margin);
  in.Optional("suspect", c.suspect);
  in.Optional("screened_pairs", c.screened_pairs);
  in.Optional("pairs", c.pairs);
  in.Optional("more_pairs", c.more_pairs);
  in.Optional("more_seconds", c.more_seconds);
  in.Optional("base_launches", c.base_launches);
  in.Optional("cand_launches", c.cand_launches);
  in.Optional("repro", c.repro);
  SP_RETURN_IF_ERROR(in.status());
  SP_ASSIGN_OR_RETURN(c.change, ParseChange(change));
  if (c.ranks < 1) {
    return InvalidArgument("\"ranks\" of {} is {}", where, c.ranks);
  }
  return c;
}

}  // namespace shardproof
