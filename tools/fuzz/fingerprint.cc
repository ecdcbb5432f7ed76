// The environment of result files: anything is read, and read back as the same.
#include "reports/fingerprint.h"

#include "reports/json_io.h"
#include "tools/fuzz/property.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardproof;  // NOLINT(google-build-using-namespace)
  const auto json = ParseJson(AsText(data, size), "fuzz");
  if (!json.ok()) return 0;
  const Fingerprint f = FingerprintFromJson(*json);
  const std::string text = ToJson(f).dump();
  const Fingerprint again =
      FingerprintFromJson(nlohmann::ordered_json::parse(text));
  Expect(again == f, "what was written is read back", text);
  Expect(MachineId(f).size() == 16 && EpochId(f).size() == 16,
         "identities have 16 digits");
  Expect(Differences(f, again).empty() && EpochChange(f, again).empty(),
         "a fingerprint is its own", text);
  const Fingerprint none;
  Expect((MachineId(f) == MachineId(none)) ==
             [&] {
               for (const Difference& d : Differences(none, f)) {
                 if (d.machine) return false;
               }
               return true;
             }(),
         "machines differ where their members do", text);
  const std::string conditions = ToJson(ConditionsFromJson(*json)).dump();
  Expect(ToJson(ConditionsFromJson(nlohmann::ordered_json::parse(conditions)))
                 .dump() == conditions,
         "conditions are read back", conditions);
  return 0;
}
