// Data parallelism: every rank runs the model on tokens of its own, and the
// gradients are summed over the ranks, in buckets, while backward still runs.
//
// Contract, for d ranks, rank r with micro-batches m in 0..M_r-1 of n_rm tokens
// that count (those that the loss leaves out do not), and g_rm(i) what its
// backward writes for parameter i, the gradient of the SUM of its tokens'
// losses:
//
//     gradient(i) = sum over r, m of g_rm(i) / max(1, sum over r, m of n_rm)
//
// on every rank with the same bits: the gradient of the mean loss of one device
// with the whole batch. (A mean of the ranks' means is something else as soon as
// two ranks have different numbers of tokens, and so is a mean of the
// micro-batches' means.) A parameter that a rank does not use counts as zeros
// there. With `average` off, nothing is divided.
//
// What is sent: an all_reduce of each bucket, 2 (d - 1)/d Psi e bytes per rank
// for Psi parameters of e bytes, and one of the token count, all on the last
// micro-batch of a step.
//
//     SP_ASSIGN_OR_RETURN(DataParallel gradients,
//         DataParallel::Create(replicas, {.counts = {4096 * 4096, 4096},
//                                         .dtype = DType::kF32,
//                                         .overlap = true}));
//     SP_RETURN_IF_ERROR(gradients.BeginStep());
//     for (each micro-batch) {
//       SP_RETURN_IF_ERROR(gradients.BeginMicroBatch(tokens, is_the_last));
//       for (parameter i, in the order in which backward comes to it) {
//         SP_ASSIGN_OR_RETURN(auto to, gradients.Open(i));
//         ... Gemm({..., .c = to.data, .accumulate = to.accumulate}) ...
//         SP_RETURN_IF_ERROR(gradients.Close(i));
//       }
//     }
//     SP_RETURN_IF_ERROR(gradients.Finish());
//     ... gradients.gradient(i) ...
//
// A bucket is reduced as soon as the last of its parameters is closed in the
// last micro-batch; with `overlap` by a stream of its own, on a duplicate of the
// communicator, so that backward goes on meanwhile. Buckets are reduced in the
// order of their numbers on every rank, whatever the order in which they become
// full: ranks that use different parameters would else reduce one another's
// buckets.
//
// The sum is taken before the division: in f16 it may overflow where an average
// would not. A loss that is already divided by the global count (average off)
// does not have that.
//
// Sources: Li et al., PyTorch Distributed: Experiences on Accelerating Data
// Parallel Training, VLDB 2020, section 3.2 (buckets, overlap, order,
// accumulation); Shoeybi et al., arXiv:1909.08053 (a mesh of both).
#ifndef SHARDPROOF_LAYERS_DATA_PARALLEL_DATA_PARALLEL_H_
#define SHARDPROOF_LAYERS_DATA_PARALLEL_DATA_PARALLEL_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/data_parallel/gradient_buckets.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// Equal on all ranks.
struct DataParallelConfig {
  // Elements of each parameter, numbered in the order of use.
  std::vector<int64_t> counts = {};
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  // A bucket holds at most this much, or one parameter.
  int64_t bucket_bytes = int64_t{25} << 20;
  // Reduce on a stream of its own. Off: on the caller's thread, as soon as a
  // bucket is full.
  bool overlap = false;
  bool average = true;
  // The order in which backward writes; empty: the reverse order of use.
  std::vector<int> order = {};
};

class DataParallel {
 public:
  // Where a gradient is to be written: over what is there, or on top of it.
  struct Target {
    void* data = nullptr;
    bool accumulate = false;
  };

  // Collective over the replicas of the parameters (on a mesh, Along("dp")). The
  // same error on every rank: kInvalidArgument for a negative size, a bucket of
  // no bytes, an order that is none, or where ranks differ; kUnsupported for the
  // type; kOutOfMemory for the buffer, which holds the gradients once.
  static StatusOr<DataParallel> Create(
      const Communicator& replicas, const DataParallelConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  DataParallel(DataParallel&&) noexcept;
  DataParallel& operator=(DataParallel&&) noexcept;
  ~DataParallel();

  // Forgets the gradients of the step before. Local. kInvalidArgument where that
  // one has begun its last micro-batch and is not finished: its buckets may be on
  // their way.
  Status BeginStep();
  // `tokens` that count in this rank's next micro-batch. A step has one `last`,
  // on every rank; a rank without tokens has a `last` of 0. A step without is
  // never reduced (PyTorch's no_sync). Collective where `last`.
  Status BeginMicroBatch(int64_t tokens, bool last);
  // kInvalidArgument where the parameter is closed already, and so may be on its
  // way. Again before Close, for a parameter that is used twice: on top of the
  // first.
  StatusOr<Target> Open(int parameter);
  // This micro-batch's gradient is written, or will be by what is queued on
  // `stream`. Collective in the last micro-batch.
  Status Close(int parameter, const Stream& stream = Stream::Inline());
  // Collective, after the backward pass of the last micro-batch. Zeros for what
  // this rank did not use, and what is not reduced yet. On return every gradient
  // is the contract's. Returns the first error of the step's messages.
  Status Finish(const Stream& stream = Stream::Inline());
  // Blocks until the bucket is reduced, once it is full on every rank: what an
  // optimizer needs that updates parameters while later gradients travel.
  Status WaitFor(int bucket) const;

  // This rank's gradient, complete after Finish. Before that, what is written so
  // far; null if nothing is.
  void* gradient(int parameter) const;
  const std::vector<GradientBucket>& buckets() const;

  // Collective, and after what is queued on streams is done. Buckets in another
  // order of writing, for a model whose order is only seen when it runs. What is
  // accumulated moves along; pointers that were given out become invalid.
  // kInvalidArgument for an order that is none, that differs between ranks, or
  // when a bucket may be on its way. The first call asks for a second buffer.
  Status Rebuild(std::span<const int> order);

 private:
  struct State;
  explicit DataParallel(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// What one step sends. The family must have costs.
Cost DataParallelStepCost(int replicas, const DataParallelConfig& config,
                          const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_DATA_PARALLEL_DATA_PARALLEL_H_
