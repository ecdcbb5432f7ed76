// A point (layers/kernels/cuda/benchmark/point.h) made ready on a GPU: its operands there, in several sets, and the launches
// that its function makes with each.
//
//     PreparedPoint point({.gpus = gpus, .gpu = 0, .stream = stream, ...}, spec);
//     SP_RETURN_IF_ERROR(point.Prepare(sets));                      // runs the function on each set
//     SP_ASSIGN_OR_RETURN(const OperandCheck check, point.Check());   // before anything else is queued
//     SP_RETURN_IF_ERROR(point.Queue(set, k));                      // the k-th launch again
#ifndef SHARDPROOF_TOOLS_CLI_ROOFLINE_PREPARED_POINT_H_
#define SHARDPROOF_TOOLS_CLI_ROOFLINE_PREPARED_POINT_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "collectives/backend/cuda/device/gpu.h"
#include "collectives/rank_context.h"
#include "layers/kernels/cuda/benchmark/point.h"
#include "reference/status.h"
#include "tools/cli/roofline/operand_check.h"
#include "tools/cli/roofline/recording_gpu.h"

namespace shardproof {

// What kernels are measured with and on.
struct RooflineGpu {
  std::shared_ptr<cuda::GpuSystem> gpus;
  int gpu = 0;
  cuda::GpuStream* stream = nullptr;
  // What layers compute with on GPU `gpu` of a system, for the context of a thread.
  std::function<std::shared_ptr<const RankServices>(
      const std::shared_ptr<cuda::GpuSystem>& gpus, int gpu)>
      services;
  CublasLtGemm* gemm = nullptr;  // Null: there is no cuBLASLt.
  std::chrono::milliseconds timeout = std::chrono::seconds(60);

  cuda::Gpu& device() const { return gpus->gpu(gpu); }
};

class PreparedPoint {
 public:
  // Both outlive it.
  PreparedPoint(const RooflineGpu& on, const cuda::KernelPoint& point)
      : on_(on), point_(point) {}

  // Of one set.
  int64_t bytes() const;
  int sets() const { return static_cast<int>(sets_.size()); }
  // kInternal where the function launches other kernels than the point says, the host's in their place for instance.
  Status Prepare(int sets);
  // Of what Prepare left in the first set: the worst of the checked operands.
  StatusOr<OperandCheck> Check();
  Status Queue(int set, int kernel);
  Status QueueAll(int set);

 private:
  struct Set {
    // The recording last to go: launches point to what it keeps.
    std::shared_ptr<RecordingGpus> recording;
    std::shared_ptr<const RankServices> services;
    std::vector<Buffer> memory;
    std::vector<void*> at;
  };
  Status Fill();
  StatusOr<Set> MakeSet();
  Status CheckLaunches(const Set& set) const;
  Status Wait() const { return cuda::Synchronize(*on_.stream, on_.timeout); }

  const RooflineGpu& on_;
  const cuda::KernelPoint& point_;
  std::vector<Buffer> host_;  // As operands are at first, by operand.
  std::vector<void*> at_host_;
  std::vector<Set> sets_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_ROOFLINE_PREPARED_POINT_H_
