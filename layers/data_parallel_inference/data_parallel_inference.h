// Data parallelism without gradients: every rank runs the model on rows of its
// own, and the results are put together.
//
// Contract, for d ranks and rows s_r = BalancedChunk(rows, d, r) of x [rows, in]:
//
//     y = concat over r of model(x[s_r])            [rows, out], on every rank
//
// which is model(x) for a model that looks at one row at a time. A rank without
// rows does not run its model. What is sent: an all_gather of y,
// (d - 1)/d rows out e bytes to each rank. x is on every rank already.
//
//     SP_ASSIGN_OR_RETURN(const DataParallelInference inference,
//         DataParallelInference::Create(comm, {.rows = 33, .in = 4096,
//                                              .out = 32000}));
//     SP_RETURN_IF_ERROR(inference.Run(x, y,
//         [&](int64_t rows, const void* x_r, void* y_r) { ... }));
#ifndef SHARDPROOF_LAYERS_DATA_PARALLEL_INFERENCE_DATA_PARALLEL_INFERENCE_H_
#define SHARDPROOF_LAYERS_DATA_PARALLEL_INFERENCE_DATA_PARALLEL_INFERENCE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// Equal on all ranks. There may be fewer rows than ranks, or none.
struct DataParallelInferenceConfig {
  int64_t rows = 0;
  int64_t in = 0;
  int64_t out = 0;
  DType dtype = DType::kF32;
};

class DataParallelInference {
 public:
  // Makes y_r [rows, out] of x_r [rows, in], or queues that on a stream.
  using Model = std::function<Status(int64_t rows, const void* x_r, void* y_r)>;

  // Collective; the same error on every rank. kInvalidArgument for a negative
  // size or where ranks differ.
  static StatusOr<DataParallelInference> Create(
      const Communicator& comm, const DataParallelInferenceConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Collective. x is [rows, in], y [rows, out], both whole on every rank; the
  // model writes to its place in y. Its first error is returned, after which
  // other ranks wait in vain: end the communicator.
  Status Run(const void* x, void* y, const Model& model,
             const Stream& stream = Stream::Inline()) const;

  // The rows of this rank.
  Chunk own() const { return own_; }

 private:
  DataParallelInference() = default;

  Communicator comm_;
  DataParallelInferenceConfig config_;
  CollectiveFamily collectives_;
  Chunk own_;
  std::vector<int64_t> counts_;  // Elements of each rank's results.
};

// What one Run sends. The family must have costs.
Cost DataParallelInferenceCost(int ranks,
                               const DataParallelInferenceConfig& config,
                               const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_DATA_PARALLEL_INFERENCE_DATA_PARALLEL_INFERENCE_H_
