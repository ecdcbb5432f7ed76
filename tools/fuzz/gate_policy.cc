// gate.toml: errors are one line with the file's name; quarantines are whole.
// Regular expressions are compiled and not used: they can take any time.
#include "reports/gate/policy.h"
#include "tools/fuzz/property.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardproof;  // NOLINT(google-build-using-namespace)
  const auto policy = ParsePolicy(AsText(data, size), "fuzz.toml");
  if (!policy.ok()) {
    const std::string text(policy.status().message());
    Expect(text.rfind("fuzz.toml", 0) == 0, "an error names the file", text);
    return 0;
  }
  for (const Policy::Quarantine& q : policy->quarantine) {
    Expect(!q.owner.empty() && !q.reason.empty(), "somebody owns it");
    Expect(DayOf(q.expires).has_value(), "it has an end", q.expires);
  }
  Expect(policy->margin.least >= 0 && policy->margin.least_us >= 0,
         "margins are not negative");
  return 0;
}
