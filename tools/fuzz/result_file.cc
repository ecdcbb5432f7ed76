// Result files: what was read is written and read back as the same.
#include "reports/result_file.h"

#include "reports/key.h"
#include "reports/record.h"
#include "tools/fuzz/property.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardproof;  // NOLINT(google-build-using-namespace)
  const auto results = ParseResults(AsText(data, size), "fuzz.json");
  if (!results.ok()) {
    Expect(results.status().message().find("fuzz.json") != std::string::npos,
           "an error names the file", results.status().ToString());
    return 0;
  }
  for (const Record& record : results->records) {
    const std::string text = ToJson(record).dump();
    const auto again = RecordFromJson(nlohmann::ordered_json::parse(text));
    Expect(again.ok(), "a record that was written can be read", text);
    Expect(ToJson(*again).dump() == text, "and is the same", text);
    Expect(KeyOf(*again) == KeyOf(record), "with the same key", text);
  }
  return 0;
}
