#include "reports/fingerprint.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string_view>

#include "reports/json_io.h"

namespace shardproof {
namespace {

using Json = nlohmann::ordered_json;

// One row for each member that tells two runs apart.
struct Field {
  std::string name;
  std::string text;
  bool machine = false, epoch = false;
};

std::string Gib(int64_t bytes) {
  constexpr int64_t kGib = int64_t{1} << 30;
  if (bytes <= 0) return {};
  return fmt::format("{} GiB", bytes / kGib + (bytes % kGib >= kGib / 2));
}

// "2 x NVIDIA H100 80GB, 80 GiB; 1 x ..."
std::string GpusText(const std::vector<Gpu>& gpus) {
  std::string text;
  for (size_t i = 0; i < gpus.size();) {
    const auto other =
        std::find_if(gpus.begin() + static_cast<int64_t>(i), gpus.end(),
                     [&](const Gpu& gpu) { return gpu != gpus[i]; });
    const auto end = static_cast<size_t>(other - gpus.begin());
    if (!text.empty()) text += "; ";
    text += fmt::format("{} x {}", end - i, gpus[i].name);
    if (const std::string gib = Gib(gpus[i].memory_bytes); !gib.empty()) {
      text += ", " + gib;
    }
    i = end;
  }
  return text;
}

std::vector<Field> Fields(const Fingerprint& f) {
  std::vector<Field> fields = {
      {.name = "host", .text = f.host},
      {.name = "cpu", .text = f.cpu, .machine = true},
      {.name = "cores",
       .text = f.cores == 0 ? "" : std::to_string(f.cores),
       .machine = true},
      {.name = "memory", .text = Gib(f.memory_bytes), .machine = true},
      {.name = "topology", .text = f.topology, .machine = true},
      {.name = "gpus", .text = GpusText(f.gpus), .machine = true},
      {.name = "kernel", .text = f.kernel, .epoch = true},
      {.name = "governor", .text = f.governor, .epoch = true},
      {.name = "driver", .text = f.driver, .epoch = true},
      {.name = "cuda", .text = f.cuda, .epoch = true},
      {.name = "nccl", .text = f.nccl, .epoch = true},
      {.name = "mpi", .text = f.mpi, .epoch = true},
      {.name = "compiler", .text = f.compiler},
      {.name = "version", .text = f.version},
      {.name = "binary", .text = f.binary},
      {.name = "label", .text = f.label},
  };
  // Sorted: the order in which they were found means nothing.
  auto variables = f.variables;
  std::sort(variables.begin(), variables.end());
  for (auto& [name, value] : variables) {
    fields.push_back(
        {.name = std::move(name), .text = std::move(value), .epoch = true});
  }
  return fields;
}

// FNV-1a, 64 bits, over "name=length:text" of each row that has a text, so
// that a member which a later version adds changes no older identity.
template <class Chosen>
std::string Hash(const Fingerprint& f, const Chosen& chosen) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const Field& field : Fields(f)) {
    if (!chosen(field) || field.text.empty()) continue;
    for (const char c :
         fmt::format("{}={}:{}\n", field.name, field.text.size(), field.text)) {
      hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    }
  }
  return fmt::format("{:016x}", hash);
}

// Up to the first comma: "Open MPI v4.1.4, package: Debian ..." is too much.
std::string_view Short(std::string_view text) {
  return text.substr(0, text.find(','));
}

// The leading words that both have, with the space after them.
size_t CommonWords(std::string_view a, std::string_view b) {
  size_t common = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()) && a[i] == b[i]; ++i) {
    if (a[i] == ' ') common = i + 1;
  }
  return common;
}

std::string ChangeText(const Difference& d) {
  std::string_view before = Short(d.before);
  std::string_view after = Short(d.after);
  if (before == after) {
    before = d.before;
    after = d.after;
  }
  if (before.empty()) before = "none";
  if (after.empty()) after = "none";
  // The words that both have say what it is; else the name of the member does.
  const size_t common = CommonWords(before, after);
  if (common > 0) {
    return fmt::format("{} -> {}", before, after.substr(common));
  }
  return fmt::format("{} {} -> {}", d.field, before, after);
}

std::string Text(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_string() ? it->get<std::string>() : "";
}

int64_t Whole(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
}

double Number(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_number() ? it->get<double>() : 0;
}

}  // namespace

Json ToJson(const Fingerprint& f) {
  Json gpus = Json::array();
  for (const Gpu& gpu : f.gpus) {
    gpus.push_back({{"name", gpu.name}, {"memory_bytes", gpu.memory_bytes}});
  }
  Json variables = Json::object();
  for (const auto& [name, value] : f.variables) variables[name] = value;
  return {{"host", f.host},
          {"cpu", f.cpu},
          {"cores", f.cores},
          {"memory_bytes", f.memory_bytes},
          {"topology", f.topology},
          {"governor", f.governor},
          {"kernel", f.kernel},
          {"gpus", std::move(gpus)},
          {"driver", f.driver},
          {"cuda", f.cuda},
          {"nccl", f.nccl},
          {"mpi", f.mpi},
          {"compiler", f.compiler},
          {"version", f.version},
          {"binary", f.binary},
          {"label", f.label},
          {"variables", std::move(variables)}};
}

Fingerprint FingerprintFromJson(const Json& json) {
  Fingerprint f;
  if (!json.is_object()) return f;
  f.host = Text(json, "host");
  f.cpu = Text(json, "cpu");
  f.cores = static_cast<int>(std::clamp<int64_t>(
      Whole(json, "cores"), 0, std::numeric_limits<int>::max()));
  f.memory_bytes = Whole(json, "memory_bytes");
  f.topology = Text(json, "topology");
  f.governor = Text(json, "governor");
  f.kernel = Text(json, "kernel");
  f.driver = Text(json, "driver");
  f.cuda = Text(json, "cuda");
  f.nccl = Text(json, "nccl");
  f.mpi = Text(json, "mpi");
  f.compiler = Text(json, "compiler");
  f.version = Text(json, "version");
  f.binary = Text(json, "binary");
  f.label = Text(json, "label");
  if (const auto gpus = json.find("gpus");
      gpus != json.end() && gpus->is_array()) {
    for (const Json& gpu : *gpus) {
      if (gpu.is_string()) f.gpus.push_back({.name = gpu.get<std::string>()});
      if (!gpu.is_object()) continue;
      f.gpus.push_back({.name = Text(gpu, "name"),
                        .memory_bytes = Whole(gpu, "memory_bytes")});
    }
  }
  if (const auto variables = json.find("variables");
      variables != json.end() && variables->is_object()) {
    for (const auto& [name, value] : variables->items()) {
      if (!value.is_string()) continue;
      f.variables.emplace_back(name, value.get<std::string>());
    }
  }
  return f;
}

Json ToJson(const Conditions& c) {
  return {{"load", JsonNumber(c.load)},
          {"steal_share", JsonNumber(c.steal_share)},
          {"busy_share", JsonNumber(c.busy_share)},
          {"throttle_events", c.throttle_events},
          {"mhz", JsonNumber(c.mhz)}};
}

Conditions ConditionsFromJson(const Json& json) {
  Conditions c;
  if (!json.is_object()) return c;
  c.load = Number(json, "load");
  c.steal_share = Number(json, "steal_share");
  c.busy_share = Number(json, "busy_share");
  c.throttle_events = Whole(json, "throttle_events");
  c.mhz = Number(json, "mhz");
  return c;
}

std::string MachineId(const Fingerprint& fingerprint) {
  return Hash(fingerprint, [](const Field& field) { return field.machine; });
}

std::string EpochId(const Fingerprint& fingerprint) {
  return Hash(fingerprint, [](const Field& field) { return field.epoch; });
}

std::string EpochChange(const Fingerprint& before, const Fingerprint& after) {
  std::string text;
  for (const Difference& difference : Differences(before, after)) {
    if (!difference.epoch) continue;
    if (!text.empty()) text += "; ";
    text += ChangeText(difference);
  }
  return text;
}

std::vector<Difference> Differences(const Fingerprint& before,
                                    const Fingerprint& after) {
  std::vector<Difference> differences;
  const std::vector<Field> old_fields = Fields(before);
  std::vector<Field> new_fields = Fields(after);
  for (const Field& field : old_fields) {
    const auto same = std::find_if(
        new_fields.begin(), new_fields.end(),
        [&](const Field& other) { return other.name == field.name; });
    std::string text;
    if (same != new_fields.end()) {
      text = std::move(same->text);
      new_fields.erase(same);
    }
    if (text == field.text) continue;
    differences.push_back({.field = field.name,
                           .before = field.text,
                           .after = std::move(text),
                           .machine = field.machine,
                           .epoch = field.epoch});
  }
  for (Field& field : new_fields) {  // Variables that are new.
    if (field.text.empty()) continue;
    differences.push_back({.field = std::move(field.name),
                           .before = "",
                           .after = std::move(field.text),
                           .machine = field.machine,
                           .epoch = field.epoch});
  }
  return differences;
}

}  // namespace shardproof
