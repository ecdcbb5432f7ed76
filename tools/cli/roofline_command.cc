// shardproof roofline: how fast is each kernel on a GPU, against what the GPU can do?
#include "tools/cli/roofline_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "layers/kernels/cuda/kernel_table.h"
#include "layers/models/catalog.h"
#include "reports/result_file.h"
#include "tools/cli/commands.h"
#include "tools/cli/conditions.h"
#include "tools/cli/environment.h"
#include "tools/cli/gpu_world.h"
#include "tools/cli/interrupt.h"
#include "tools/cli/roofline/machine.h"
#include "tools/cli/roofline/measure_point.h"
#include "tools/cli/roofline_table.h"
#include "tools/cli/session.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;

// Where there is no speed: a row of less than a packet, of several packets, and a few of them.
constexpr int64_t kEmulatedTokens = 12;
constexpr int64_t kEmulatedHidden = 64;

StatusOr<cuda::ModelShape> ShapeOf(const RooflineOptions& o, bool emulated) {
  cuda::ModelShape shape;
  if (emulated) {
    shape = {.tokens = kEmulatedTokens,
             .hidden = kEmulatedHidden,
             .intermediate = 96,
             .vocabulary = 40,
             .heads = 2,
             .kv_heads = 1,
             .head_dim = 64};
  }
  if (!o.common.model.empty()) {
    SP_ASSIGN_OR_RETURN(const models::ModelConfig model,
                        models::FindOrLoadModel(o.common.model));
    shape.hidden = model.hidden;
    shape.intermediate = model.intermediate;
    shape.vocabulary = (model.vocabulary + 7) / 8;
    shape.heads = model.heads;
    shape.kv_heads = model.kv_heads;
    shape.head_dim = model.head_dim;
  }
  if (o.tokens > 0) shape.tokens = o.tokens;
  if (o.hidden > 0) {
    shape.hidden = o.hidden;
    shape.intermediate = o.hidden * 7 / 2;
    shape.heads = std::max<int64_t>(o.hidden / shape.head_dim, 1);
    shape.kv_heads = shape.heads % 4 == 0 ? shape.heads / 4 : shape.heads;
  }
  shape.sequences =
      o.sequences.empty() ? std::vector<int64_t>{shape.tokens} : o.sequences;
  return shape;
}

// What layers compute with on one GPU of a system.
std::shared_ptr<const RankServices> ServicesOn(
    const std::shared_ptr<cuda::GpuSystem>& gpus, int gpu) {
  auto services = std::make_shared<RankServices>();
  services->Put<LayerKernels>(std::make_shared<cuda::LayerKernelsOnGpu>(
      cuda::GpuLanesOptions{.gpus = gpus, .gpu = gpu}, &cuda::FindLayerKernel));
  services->Put<FlashKernels>(cuda::MakeFlashKernelsOnGpu(gpus, gpu));
  return services;
}

class Roofline {
 public:
  Roofline(const RooflineOptions& options,
           std::shared_ptr<cuda::GpuSystem> gpus)
      : options_(options), gpus_(std::move(gpus)) {}

  ExitCode Run() {
    const Status status = TryRun();
    if (!status.ok()) code_ = Worse(code_, Refuse(status));
    return Finish();
  }

 private:
  Status TryRun();
  Status Open();
  StatusOr<std::vector<cuda::KernelPoint>> Choose() const;
  bool Chosen(const Record& record) const {
    return std::regex_search(record.case_name, *filter_);
  }
  void Keep(std::vector<Record> records);
  // Whether to go on: neither interrupted nor out of time, and the GPU still answers.
  bool GoOn(const std::string& next);
  ExitCode Finish();

  StopwatchOptions Timing() const {
    StopwatchOptions timing{.timeout = Timeout()};
    if (options_.common.seconds > 0) timing.seconds = options_.common.seconds;
    return timing;
  }
  std::chrono::milliseconds Timeout() const {
    // 0: never, which is a year.
    const double seconds =
        options_.common.timeout > 0 ? options_.common.timeout : 3e7;
    return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3));
  }

  const RooflineOptions& options_;
  const std::shared_ptr<cuda::GpuSystem> gpus_;
  const Clock::time_point begin_ = Clock::now();
  const std::string started_ = UtcNow();
  ConditionsWatch conditions_;
  std::optional<std::regex> filter_;
  std::optional<ResultFile> file_;
  // Of each GPU, each after what works on it.
  std::vector<std::unique_ptr<CublasLtGemm>> gemms_;
  std::vector<std::unique_ptr<cuda::GpuStream>> streams_;
  std::vector<RooflineGpu> machines_;
  std::string products_;  // Who multiplies, or why nobody.
  RooflineTable table_;
  std::vector<std::string> left_out_;
  ExitCode code_ = kExitPass;
  int passed_ = 0;
  bool interrupted_ = false;
};

Status Roofline::Open() {
  std::shared_ptr<const CublasLtLibrary> library;
  if (gpus_->emulated() && options_.common.cublaslt_library.empty()) {
    products_ = "no products on emulated GPUs without --cublaslt-library";
  } else {
    auto found = CublasLtLibrary::Load(options_.common.cublaslt_library);
    if (!found.ok() && !options_.common.cublaslt_library.empty()) {
      return found.status();
    }
    products_ = found.ok()
                    ? (*found)->Describe()
                    : fmt::format("no products: {}", found.status().message());
    if (found.ok()) library = *std::move(found);
  }
  for (int gpu = 0; gpu < gpus_->count(); ++gpu) {
    std::unique_ptr<CublasLtGemm> gemm;
    if (library != nullptr) {
      SP_ASSIGN_OR_RETURN(gemm, CublasLtGemm::Create(gpus_, gpu, library));
    }
    SP_ASSIGN_OR_RETURN(auto stream, gpus_->gpu(gpu).NewStream());
    machines_.push_back({.gpus = gpus_,
                         .gpu = gpu,
                         .stream = stream.get(),
                         .services = &ServicesOn,
                         .gemm = gemm.get(),
                         .timeout = Timeout()});
    gemms_.push_back(std::move(gemm));
    streams_.push_back(std::move(stream));
  }
  return OkStatus();
}

StatusOr<std::vector<cuda::KernelPoint>> Roofline::Choose() const {
  SP_ASSIGN_OR_RETURN(const cuda::ModelShape shape,
                      ShapeOf(options_, gpus_->emulated()));
  std::vector<cuda::KernelPoint> chosen;
  for (cuda::KernelPoint& point : cuda::AllKernelPoints(shape)) {
    if (!options_.common.dtype.empty() &&
        options_.common.dtype != Name(point.dtype)) {
      continue;
    }
    if (point.product != nullptr && gemms_.front() == nullptr) continue;
    std::vector<cuda::KernelCost> costs = point.kernels;
    if (point.whole.has_value()) costs.push_back(*point.whole);
    if (std::ranges::any_of(costs, [&](const cuda::KernelCost& cost) {
          return std::regex_search("kernels/" + CaseName(cost.name), *filter_);
        })) {
      chosen.push_back(std::move(point));
    }
  }
  if (chosen.empty()) {
    return InvalidArgument("--filter {}: no kernel is called so",
                           options_.common.filter);
  }
  return chosen;
}

void Roofline::Keep(std::vector<Record> records) {
  for (Record& record : records) {
    if (record.verdict != Verdict::kPassed) {
      record.repro = fmt::format("shardproof roofline --filter '^{}$'{}",
                                 record.case_name, GpuFlags(options_.common));
    }
    code_ = Worse(code_, ExitCodeOf(record));
    if (record.verdict == Verdict::kPassed) ++passed_;
    table_.Add(record);
    if (!file_.has_value()) continue;
    const Status written = file_->Append(record);
    if (written.ok()) continue;
    code_ = Worse(code_, Refuse(written));
    file_.reset();
  }
}

bool Roofline::GoOn(const std::string& next) {
  interrupted_ = interrupted_ || Interrupted();
  const double spent =
      std::chrono::duration<double>(Clock::now() - begin_).count();
  std::string why;
  for (const auto& stream : streams_) {
    const StatusOr<bool> done = stream->Done();
    if (!done.ok()) why = done.status().message();
    if (done.ok() && !*done) why = "a kernel does not end";
  }
  if (!why.empty()) code_ = Worse(code_, kExitBackend);
  if (interrupted_) why = "interrupted";
  const double budget = options_.common.time_budget;
  if (why.empty() && budget > 0 && spent > budget) why = "out of time";
  if (!why.empty()) {
    left_out_.push_back(
        fmt::format("roofline: from {} on left out ({})", next, why));
  }
  return why.empty();
}

Status Roofline::TryRun() {
  try {
    filter_.emplace(options_.common.filter);
  } catch (const std::regex_error&) {
    return InvalidArgument("--filter {}: not a regular expression",
                           options_.common.filter);
  }
  if (options_.gpu >= gpus_->count()) {
    return InvalidArgument("--gpu {}: there are {}, from 0 on", options_.gpu,
                           gpus_->count());
  }
  SP_RETURN_IF_ERROR(Open());
  SP_ASSIGN_OR_RETURN(const std::vector<cuda::KernelPoint> points, Choose());
  if (!options_.common.json.empty()) {
    SP_ASSIGN_OR_RETURN(
        ResultFile file,
        ResultFile::Create(
            options_.common.json,
            {.command = options_.common.command_line,
             .started = started_,
             .environment = Environment(options_.common.label)}));
    file_.emplace(std::move(file));
  }
  GpuCeilings ceilings;
  for (const RooflineGpu& machine : machines_) {
    if (!GoOn("ceilings")) return OkStatus();
    MeasuredCeilings found = MeasureCeilings(machine, {.timing = Timing()});
    Keep(std::move(found.records));
    if (machine.gpu == options_.gpu) ceilings = std::move(found.ceilings);
  }
  const RooflineGpu& machine = machines_[static_cast<size_t>(options_.gpu)];
  const MeasurePointOptions how{.cold = !options_.hot, .timing = Timing()};
  for (const cuda::KernelPoint& point : points) {
    if (!GoOn(point.name)) return OkStatus();
    std::vector<Record> records = MeasurePoint(machine, point, ceilings, how);
    std::erase_if(records, [&](const Record& r) { return !Chosen(r); });
    Keep(std::move(records));
  }
  return OkStatus();
}

ExitCode Roofline::Finish() {
  if (interrupted_) code_ = Worse(code_, kExitInterrupted);
  if (table_.size() > 0) {
    fmt::print("{}{}: {}\n{}\n{}",
               gpus_->emulated() ? "emulated, so without times\n" : "",
               cuda::NameOf(*gpus_, options_.gpu), gpus_->Describe(), products_,
               table_.Text());
  }
  for (const std::string& what : left_out_) fmt::print("{}\n", what);
  if (passed_ == 0 && code_ == kExitPass) code_ = kExitInvalid;
  if (file_.has_value()) {
    ResultEnd end{.finished = UtcNow(),
                  .interrupted = interrupted_,
                  .left_out = left_out_};
    end.sections["conditions"] = {{"before", ToJson(conditions_.before())},
                                  {"after", ToJson(conditions_.Stop())}};
    const int64_t records = file_->records();
    const Status finished = file_->Finish(end);
    if (finished.ok()) {
      fmt::print("{} records in {}\n", records, file_->path());
    } else {
      code_ = Worse(code_, Refuse(finished));
    }
  }
  std::fflush(stdout);
  return code_;
}

ExitCode RunRoofline(const RooflineOptions& options) {
  auto gpus = OpenGpus(options.common);
  if (!gpus.ok()) return Refuse(gpus.status());
  return Roofline(options, *std::move(gpus)).Run();
}

}  // namespace

void AddRooflineCommand(CLI::App& app, Options& common,
                        const std::function<void(ExitCode)>& done) {
  auto options =
      std::make_shared<RooflineOptions>(RooflineOptions{.common = common});
  CLI::App* roofline = app.add_subcommand(
      "roofline",
      "Kernels of layers and attention on a GPU, each against the copy and the "
      "product that the GPU reaches in the same run");
  RooflineOptions& o = *options;
  roofline->add_option("--filter", o.common.filter,
                       "Kernels whose case (kernels/normalize) matches this "
                       "regular expression");
  roofline->add_option("--dtype", o.common.dtype, "bf16 or f32 alone")
      ->check(CLI::IsMember({"bf16", "f32"}));
  const auto size = [&](const char* name, int64_t& value, const char* help) {
    roofline->add_option(name, value, help)
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  };
  size("--tokens", o.tokens, "Rows of activations (4096)");
  size("--hidden", o.hidden,
       "Columns of activations (4096); heads and the feed-forward width go "
       "with it");
  roofline
      ->add_option("--sequence", o.sequences,
                   "Tokens of a sequence in attention (all --tokens); "
                   "several numbers are measured one after the other")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  roofline->add_option("--model", o.common.model,
                       "Widths from a model instead of Llama 3.1 8B: a "
                       "built-in name or a Hugging Face config.json");
  roofline->add_flag("--hot", o.hot,
                     "The same operands every time, which the L2 may hold; "
                     "else sets of them take turns that are together more than "
                     "twice the L2");
  roofline->add_option("--gpu", o.gpu, "The GPU whose kernels are measured (0)")
      ->check(CLI::Range(0, 127));
  roofline
      ->add_option("--seconds", o.common.seconds,
                   "Measure each kernel for about so many seconds (0.3)")
      ->check(CLI::Range(1e-3, 1e4));
  roofline->add_option("--json", o.common.json,
                       "Write the results to this file");
  roofline
      ->add_option("--time-budget", o.common.time_budget,
                   "Stop starting kernels after so many seconds, and say "
                   "what was left out")
      ->check(CLI::NonNegativeNumber);
  roofline
      ->add_option("--timeout", o.common.timeout,
                   "Seconds until a kernel counts as hung (0: never)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  roofline->add_option("--label", o.common.label,
                       "What this build is called in reports");
  AddGpuFlags(*roofline, o.common);
  roofline->callback([options, done] { done(RunRoofline(*options)); });
}

}  // namespace shardproof
