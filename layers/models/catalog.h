// The models that the suite knows without a file: public hyper-parameters, embedded in the binary from configs/*.json.
//
//   SP_ASSIGN_OR_RETURN(ModelConfig config, models::FindModel("llama-3.1-8b"));
#ifndef SHARDPROOF_LAYERS_MODELS_CATALOG_H_
#define SHARDPROOF_LAYERS_MODELS_CATALOG_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "layers/models/model_config.h"
#include "reference/status.h"

namespace shardproof::models {

// One file of configs/, as the build embeds it.
struct EmbeddedConfig {
  std::string_view name;  // The file's stem.
  std::string_view json;
};
std::span<const EmbeddedConfig> EmbeddedConfigs();

// The names, sorted: "deepseek-v3", "gpt2", "llama-3.1-405b", ...
std::vector<std::string> ModelNames();

// A built-in model by name, upper and lower case alike. InvalidArgument names all of them.
StatusOr<ModelConfig> FindModel(std::string_view name);

// What `--model` accepts: the name of a built-in model, or the path of a config.json. A word that is neither gives one
// message with both remedies.
StatusOr<ModelConfig> FindOrLoadModel(const std::string& name_or_path);

}  // namespace shardproof::models

#endif  // SHARDPROOF_LAYERS_MODELS_CATALOG_H_
