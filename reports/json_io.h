// Reading and writing of JSON members, for everything that result files hold.
//
//     JsonReader in(json, "the fit of ring");
//     in.Required("alpha_us", fit.alpha_us);
//     in.Optional("note", fit.note);          // Left as it is where missing.
//     SP_RETURN_IF_ERROR(in.status());        // "the fit of ring has no ..."
//
// JSON has no NaN and no infinity: they are the strings "NaN", "Infinity" and
// "-Infinity", and null is read as NaN.
#ifndef SHARDPROOF_REPORTS_JSON_IO_H_
#define SHARDPROOF_REPORTS_JSON_IO_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "reference/status.h"

namespace shardproof {

// Deeper than any file of ours. What is nested deeper than the stack could not
// be copied or printed.
inline constexpr int kMostJsonDepth = 64;
// `text` as a value, `name` for messages. kDataLoss with the place for what is
// truncated, malformed or nested deeper than that.
StatusOr<nlohmann::ordered_json> ParseJson(std::string_view text,
                                           const std::string& name);

nlohmann::ordered_json JsonNumber(double value);
nlohmann::ordered_json JsonNumbers(const std::vector<double>& values);

// Reads members of one JSON object; remembers the first that is wrong.
class JsonReader {
 public:
  using Json = nlohmann::ordered_json;

  JsonReader(const Json& json, std::string where)
      : json_(json), where_(std::move(where)) {
    if (!json.is_object()) Fail("", "an object");
  }

  template <class T>
  void Required(const char* key, T& out) {
    if (!json_.is_object()) return;
    if (!json_.contains(key)) {
      if (status_.ok()) {
        status_ = InvalidArgument("{} has no \"{}\"", where_, key);
      }
      return;
    }
    Read(json_[key], key, out);
  }
  template <class T>
  void Optional(const char* key, T& out) {
    if (json_.is_object() && json_.contains(key)) Read(json_[key], key, out);
  }
  template <class T>
  void Optional(const char* key, std::optional<T>& out) {
    if (!json_.is_object() || !json_.contains(key)) return;
    Read(json_[key], key, out.emplace());
  }
  // The member itself where there is one, for nested objects and arrays.
  const Json* Find(const char* key) const {
    return json_.is_object() && json_.contains(key) ? &json_[key] : nullptr;
  }
  void Merge(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  void Fail(std::string_view key, std::string_view wanted) {
    if (!status_.ok()) return;
    status_ = key.empty() ? InvalidArgument("{} is not {}", where_, wanted)
                          : InvalidArgument("\"{}\" of {} is not {}", key,
                                            where_, wanted);
  }
  const std::string& where() const { return where_; }
  Status status() { return std::move(status_); }

 private:
  void Read(const Json& j, const char* key, std::string& out);
  void Read(const Json& j, const char* key, bool& out);
  void Read(const Json& j, const char* key, int64_t& out);
  void Read(const Json& j, const char* key, int& out);
  void Read(const Json& j, const char* key, double& out);
  template <class T>
  void Read(const Json& j, const char* key, std::vector<T>& out) {
    if (!j.is_array()) return Fail(key, "an array");
    out.clear();
    for (const Json& item : j) Read(item, key, out.emplace_back());
  }

  const Json& json_;
  std::string where_;
  Status status_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_JSON_IO_H_
