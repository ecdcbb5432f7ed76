// config.json of models: what is accepted is valid, and its sizes fit.
#include "layers/models/model_config.h"

#include "tools/fuzz/property.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardproof;  // NOLINT(google-build-using-namespace)
  const auto config =
      models::ParseModelConfig(AsText(data, size), "fuzz.json", "fuzz");
  if (!config.ok()) {
    const std::string text = config.status().ToString();
    Expect(text.find("fuzz.json") != std::string::npos,
           "an error names the file", text);
    return 0;
  }
  Expect(models::Validate(*config, "fuzz.json").ok(),
         "what is accepted is valid");
  return 0;
}
