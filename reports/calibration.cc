#include "reports/calibration.h"

#include <algorithm>
#include <cmath>

#include "reports/json_io.h"

namespace shardproof {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kWanted = 0.05;  // The slow-down that the sentence is about.

Json PowerJson(const Calibration::Power& p) {
  return {{"slowdown", JsonNumber(p.slowdown)},
          {"trials", p.trials},
          {"found", p.found},
          {"found_low", JsonNumber(p.found_low)},
          {"median_effect", JsonNumber(p.median_effect)}};
}

Calibration::Power ReadPower(const Json& json, JsonReader& parent) {
  JsonReader in(json, "a power of " + parent.where());
  Calibration::Power p;
  in.Required("slowdown", p.slowdown);
  in.Required("trials", p.trials);
  in.Required("found", p.found);
  in.Optional("found_low", p.found_low);
  in.Optional("median_effect", p.median_effect);
  if (p.found < 0 || p.found > p.trials) {
    in.Fail("found", "between 0 and its trials");
  }
  parent.Merge(in.status());
  return p;
}

// 5 percent where it was tried, else what is nearest to it.
const Calibration::Power* Nearest(const std::vector<Calibration::Power>& all) {
  const Calibration::Power* best = nullptr;
  for (const Calibration::Power& p : all) {
    if (p.trials < 1 || !std::isfinite(p.slowdown)) continue;
    if (best == nullptr ||
        std::abs(p.slowdown - kWanted) < std::abs(best->slowdown - kWanted)) {
      best = &p;
    }
  }
  return best;
}

double Percent(int part, int whole) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

nlohmann::ordered_json ToJson(const Calibration& c) {
  Json power = Json::array();
  for (const Calibration::Power& p : c.power) power.push_back(PowerJson(p));
  return {{"machine", c.machine},
          {"measured", c.measured},
          {"seconds", JsonNumber(c.seconds)},
          {"cases", c.cases},
          {"null_verdicts", c.null_verdicts},
          {"false_alarms", c.false_alarms},
          {"false_alarms_high", JsonNumber(c.false_alarms_high)},
          {"noise", JsonNumber(c.noise)},
          {"power", std::move(power)}};
}

StatusOr<Calibration> CalibrationFromJson(const nlohmann::ordered_json& json) {
  JsonReader in(json, "the calibration");
  Calibration c;
  in.Required("machine", c.machine);
  in.Required("measured", c.measured);
  in.Optional("seconds", c.seconds);
  in.Optional("cases", c.cases);
  in.Required("null_verdicts", c.null_verdicts);
  in.Required("false_alarms", c.false_alarms);
  in.Optional("false_alarms_high", c.false_alarms_high);
  in.Required("noise", c.noise);
  if (c.false_alarms < 0 || c.false_alarms > c.null_verdicts) {
    in.Fail("false_alarms", "between 0 and the verdicts");
  }
  if (const Json* list = in.Find("power")) {
    if (!list->is_array()) in.Fail("power", "an array");
    for (size_t i = 0; list->is_array() && i < list->size(); ++i) {
      c.power.push_back(ReadPower((*list)[i], in));
    }
  }
  SP_RETURN_IF_ERROR(in.status());
  return c;
}

std::string Sentence(const Calibration& c) {
  const Calibration::Power* power = Nearest(c.power);
  if (c.null_verdicts < 1 && power == nullptr) {
    return "how often the gate errs on this machine is not known: run "
           "shardproof calibrate";
  }
  std::string text = "on this machine the gate ";
  if (c.null_verdicts < 1) {
    text += "raises false alarms in an unknown share of verdicts";
  } else {
    text += fmt::format(
        "raises a false alarm in {:.2g} percent of verdicts (at most {:.2g})",
        Percent(c.false_alarms, c.null_verdicts), 100 * c.false_alarms_high);
  }
  if (power == nullptr) {
    return text + "; which slow-downs it finds is not known";
  }
  return text + fmt::format(
                    " and finds a slow-down of {:.2g} percent in {:.3g} "
                    "percent (at least {:.3g})",
                    100 * power->slowdown, Percent(power->found, power->trials),
                    100 * power->found_low);
}

}  // namespace shardproof
