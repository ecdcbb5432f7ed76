// Typed access to the keys of one JSON object, with the first complaint kept.
//
// A caller reads all keys in a row and asks for status() once: after a failure every read returns 0, so that the code
// that reads forty keys is forty lines. Internal to models/.
#ifndef SHARDPROOF_LAYERS_MODELS_JSON_READER_H_
#define SHARDPROOF_LAYERS_MODELS_JSON_READER_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "reference/status.h"

namespace shardproof::models {

// Parses `text` into an object. InvalidArgument with line and column if it is not JSON.
StatusOr<nlohmann::json> ParseObject(std::string_view text,
                                     std::string_view origin);

class JsonReader {
 public:
  // `object` must outlive the reader.
  JsonReader(const nlohmann::json& object, std::string_view origin)
      : object_(object), origin_(origin) {}

  // A required whole number of at least `least` and at most 2^31 - 1. (Validate has the tighter limits of each key.)
  int64_t Whole(const char* key, int64_t least = 1);
  // The same; absent or null gives `fallback`.
  int64_t WholeOr(const char* key, int64_t fallback, int64_t least = 1);
  // A positive finite number.
  double PositiveOr(const char* key, double fallback);
  bool FlagOr(const char* key, bool fallback);
  // A required text.
  std::string Text(const char* key);

  // Whether the key is present and not null.
  bool Has(const char* key) const { return Find(key) != nullptr; }
  // Keeps the first complaint.
  void Fail(Status status);
  const Status& status() const { return status_; }

 private:
  const nlohmann::json* Find(const char* key) const;
  void FailMissing(const char* key, const char* kind);
  void FailValue(const char* key, const std::string& wanted);

  const nlohmann::json& object_;
  std::string origin_;
  Status status_;
};

}  // namespace shardproof::models

#endif  // SHARDPROOF_LAYERS_MODELS_JSON_READER_H_
