#include "layers/data_parallel_inference/data_parallel_inference.h"

#include <string>

#include "collectives/direct/queue.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {
namespace {

std::vector<int64_t> CountsOf(int ranks,
                              const DataParallelInferenceConfig& config) {
  std::vector<int64_t> counts;
  for (int r = 0; r < ranks; ++r) {
    counts.push_back(BalancedChunk(config.rows, ranks, r).count * config.out);
  }
  return counts;
}

}  // namespace

StatusOr<DataParallelInference> DataParallelInference::Create(
    const Communicator& comm, const DataParallelInferenceConfig& config,
    const CollectiveFamily& collectives) {
  const std::string text =
      fmt::format("data_parallel_inference of {} rows, {} to {}, {}",
                  config.rows, config.in, config.out, Name(config.dtype));
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  if (config.rows < 0 || config.in < 0 || config.out < 0) {
    return InvalidArgument("{}: a size is negative", text);
  }
  DataParallelInference made;
  made.comm_ = comm;
  made.config_ = config;
  made.collectives_ = collectives;
  made.own_ = BalancedChunk(config.rows, comm.size(), comm.rank());
  made.counts_ = CountsOf(comm.size(), config);
  return made;
}

Status DataParallelInference::Run(const void* x, void* y, const Model& model,
                                  const Stream& stream) const {
  const DType dtype = config_.dtype;
  void* const own_y =
      own_.count > 0 ? At(y, dtype, own_.begin * config_.out) : y;
  if (own_.count > 0) {
    SP_RETURN_IF_ERROR(
        model(own_.count, At(x, dtype, own_.begin * config_.in), own_y));
  }
  return direct::Enqueue<AllGatherVArgs>(
      stream, comm_,
      {.send = own_y, .recv = y, .counts = counts_, .dtype = dtype},
      collectives_.all_gather);
}

Cost DataParallelInferenceCost(int ranks,
                               const DataParallelInferenceConfig& config,
                               const CollectiveFamily& collectives) {
  return collectives.all_gather_cost(CountsOf(ranks, config), config.dtype,
                                     collectives.memory);
}

}  // namespace shardproof
