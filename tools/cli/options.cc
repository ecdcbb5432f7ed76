#include "tools/cli/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>
#include <utility>

#include "collectives/mesh.h"

namespace shardproof {
namespace {

std::vector<std::string> SplitAtCommas(const std::string& text) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// The names that nccl-tests uses, in ours.
std::string DTypeFromNcclTests(const std::string& name) {
  static const std::map<std::string, std::string> kNames = {
      {"float", "f32"},     {"double", "f64"}, {"half", "f16"},
      {"bfloat16", "bf16"}, {"int8", "i8"},    {"uint8", "u8"},
      {"int32", "i32"},     {"int64", "i64"},  {"fp8_e4m3", "e4m3"},
      {"fp8_e5m2", "e5m2"}};
  const auto found = kNames.find(name);
  return found == kNames.end() ? name : found->second;
}

StatusOr<std::vector<MeshDimension>> ReadMesh(const std::string& text) {
  StatusOr<std::vector<MeshDimension>> mesh = ParseMesh(text);
  if (!mesh.ok()) return InvalidArgument("--mesh: {}", mesh.status().message());
  return mesh;
}

// A comma would begin another value of the axis.
std::string AxisValueOf(const std::vector<MeshDimension>& mesh) {
  std::string value;
  for (const MeshDimension& d : mesh) {
    value += fmt::format("{}{}{}", value.empty() ? "" : "x", d.name, d.size);
  }
  return value;
}

}  // namespace

void AddSelectionFlags(CLI::App& app, Options& options) {
  app.add_option("--backend", options.backend,
                 "thread (ranks as threads, the default), mpi (started by "
                 "mpirun or srun), cuda (ranks on GPUs, our kernels) or nccl "
                 "(ranks on GPUs, NCCL's; threads, or what mpirun starts)");
  app.add_option("--ranks", options.ranks,
                 "How many ranks; several numbers run one after the other")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  app.add_option("--filter", options.filter,
                 "Cases whose name matches this regular expression");
  app.add_option("--axis", options.axis,
                 "name=v1,v2: these values of an axis (see list); repeatable")
      ->take_all();
  app.add_option("--dtype", options.dtype,
                 "The same as --axis dtype=...: f64 f32 bf16 f16 e4m3 e5m2 i8 "
                 "u8 i32 i64");
  app.add_option("--variant", options.variant,
                 "Variants whose whole name matches this regular expression");
  app.add_option("--seed", options.seed, "Of all inputs")
      ->capture_default_str();
  app.add_option("--memory", options.memory,
                 "shared (peers can address the buffers) or ordinary (they "
                 "cannot: staged copies)")
      ->check(CLI::IsMember({"shared", "ordinary"}))
      ->capture_default_str();
  AddGpuFlags(app, options);
}

void AddMeshFlag(CLI::App& app, Options& options) {
  app.add_option("--mesh", options.mesh,
                 "tp=2,pp=2,dp=2, innermost first: the ranks of a training "
                 "step, along tp, cp, ep, pp and dp. The same as --axis "
                 "mesh=tp2xpp2xdp2 --ranks 8");
}

void AddModelFlags(CLI::App& app, Options& options) {
  app.add_option("--model", options.model,
                 "Sizes from a model: a built-in name or a Hugging Face "
                 "config.json");
  const auto size = [&](const char* name, int64_t& value, const char* help) {
    app.add_option(name, value, help)->check(CLI::PositiveNumber);
  };
  size("--tp", options.layout.tp, "Tensor-parallel size (default: the ranks)");
  size("--cp", options.layout.cp, "Context-parallel size");
  size("--pp", options.layout.pp, "Pipeline stages");
  size("--dp", options.layout.dp, "Data-parallel size");
  size("--sequence", options.layout.sequence, "Tokens of a sample");
  size("--micro-batch", options.layout.micro_batch, "Samples of a micro-batch");
}

void AddRunFlags(CLI::App& app, Options& options) {
  app.add_option("--json", options.json, "Write the results to this file");
  app.add_option("--time-budget", options.time_budget,
                 "Stop starting cases after so many seconds, and say what was "
                 "left out")
      ->check(CLI::NonNegativeNumber);
  app.add_option(
         "--timeout", options.timeout,
         "Seconds until a case counts as hung (0: never), ten times as long "
         "on emulated GPUs; besides, a second for every 4 Mi elements of its "
         "buffers")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--history", options.history,
                 "Store the records in this history (see history)");
  app.add_option("--label", options.label,
                 "What this build is called in reports and in the history: a "
                 "commit, a build number");
  app.add_option("--fault", options.fault,
                 "Plant this fault (see mutants) into every case");
}

void AddMeasureFlags(CLI::App& app, Options& options) {
  app.add_option("--cadence", options.cadence,
                 "isolated (a barrier before each operation) or streaming "
                 "(back to back)")
      ->check(CLI::IsMember({"isolated", "streaming"}))
      ->capture_default_str();
}

void AddLaunchFlags(CLI::App& app, Options& options) {
  app.add_option("--seconds", options.seconds,
                 "Measure each instance for at most so many seconds (0.5)")
      ->check(CLI::Range(1e-3, 1e4));
  app.add_option("--blocks", options.blocks,
                 "Go through all instances so many times, each with its part "
                 "of the seconds, and take the median of those: a disturbance "
                 "then spoils one of them and not the whole")
      ->check(CLI::Range(1, 99))
      ->capture_default_str();
  app.add_flag("--no-ceilings", options.no_ceilings,
               "Do not measure what the machine can do: no floors, no "
               "predictions");
  app.add_option("--plan", options.plan,
                 "Only the instances that this file names, one a line: a share "
                 "by which one rank is made slower (0: not), and a key as in "
                 "`history`")
      ->check(CLI::ExistingFile);
}

void AddGpuFlags(CLI::App& app, Options& options) {
  const std::string group = "GPUs";
  app.add_option("--nccl-library", options.nccl_library,
                 "The library with NCCL's interface, by its path (default: "
                 "libnccl.so.2, then the CUDA toolkit's)")
      ->group(group);
  app.add_option("--cublaslt-library", options.cublaslt_library,
                 "The library with cuBLASLt's interface, by its path (default: "
                 "libcublasLt.so.13 or .12, then the CUDA toolkit's; on "
                 "emulated GPUs the host multiplies)")
      ->group(group);
  app.add_option(
         "--emulate-gpus", options.emulate_gpus,
         "Run the cuda backend's kernels in fibers of the CPU, as on so "
         "many GPUs: correctness without a GPU, no times")
      ->check(CLI::Range(1, 16))
      ->group(group);
  app.add_flag("--require-gpu", options.require_gpu,
               "Fail where no GPU is usable")
      ->group(group);
}

void AddNcclTestsFlags(CLI::App& app, Options& options) {
  const std::string group = "As in nccl-tests";
  app.add_option("-b", options.min_bytes,
                 "Smallest size in bytes (32K, 1Mi), of the whole operation: "
                 "the n of algbw, such as the result of an all_gather")
      ->group(group);
  app.add_option("-e", options.max_bytes, "Largest size in bytes")
      ->group(group);
  app.add_option("-f", options.step_factor, "Factor between sizes (2)")
      ->group(group);
  app.add_option("-g", options.gpus, "Ranks")->group(group);
  app.add_option("-n", options.iterations, "Timed iterations")->group(group);
  app.add_option("-w", options.warmup, "Warm-up iterations")->group(group);
  app.add_option("-c", options.check,
                 "Accepted for compatibility: results are always checked")
      ->group(group);
  app.add_option("-o", options.reduction, "Operation: sum prod min max avg")
      ->group(group);
  app.add_option("-d", options.datatype, "Type: float half bfloat16 int32 ...")
      ->group(group);
  app.add_option("-r", options.root, "Root rank")->group(group);
}

StatusOr<int64_t> ParseBytes(const std::string& text) {
  int64_t bytes = 0;
  std::string plain = text;
  // nccl-tests means powers of 1024 by K, M and G.
  if (!plain.empty() &&
      std::string("KMGkmg").find(plain.back()) != std::string::npos) {
    plain.back() = static_cast<char>(std::toupper(plain.back()));
    plain += 'i';
  }
  const Status parsed = ParseAxisValue(plain, &bytes);
  if (!parsed.ok() || bytes < 0) {
    return InvalidArgument("\"{}\" is not a size in bytes, such as 32K or 1Mi",
                           text);
  }
  return bytes;
}

StatusOr<std::vector<int>> RanksOf(const Options& options,
                                   const std::vector<int>& fallback) {
  if (options.mesh.empty()) {
    return options.ranks.empty() ? fallback : options.ranks;
  }
  SP_ASSIGN_OR_RETURN(const std::vector<MeshDimension> mesh,
                      ReadMesh(options.mesh));
  int64_t product = 1;
  for (const MeshDimension& d : mesh) {
    // Both factors are below 2^31.
    product =
        std::min<int64_t>(product * d.size, std::numeric_limits<int>::max());
  }
  const int ranks = static_cast<int>(product);
  if (options.ranks.empty()) return std::vector<int>{ranks};
  for (const int n : options.ranks) {
    if (n == ranks) continue;
    return InvalidArgument("--mesh {} is of {} ranks, and there are {}",
                           options.mesh, ranks, n);
  }
  return options.ranks;
}

StatusOr<AxisOverrides> OverridesOf(const Options& options) {
  AxisOverrides overrides;
  for (const std::string& text : options.axis) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0 ||
        equals + 1 == text.size()) {
      return InvalidArgument(
          "--axis {}: an axis is written name=value or name=v1,v2", text);
    }
    overrides[text.substr(0, equals)] = SplitAtCommas(text.substr(equals + 1));
  }
  if (!options.mesh.empty()) {
    if (overrides.contains("mesh")) {
      return InvalidArgument("--mesh {} and --axis mesh=...: one of the two",
                             options.mesh);
    }
    SP_ASSIGN_OR_RETURN(const std::vector<MeshDimension> mesh,
                        ReadMesh(options.mesh));
    overrides["mesh"] = {AxisValueOf(mesh)};
  }
  if (!options.dtype.empty()) {
    overrides["dtype"] = SplitAtCommas(options.dtype);
  }
  if (!options.datatype.empty()) {
    overrides["dtype"] = {DTypeFromNcclTests(options.datatype)};
  }
  if (!options.reduction.empty()) overrides["op"] = {options.reduction};
  return overrides;
}

MeasureOptions MeasureOptionsOf(const Options& options) {
  MeasureOptions measure;
  measure.cadence =
      options.cadence == "streaming" ? Cadence::kStreaming : Cadence::kIsolated;
  measure.fixed_iterations = options.iterations;
  measure.fixed_warmup = options.warmup;
  if (options.seconds > 0) {
    measure.max_seconds = options.seconds;
    measure.warmup_seconds =
        std::min(measure.warmup_seconds, options.seconds / 4);
  }
  measure.max_seconds /= options.blocks;
  measure.warmup_seconds /= options.blocks;
  return measure;
}

}  // namespace shardproof
