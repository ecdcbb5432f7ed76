#include "tools/cli/roofline/measure_point.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include "layers/kernels/cuda/benchmark/copy_launch.h"

namespace shardproof {
namespace {

// Of sets, and of bytes of all of them. Smaller operands stay in the L2 even so, and their records say hot.
constexpr int kMostSets = 64;
constexpr int64_t kMostBytes = int64_t{4} << 30;
// What has no size of an L2 shows that sets take turns.
constexpr int kEmulatedSets = 2;

class Measurement {
 public:
  Measurement(const RooflineGpu& on, const cuda::KernelPoint& point,
              const GpuCeilings& ceilings, const MeasurePointOptions& options)
      : on_(on),
        spec_(point),
        ceilings_(ceilings),
        options_(options),
        l2_(cuda::L2Bytes(*on.gpus, on.gpu)),
        sets_(SetsOf(point)) {
    for (const cuda::KernelCost& cost : spec_.kernels) Add(cost);
    if (spec_.whole.has_value()) Add(*spec_.whole);
  }

  std::vector<Record> Run() {
    const Status status = Measure();
    if (!status.ok()) {
      const bool known = status.code() == StatusCode::kUnsupported ||
                         status.code() == StatusCode::kOutOfMemory;
      for (Record& record : records_) {
        if (record.verdict == Verdict::kIncorrect) continue;
        record.verdict = known ? Verdict::kUnsupported : Verdict::kFailed;
        record.reason = status.message();
        record.time_us.reset();
      }
    }
    return std::move(records_);
  }

 private:
  // As many as the kernel that moves least needs to find nothing in the L2.
  int SetsOf(const cuda::KernelPoint& point) const {
    if (!options_.cold) return 1;
    if (on_.gpus->emulated()) return kEmulatedSets;
    const int64_t bytes =
        std::max<int64_t>(PreparedPoint(on_, point).bytes(), 1);
    const auto most = std::clamp<int64_t>(kMostBytes / bytes, 1, kMostSets);
    int sets = 1;
    for (const cuda::KernelCost& cost : point.kernels) {
      sets = std::max(sets, SetsForCold(static_cast<int64_t>(cost.bytes), l2_,
                                        static_cast<int>(most)));
    }
    return sets;
  }
  bool IsCold(const cuda::KernelCost& cost) const {
    return options_.cold &&
           (on_.gpus->emulated() ||
            (l2_ > 0 && sets_ * cost.bytes > 2 * static_cast<double>(l2_)));
  }

  void Add(const cuda::KernelCost& cost) {
    Record record{
        .case_name = fmt::format("{}/{}", options_.folder, CaseName(cost.name)),
        .variant = spec_.variant,
        .backend = "cuda",
        .params = spec_.params,
        .native = spec_.product != nullptr,
        .emulated = on_.gpus->emulated()};
    if (CaseName(cost.name) != spec_.name) {
      record.params.emplace_back("of", spec_.name);
    }
    record.params.emplace_back("cache", IsCold(cost) ? "cold" : "hot");
    record.params.push_back(cuda::Param("gpu", on_.gpu));
    records_.push_back(std::move(record));
    costs_.push_back(cost);
  }

  Status Measure() {
    if (spec_.product != nullptr && on_.gemm == nullptr) {
      return Unsupported("there is no cuBLASLt here");
    }
    PreparedPoint point(on_, spec_);
    SP_RETURN_IF_ERROR(point.Prepare(sets_));
    SP_ASSIGN_OR_RETURN(const OperandCheck check, point.Check());
    Judge(check);
    if (!check.passed || on_.gpus->emulated()) return OkStatus();
    return Time(point);
  }

  void Judge(const OperandCheck& check) {
    for (Record& record : records_) {
      record.verdict = check.passed ? Verdict::kPassed : Verdict::kIncorrect;
      record.reason = check.reason;
      record.error = check.error;
    }
  }

  Status Time(PreparedPoint& point) {
    const Stopwatch watch(on_.device(), *on_.stream, options_.timing);
    const int sets = sets_;
    const size_t kernels = spec_.kernels.size();
    std::vector<std::optional<Samples>> samples(records_.size());
    if (!std::ranges::all_of(spec_.kernels, &cuda::KernelCost::repeats)) {
      SP_ASSIGN_OR_RETURN(
          std::vector<Samples> steps,
          watch.Steps(sets, static_cast<int>(kernels),
                      [&](int i, int k) { return point.Queue(i % sets, k); }));
      for (size_t k = 0; k < kernels; ++k) samples[k] = std::move(steps[k]);
    }
    for (size_t k = 0; k < kernels; ++k) {
      if (samples[k].has_value()) continue;
      SP_ASSIGN_OR_RETURN(samples[k], watch.Batches(sets, [&](int i) {
        return point.Queue(i % sets, static_cast<int>(k));
      }));
    }
    if (spec_.whole.has_value()) {
      SP_ASSIGN_OR_RETURN(samples.back(), watch.Batches(sets, [&](int i) {
        return point.QueueAll(i % sets);
      }));
    }
    for (size_t k = 0; k < records_.size(); ++k) Report(k, *samples[k]);
    return OkStatus();
  }

  void Report(size_t k, const Samples& samples) {
    Record& record = records_[k];
    record.time_us = TimeOf(samples.us, samples.launches);
    const Share share =
        ShareOf(costs_[k], spec_.dtype, record.time_us->median, ceilings_);
    if (share.gbps > 0) record.algbw_gbps = share.gbps;
    if (share.tflops > 0) record.gflops = 1e3 * share.tflops;
    record.floor_us = share.floor_us;
    if (!share.finding.empty()) record.time_us->flags.push_back(share.finding);
  }

  const RooflineGpu& on_;
  const cuda::KernelPoint& spec_;
  const GpuCeilings& ceilings_;
  const MeasurePointOptions& options_;
  const int64_t l2_;  // 0: not known, and nothing is cold.
  const int sets_;
  std::vector<Record> records_;
  std::vector<cuda::KernelCost> costs_;  // By record.
};

}  // namespace

std::string CaseName(std::string_view kernel) {
  std::string name;
  for (const char c : kernel) {
    const bool upper = std::isupper(static_cast<unsigned char>(c)) != 0;
    if (upper && !name.empty()) name += '_';
    name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  // One word, as everybody writes it.
  if (const size_t at = name.find("swi_glu"); at != std::string::npos) {
    name.erase(at + 3, 1);
  }
  return name;
}

std::vector<Record> MeasurePoint(const RooflineGpu& on,
                                 const cuda::KernelPoint& point,
                                 const GpuCeilings& ceilings,
                                 const MeasurePointOptions& options) {
  return Measurement(on, point, ceilings, options).Run();
}

}  // namespace shardproof
