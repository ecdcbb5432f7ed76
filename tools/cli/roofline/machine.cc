#include "tools/cli/roofline/machine.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <utility>

#include "layers/kernels/cuda/benchmark/copy_launch.h"
#include "layers/kernels/cuda/benchmark/gemm.h"
#include "tools/cli/roofline/measure_point.h"

namespace shardproof {
namespace {

// Several turns of all threads, and not a whole number of them.
constexpr size_t kEmulatedBytes = 12304;

class CopyCeiling {
 public:
  CopyCeiling(const RooflineGpu& on, const CeilingOptions& options)
      : on_(on), options_(options) {
    const auto l2 = static_cast<size_t>(cuda::L2Bytes(*on.gpus, on.gpu));
    bytes_ =
        on.gpus->emulated() ? kEmulatedBytes : std::max(options.copied, 8 * l2);
  }

  // Two buffers, the one full of numbers, and on the GPU: it has written both.
  Status Prepare() {
    SP_ASSIGN_OR_RETURN(from_, on_.device().Allocate(bytes_));
    SP_ASSIGN_OR_RETURN(to_, on_.device().Allocate(bytes_));
    SP_ASSIGN_OR_RETURN(host_, AllocateOrdinary(bytes_));
    SP_ASSIGN_OR_RETURN(got_, AllocateOrdinary(bytes_));
    const cuda::Operand numbers = cuda::Random(
        "copied", DType::kF32, static_cast<int64_t>(bytes_ / sizeof(float)));
    numbers.fill(host_.data());
    SP_RETURN_IF_ERROR(on_.stream->Copy(from_.data(), host_.data(), bytes_));
    return Wait();
  }

  // 0 where it did not work.
  double Measure(const std::string& variant,
                 const std::function<Status()>& copy,
                 std::vector<Record>& records) const {
    Record record{.case_name = "ceilings/copy",
                  .variant = variant,
                  .backend = "cuda",
                  .params = {cuda::Param("bytes", static_cast<int64_t>(bytes_)),
                             cuda::Param("gpu", on_.gpu)},
                  .verdict = Verdict::kPassed,
                  .native = variant == "stream",
                  .emulated = on_.gpus->emulated()};
    double rate = 0;
    const Status status = Try(copy, record, rate);
    if (!status.ok()) {
      record.verdict = status.code() == StatusCode::kDataLoss
                           ? Verdict::kIncorrect
                           : Verdict::kFailed;
      record.reason = status.message();
    }
    records.push_back(std::move(record));
    return rate;
  }

  void* to() const { return to_.data(); }
  const void* from() const { return from_.data(); }
  size_t bytes() const { return bytes_; }

 private:
  Status Wait() const { return cuda::Synchronize(*on_.stream, on_.timeout); }

  Status Try(const std::function<Status()>& copy, Record& record,
             double& rate) const {
    // What the other has left there must not pass for this one's.
    std::memset(got_.data(), 0xff, bytes_);
    SP_RETURN_IF_ERROR(on_.stream->Copy(to_.data(), got_.data(), bytes_));
    SP_RETURN_IF_ERROR(copy());
    SP_RETURN_IF_ERROR(on_.stream->Copy(got_.data(), to_.data(), bytes_));
    SP_RETURN_IF_ERROR(Wait());
    if (std::memcmp(got_.data(), host_.data(), bytes_) != 0) {
      return DataLoss("what was copied is not what it is a copy of");
    }
    record.error =
        Record::Error{.tier = "exact",
                      .compared = static_cast<int64_t>(bytes_ / sizeof(float))};
    if (on_.gpus->emulated()) return OkStatus();
    const Stopwatch watch(on_.device(), *on_.stream, options_.timing);
    SP_ASSIGN_OR_RETURN(const Samples samples,
                        watch.Batches(1, [&](int) { return copy(); }));
    record.time_us = TimeOf(samples.us, samples.launches);
    rate = 2 * static_cast<double>(bytes_) / record.time_us->median;
    record.algbw_gbps = rate / 1e3;
    return OkStatus();
  }

  const RooflineGpu& on_;
  const CeilingOptions& options_;
  size_t bytes_ = 0;
  Buffer from_, to_, host_, got_;
};

void MeasureCopies(const RooflineGpu& on, const CeilingOptions& options,
                   MeasuredCeilings& found) {
  CopyCeiling ceiling(on, options);
  const Status prepared = ceiling.Prepare();
  const cuda::GpuInfo& info = on.device().info();
  const auto best = [&](double rate) {
    double& so_far = found.ceilings.copy_bytes_per_us;
    so_far = std::max(so_far, rate);
  };
  const auto or_error = [&](auto copy) -> std::function<Status()> {
    return [=]() -> Status {
      SP_RETURN_IF_ERROR(prepared);
      return copy();
    };
  };
  // Few blocks that run long, and many.
  for (const int blocks : {2, 8, 32}) {
    const cuda::LaunchShape shape =
        on.gpus->emulated()
            ? cuda::LaunchShape{2, 32}
            : cuda::LaunchShape{blocks * info.multiprocessors, 512};
    const std::string name = "kernel_" + std::to_string(blocks);
    best(ceiling.Measure(name, or_error([&ceiling, &on, shape] {
                           return on.stream->Launch(
                               cuda::CopyLaunch(ceiling.to(), ceiling.from(),
                                                ceiling.bytes(), shape));
                         }),
                         found.records));
  }
  best(ceiling.Measure("stream", or_error([&ceiling, &on] {
                         return on.stream->Copy(ceiling.to(), ceiling.from(),
                                                ceiling.bytes());
                       }),
                       found.records));
}

}  // namespace

MeasuredCeilings MeasureCeilings(const RooflineGpu& on,
                                 const CeilingOptions& options) {
  MeasuredCeilings found;
  MeasureCopies(on, options, found);
  if (on.gemm == nullptr) return found;
  const int64_t square = on.gpus->emulated() ? 16 : options.square;
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    const cuda::KernelPoint point =
        cuda::ProductPoint(dtype, {square, square, square});
    std::vector<Record> records = MeasurePoint(
        on, point, {},
        {.cold = false, .timing = options.timing, .folder = "ceilings"});
    const Record& record = records.front();
    if (record.gflops.has_value()) {
      found.ceilings.flops_per_us[dtype] = *record.gflops * 1e3;
    }
    found.records.insert(found.records.end(), records.begin(), records.end());
  }
  return found;
}

}  // namespace shardproof
