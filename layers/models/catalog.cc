#include "layers/models/catalog.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <system_error>

namespace shardproof::models {
namespace {

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return lower;
}

const EmbeddedConfig* Find(std::string_view name) {
  const std::string wanted = Lower(name);
  for (const EmbeddedConfig& config : EmbeddedConfigs()) {
    if (config.name == wanted) return &config;
  }
  return nullptr;
}

}  // namespace

std::vector<std::string> ModelNames() {
  std::vector<std::string> names;
  for (const EmbeddedConfig& config : EmbeddedConfigs())
    names.emplace_back(config.name);
  std::sort(names.begin(), names.end());
  return names;
}

StatusOr<ModelConfig> FindModel(std::string_view name) {
  const EmbeddedConfig* found = Find(name);
  if (found == nullptr) {
    return InvalidArgument(
        "no built-in model is called \"{}\"; choose one of {}", name,
        fmt::join(ModelNames(), ", "));
  }
  return ParseModelConfig(found->json, found->name, found->name);
}

StatusOr<ModelConfig> FindOrLoadModel(const std::string& name_or_path) {
  if (Find(name_or_path) != nullptr) return FindModel(name_or_path);
  std::error_code error;
  if (std::filesystem::exists(name_or_path, error))
    return LoadModelConfig(name_or_path);
  return InvalidArgument(
      "\"{}\" is neither a file nor a built-in model; give the path of a "
      "config.json, or one of {}",
      name_or_path, fmt::join(ModelNames(), ", "));
}

}  // namespace shardproof::models
