// Calls of collective kernels as data: what goes in, what must come out, bit for bit, and how a sequence of them is
// drawn from a seed.
//
//     const Instance instance = DrawInstance(Primitive::kAllReduceTwoShot, seed);
//     const CallData data(instance, 0);             // of its first call
//     data.Before(rank, kSend)  ->  run  ->  data.After(rank, kSend)      whole arenas: guards and gaps too
//
// Every rank has two arenas of memory that all calls use again, so that what one call leaves undone is seen in the
// next. The oracle folds in the accumulator's type and in rank order, as the contract says, one element at a time.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_TESTING_KERNEL_CALL_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_TESTING_KERNEL_CALL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/backend/cuda/fiber/fiber_scheduler.h"
#include "collectives/backend/cuda/kernels/primitive.h"
#include "collectives/backend/cuda/kernels/world.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"

namespace shardproof::cuda::testing {

std::string_view Name(Primitive primitive);

struct Call {
  Primitive primitive = Primitive::kBarrier;
  DType dtype = DType::kF32;
  ReduceOp op = ReduceOp::kSum;
  int64_t count = 0;
  int root = 0;
  bool in_place = false;
  // send_recv: rank r sends to r + shift; without `wraps`, those beyond the last rank send to nobody.
  int shift = 0;
  bool wraps = true;
  // Bytes by which buffers lie off a multiple of 16, the same on all ranks or not.
  int misaligned = 0;
  bool evenly = true;
};

struct Instance {
  Grid grid;
  FiberSchedule schedule;
  std::vector<Call> calls;
  uint32_t first_round = 0;
  int64_t slot_bytes = 64;
  uint64_t patience = 0;
};
std::string Describe(const Instance& instance);

// Three calls of the primitive, of different sizes and types, on 1 to 8 ranks.
Instance DrawInstance(Primitive primitive, uint64_t seed);

enum Arena { kSend, kRecv };
using Bytes = std::vector<std::byte>;

// One call's memory. Where its buffers are, before and after.
class CallData {
 public:
  CallData(const Instance& instance, int number);

  // All arenas of all calls are of this size.
  static size_t ArenaBytes(const Instance& instance);

  const Bytes& Before(int rank, Arena arena) const {
    return before_[rank][arena];
  }
  const Bytes& After(int rank, Arena arena) const {
    return after_[rank][arena];
  }
  // Offsets into the arena that holds the buffer.
  Arena SendArena() const { return send_arena_; }
  size_t SendOffset(int rank) const { return send_offset_[rank]; }
  size_t RecvOffset(int rank) const { return recv_offset_[rank]; }
  double Scale(int rank) const;

 private:
  void Place();
  void FillInputs();
  template <class T>
  void FillValues(int rank);
  void Expect();
  template <class T>
  void ExpectFold(int rank, int64_t from, int64_t count);
  const std::byte* Sent(int rank, int64_t element) const;
  std::byte* Received(int rank, int64_t element);
  void ExpectCopy(int from, int64_t from_element, int to, int64_t to_element,
                  int64_t count);

  const Call& call_;
  int ranks_, number_;
  uint64_t seed_;
  int64_t send_count_ = 0, recv_count_ = 0;
  Arena send_arena_ = kSend;
  std::vector<size_t> send_offset_, recv_offset_;
  std::vector<std::array<Bytes, 2>> before_, after_;
};

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_TESTING_KERNEL_CALL_H_
