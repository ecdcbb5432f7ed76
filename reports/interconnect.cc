#include "reports/interconnect.h"

#include <fmt/format.h>

#include <type_traits>
#include <utility>

#include "reports/json_io.h"

namespace shardproof {
namespace {

using Json = nlohmann::ordered_json;

// The overload of ToJson is chosen where Each is called.
template <class T>
Json Each(const std::vector<T>& values,
          Json (*write)(const std::type_identity_t<T>&)) {
  Json out = Json::array();
  for (const T& value : values) out.push_back(write(value));
  return out;
}

// The entries of the array `key`, where there is one, by `read(entry, where)`.
template <class T, class Read>
Status ReadEach(JsonReader& in, const char* key, std::vector<T>& out,
                const Read& read) {
  const Json* array = in.Find(key);
  if (array == nullptr) return OkStatus();
  if (!array->is_array()) {
    return InvalidArgument("\"{}\" of {} is not an array", key, in.where());
  }
  for (const Json& entry : *array) {
    SP_ASSIGN_OR_RETURN(
        T value,
        read(entry, fmt::format("{}[{}] of {}", key, out.size(), in.where())));
    out.push_back(std::move(value));
  }
  return OkStatus();
}

Json ToJson(const PairMatrix::Slow& s) {
  return {{"from", s.from},
          {"to", s.to},
          {"link_class", s.link_class},
          {"z", JsonNumber(s.z)},
          {"median_us", JsonNumber(s.median_us)},
          {"class_median_us", JsonNumber(s.class_median_us)}};
}

StatusOr<PairMatrix::Slow> SlowFromJson(const Json& json, std::string where) {
  JsonReader in(json, std::move(where));
  PairMatrix::Slow s;
  in.Required("from", s.from);
  in.Required("to", s.to);
  in.Optional("link_class", s.link_class);
  in.Optional("z", s.z);
  in.Optional("median_us", s.median_us);
  in.Optional("class_median_us", s.class_median_us);
  SP_RETURN_IF_ERROR(in.status());
  return s;
}

Json ToJson(const PairMatrix::Asymmetry& a) {
  return {{"a", a.a},
          {"b", a.b},
          {"a_to_b_us", JsonNumber(a.a_to_b_us)},
          {"b_to_a_us", JsonNumber(a.b_to_a_us)}};
}

StatusOr<PairMatrix::Asymmetry> AsymmetryFromJson(const Json& json,
                                                  std::string where) {
  JsonReader in(json, std::move(where));
  PairMatrix::Asymmetry a;
  in.Required("a", a.a);
  in.Required("b", a.b);
  in.Optional("a_to_b_us", a.a_to_b_us);
  in.Optional("b_to_a_us", a.b_to_a_us);
  SP_RETURN_IF_ERROR(in.status());
  return a;
}

Json ToJson(const PairMatrix& m) {
  return {{"backend", m.backend},
          {"ranks", m.ranks},
          {"bytes", m.bytes},
          {"bidirectional", m.bidirectional},
          {"places", m.places},
          {"median_us", JsonNumbers(m.median_us)},
          {"slow", Each(m.slow, ToJson)},
          {"asymmetric", Each(m.asymmetric, ToJson)}};
}

// Readers index by rank, so what names ranks that are not there is refused.
Status CheckRanks(const PairMatrix& m, const std::string& where) {
  if (m.ranks < 1 || m.ranks > 65536 ||
      m.median_us.size() !=
          static_cast<size_t>(m.ranks) * static_cast<size_t>(m.ranks)) {
    return InvalidArgument("{}: {} times are not those of {} by {} ranks",
                           where, m.median_us.size(), m.ranks, m.ranks);
  }
  if (!m.places.empty() && m.places.size() != static_cast<size_t>(m.ranks)) {
    return InvalidArgument("{}: {} places of {} ranks", where, m.places.size(),
                           m.ranks);
  }
  const auto known = [&](int rank) { return rank >= 0 && rank < m.ranks; };
  for (const PairMatrix::Slow& s : m.slow) {
    if (!known(s.from) || !known(s.to)) {
      return InvalidArgument("{}: there is no link {} -> {}", where, s.from,
                             s.to);
    }
  }
  for (const PairMatrix::Asymmetry& a : m.asymmetric) {
    if (!known(a.a) || !known(a.b)) {
      return InvalidArgument("{}: there is no pair {}, {}", where, a.a, a.b);
    }
  }
  return OkStatus();
}

StatusOr<PairMatrix> MatrixFromJson(const Json& json, std::string where) {
  JsonReader in(json, std::move(where));
  PairMatrix m;
  in.Optional("backend", m.backend);
  in.Required("ranks", m.ranks);
  in.Required("bytes", m.bytes);
  in.Optional("bidirectional", m.bidirectional);
  in.Optional("places", m.places);
  in.Required("median_us", m.median_us);
  in.Merge(ReadEach(in, "slow", m.slow, SlowFromJson));
  in.Merge(ReadEach(in, "asymmetric", m.asymmetric, AsymmetryFromJson));
  SP_RETURN_IF_ERROR(in.status());
  SP_RETURN_IF_ERROR(CheckRanks(m, in.where()));
  return m;
}

Json ToJson(const Estimate& e) {
  return {{"value", JsonNumber(e.value)},
          {"low", JsonNumber(e.low)},
          {"high", JsonNumber(e.high)}};
}

Status ReadEstimate(JsonReader& outer, const char* key, Estimate& e) {
  const Json* json = outer.Find(key);
  if (json == nullptr) {
    return InvalidArgument("{} has no \"{}\"", outer.where(), key);
  }
  JsonReader in(*json, fmt::format("{} of {}", key, outer.where()));
  in.Required("value", e.value);
  in.Required("low", e.low);
  in.Required("high", e.high);
  return in.status();
}

Json ToJson(const Fit::Piece& p) {
  Json json = {{"from_bytes", p.from_bytes},
               {"to_bytes", p.to_bytes},
               {"alpha_us", ToJson(p.alpha_us)},
               {"beta_us_per_mib", ToJson(p.beta_us_per_mib)}};
  if (p.gamma_us_per_mib.has_value()) {
    json["gamma_us_per_mib"] = ToJson(*p.gamma_us_per_mib);
  }
  json["points"] = p.points;
  return json;
}

StatusOr<Fit::Piece> PieceFromJson(const Json& json, std::string where) {
  JsonReader in(json, std::move(where));
  Fit::Piece p;
  in.Required("from_bytes", p.from_bytes);
  in.Required("to_bytes", p.to_bytes);
  in.Merge(ReadEstimate(in, "alpha_us", p.alpha_us));
  in.Merge(ReadEstimate(in, "beta_us_per_mib", p.beta_us_per_mib));
  if (in.Find("gamma_us_per_mib") != nullptr) {
    in.Merge(
        ReadEstimate(in, "gamma_us_per_mib", p.gamma_us_per_mib.emplace()));
  }
  in.Optional("points", p.points);
  SP_RETURN_IF_ERROR(in.status());
  return p;
}

Json ToJson(const Fit::Point& p) {
  return {{"bytes", p.bytes},
          {"measured_us", JsonNumber(p.measured_us)},
          {"low_us", JsonNumber(p.low_us)},
          {"high_us", JsonNumber(p.high_us)},
          {"fitted_us", JsonNumber(p.fitted_us)},
          {"predicted_us", JsonNumber(p.predicted_us)}};
}

StatusOr<Fit::Point> PointFromJson(const Json& json, std::string where) {
  JsonReader in(json, std::move(where));
  Fit::Point p;
  in.Required("bytes", p.bytes);
  in.Required("measured_us", p.measured_us);
  in.Optional("low_us", p.low_us);
  in.Optional("high_us", p.high_us);
  in.Optional("fitted_us", p.fitted_us);
  in.Optional("predicted_us", p.predicted_us);
  SP_RETURN_IF_ERROR(in.status());
  return p;
}

Json ToJson(const Fit& f) {
  return {{"case", f.case_name},
          {"variant", f.variant},
          {"backend", f.backend},
          {"params", f.params},
          {"ranks", f.ranks},
          {"pieces", Each(f.pieces, ToJson)},
          {"points", Each(f.points, ToJson)},
          {"worst_error", JsonNumber(f.worst_error)},
          {"median_error", JsonNumber(f.median_error)},
          {"worst_prediction_error", JsonNumber(f.worst_prediction_error)},
          {"median_prediction_error", JsonNumber(f.median_prediction_error)},
          {"half_bandwidth_bytes", JsonNumber(f.half_bandwidth_bytes)},
          {"asymptotic_gbps", JsonNumber(f.asymptotic_gbps)}};
}

StatusOr<Fit> FitFromJson(const Json& json, std::string where) {
  JsonReader in(json, std::move(where));
  Fit f;
  in.Required("case", f.case_name);
  in.Required("variant", f.variant);
  in.Optional("backend", f.backend);
  in.Optional("params", f.params);
  in.Required("ranks", f.ranks);
  in.Merge(ReadEach(in, "pieces", f.pieces, PieceFromJson));
  in.Merge(ReadEach(in, "points", f.points, PointFromJson));
  in.Optional("worst_error", f.worst_error);
  in.Optional("median_error", f.median_error);
  in.Optional("worst_prediction_error", f.worst_prediction_error);
  in.Optional("median_prediction_error", f.median_prediction_error);
  in.Optional("half_bandwidth_bytes", f.half_bandwidth_bytes);
  in.Optional("asymptotic_gbps", f.asymptotic_gbps);
  SP_RETURN_IF_ERROR(in.status());
  return f;
}

Json ToJson(const Crossover& c) {
  return {{"case", c.case_name},
          {"backend", c.backend},
          {"params", c.params},
          {"from", c.from},
          {"to", c.to},
          {"ranks", c.ranks},
          {"bytes", JsonNumber(c.bytes)},
          {"low", JsonNumber(c.low)},
          {"high", JsonNumber(c.high)}};
}

StatusOr<Crossover> CrossoverFromJson(const Json& json, std::string where) {
  JsonReader in(json, std::move(where));
  Crossover c;
  in.Required("case", c.case_name);
  in.Optional("backend", c.backend);
  in.Optional("params", c.params);
  in.Required("from", c.from);
  in.Required("to", c.to);
  in.Required("ranks", c.ranks);
  in.Required("bytes", c.bytes);
  in.Optional("low", c.low);
  in.Optional("high", c.high);
  SP_RETURN_IF_ERROR(in.status());
  return c;
}

Json ToJson(const ScalePoint& s) {
  return {{"kind", s.kind},
          {"case", s.case_name},
          {"variant", s.variant},
          {"backend", s.backend},
          {"params", s.params},
          {"ranks", s.ranks},
          {"median_us", JsonNumber(s.median_us)},
          {"low_us", JsonNumber(s.low_us)},
          {"high_us", JsonNumber(s.high_us)},
          {"ideal_us", JsonNumber(s.ideal_us)},
          {"efficiency", JsonNumber(s.efficiency)}};
}

StatusOr<ScalePoint> ScalePointFromJson(const Json& json, std::string where) {
  JsonReader in(json, std::move(where));
  ScalePoint s;
  in.Required("kind", s.kind);
  in.Optional("case", s.case_name);
  in.Optional("variant", s.variant);
  in.Optional("backend", s.backend);
  in.Optional("params", s.params);
  in.Required("ranks", s.ranks);
  in.Required("median_us", s.median_us);
  in.Optional("low_us", s.low_us);
  in.Optional("high_us", s.high_us);
  in.Optional("ideal_us", s.ideal_us);
  in.Optional("efficiency", s.efficiency);
  SP_RETURN_IF_ERROR(in.status());
  return s;
}

}  // namespace

Json ToJson(const Interconnect& interconnect) {
  Json json = Json::object();
  json["p2p"] = Each(interconnect.p2p, ToJson);
  json["fits"] = Each(interconnect.fits, ToJson);
  json["crossovers"] = Each(interconnect.crossovers, ToJson);
  json["scaling"] = Each(interconnect.scaling, ToJson);
  json["findings"] = interconnect.findings;
  return json;
}

StatusOr<Interconnect> InterconnectFromJson(const Json& json) {
  JsonReader in(json, "the result file");
  Interconnect out;
  in.Merge(ReadEach(in, "p2p", out.p2p, MatrixFromJson));
  in.Merge(ReadEach(in, "fits", out.fits, FitFromJson));
  in.Merge(ReadEach(in, "crossovers", out.crossovers, CrossoverFromJson));
  in.Merge(ReadEach(in, "scaling", out.scaling, ScalePointFromJson));
  in.Optional("findings", out.findings);
  SP_RETURN_IF_ERROR(in.status());
  return out;
}

}  // namespace shardproof
