#include "collectives/patterns/input.h"

#include "collectives/kernels/copy.h"
#include "collectives/kernels/reduce.h"
#include "collectives/patterns/scratch.h"

namespace shardproof {

StatusOr<const std::byte*> ReductionInput(const Communicator& comm,
                                          const void* send, int64_t count,
                                          DType dtype, ReduceOp op,
                                          double scale, void* room) {
  if (op != ReduceOp::kPremulSum) return static_cast<const std::byte*>(send);
  if (room == nullptr) {
    SP_ASSIGN_OR_RETURN(room, Scratch(comm, ScratchSlot::kInput, count, dtype));
  }
  kernels::Reduce(dtype, ReduceOp::kSum, {&send, 1}, count, {&room, 1},
                  {.scales = {&scale, 1}});
  return static_cast<const std::byte*>(room);
}

StatusOr<const std::byte*> SavedInput(const Communicator& comm,
                                      const void* send, int64_t count,
                                      DType dtype, bool in_place) {
  if (!in_place) return static_cast<const std::byte*>(send);
  SP_ASSIGN_OR_RETURN(std::byte * saved,
                      Scratch(comm, ScratchSlot::kInput, count, dtype));
  kernels::Copy(saved, send, static_cast<size_t>(count * SizeOf(dtype)));
  return static_cast<const std::byte*>(saved);
}

}  // namespace shardproof
