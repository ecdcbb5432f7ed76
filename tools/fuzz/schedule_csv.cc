// Schedules as comma-separated values: what was read is written and read back.
#include "pipeline/schedule_csv.h"

#include "tools/fuzz/property.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardproof;  // NOLINT(google-build-using-namespace)
  const auto schedule = FromCsv(AsText(data, size), "fuzz");
  if (!schedule.ok()) return 0;
  const auto text = ToCsv(*schedule);
  Expect(text.ok(), "what was read can be written");
  const auto again = FromCsv(*text, "fuzz");
  Expect(again.ok(), "and read again", *text);
  Expect(*ToCsv(*again) == *text, "as the same", *text);
  return 0;
}
