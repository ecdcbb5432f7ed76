// Calibrations of result files: what was read is written and read back as the same.
#include "reports/calibration.h"

#include "reports/json_io.h"
#include "tools/fuzz/property.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardproof;  // NOLINT(google-build-using-namespace)
  const auto json = ParseJson(AsText(data, size), "fuzz");
  if (!json.ok()) return 0;
  const auto value = CalibrationFromJson(*json);
  if (!value.ok()) return 0;
  const std::string text = ToJson(*value).dump();
  const auto again = CalibrationFromJson(nlohmann::ordered_json::parse(text));
  Expect(again.ok(), "what was written can be read", text);
  Expect(ToJson(*again).dump() == text, "and is the same", text);
  return 0;
}
