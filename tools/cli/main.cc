// shardproof: the one binary.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "collectives/backend/nccl/process/rank_server.h"
#include "layers/models/catalog.h"
#include "tools/cli/commands.h"
#include "tools/cli/gpu_world.h"
#include "tools/cli/interconnect_commands.h"
#include "tools/cli/interrupt.h"
#include "tools/cli/jobs.h"
#include "tools/cli/pipeline.h"
#include "tools/cli/report_commands.h"
#include "tools/cli/roofline_command.h"
#include "tools/harness/allocator.h"

namespace shardproof {
namespace {

// Only one process of a job explains; which rank it is must be known before MPI
// is, since flags are read first.
bool FirstProcess() {
  for (const char* name :
       {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (const char* rank = std::getenv(name)) return std::string(rank) == "0";
  }
  return true;
}

std::string Footer() {
  return fmt::format(
      "Built-in models: {}.\n"
      "Exit codes: 0 pass, 1 mismatch, 2 usage, 3 regression, 4 inconclusive, "
      "5 invalid measurement or missing data, 6 launcher or backend failure, "
      "124 hang, 130 interrupted.",
      fmt::join(models::ModelNames(), ", "));
}

// CLI11 would only say of a word that is none that a command is missing.
Status CheckCommand(CLI::App& app, const std::string& word) {
  std::vector<std::string> names;
  for (const CLI::App* one : app.get_subcommands(
           [](CLI::App* command) { return !command->get_name().empty(); })) {
    names.push_back(one->get_name());
  }
  if (std::find(names.begin(), names.end(), word) != names.end()) {
    return OkStatus();
  }
  return InvalidArgument(
      "there is no command \"{}\": did you mean {}? `shardproof --help` shows "
      "all",
      word, Near(word, names));
}

int Main(int argc, char** argv) {
  Options options;
  options.layout.tp = 0;
  options.command_line =
      fmt::format("{}", fmt::join(std::vector<std::string>(
                                      argv + (argc > 0 ? 1 : 0), argv + argc),
                                  " "));
  std::string explained;
  bool list_as_json = false;
  ExitCode code = kExitPass;

  CLI::App app{
      "Is the sharded computation the same as the single-device one, and how "
      "fast is it?",
      "shardproof"};
  app.footer(Footer());
  app.require_subcommand(1);
  app.option_defaults()->always_capture_default(false);

  CLI::App* list = app.add_subcommand("list", "Cases, axes, variants, mutants");
  AddSelectionFlags(*list, options);
  list->add_flag("--json", list_as_json, "As JSON");
  list->callback([&] { code = RunList(options, list_as_json); });

  CLI::App* run = app.add_subcommand(
      "run", "The main job: verify, then measure at the sizes of a model");
  AddSelectionFlags(*run, options);
  AddModelFlags(*run, options);
  AddRunFlags(*run, options);
  AddMeasureFlags(*run, options);
  run->add_flag("--no-history", options.no_history,
                "Do not store the records in the history");
  run->callback([&] { code = RunMain(options); });

  CLI::App* verify = app.add_subcommand("verify", "Conformance only");
  AddSelectionFlags(*verify, options);
  AddMeshFlag(*verify, options);
  AddRunFlags(*verify, options);
  verify->callback([&] { code = RunVerify(options); });

  CLI::App* bench = app.add_subcommand(
      "bench", "Measurement; each instance is verified first");
  AddSelectionFlags(*bench, options);
  AddMeshFlag(*bench, options);
  AddModelFlags(*bench, options);
  AddRunFlags(*bench, options);
  AddMeasureFlags(*bench, options);
  AddLaunchFlags(*bench, options);
  AddNcclTestsFlags(*bench, options);
  bench->callback([&] { code = RunBench(options); });

  CLI::App* explain = app.add_subcommand(
      "explain", "What each rank holds, what is sent, what it costs");
  explain->add_option("case", explained, "The name of a case (see list)")
      ->required();
  AddSelectionFlags(*explain, options);
  AddMeshFlag(*explain, options);
  explain->callback([&] { code = RunExplain(options, explained); });

  CLI::App* mutants = app.add_subcommand(
      "mutants", "Planted faults against every case: the kill matrix");
  AddSelectionFlags(*mutants, options);
  AddMeshFlag(*mutants, options);
  AddRunFlags(*mutants, options);
  mutants->callback([&] { code = RunMutants(options); });

  CLI::App* doctor = app.add_subcommand(
      "doctor", "What is usable here, and why the rest is not");
  AddGpuFlags(*doctor, options);
  doctor->callback([&] { code = RunDoctor(options); });

  // Without a group it is in no list.
  CLI::App* nccl_rank = app.add_subcommand(
      kNcclRankCommand, "One rank of NCCL: started by this program alone");
  nccl_rank->group("");
  nccl_rank->callback([&] { code = RunNcclRank(); });

  AddInterconnectCommands(app, options, [&](ExitCode c) { code = c; });
  AddRooflineCommand(app, options, [&](ExitCode c) { code = c; });

  PipelineOptions pipeline_options;
  CLI::App* pipeline = app.add_subcommand(
      "pipeline",
      "Pipeline schedules: list, draw, trace, check a table of one's own; what "
      "a mesh of ranks sends");
  AddPipelineCommands(*pipeline, pipeline_options,
                      [&](ExitCode c) { code = c; });

  const auto done = [&](ExitCode c) { code = c; };
  AddReportCommand(app, done);
  AddCompareCommand(app, done);
  AddGateCommand(app, done);
  AddHistoryCommand(app, done);
  AddAbCommand(app, done, options.command_line);
  AddCalibrateCommand(app, done, options.command_line);

  if (argc > 1 && argv[1][0] != '-') {
    if (const Status known = CheckCommand(app, argv[1]); !known.ok()) {
      return Refuse(known);
    }
  }
  InstallSignalHandlers();
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    if (FirstProcess()) {
      fmt::print(stderr,
                 "shardproof: {}; `shardproof {}--help` shows the flags\n",
                 error.what(),
                 app.get_subcommands().empty()
                     ? ""
                     : app.get_subcommands().front()->get_name() + " ");
    }
    return kExitUsage;
  }
  return code;
}

}  // namespace

ExitCode Refuse(const Status& status) {
  if (FirstProcess()) {
    fmt::print(stderr, "shardproof: {}\n", status.message());
  }
  return ExitCodeOf(status);
}

}  // namespace shardproof

int main(int argc, char** argv) {
  shardproof::KeepFreedMemory();
  return shardproof::Main(argc, argv);
}
