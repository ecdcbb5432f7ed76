// One rank's memory for one instance: every tensor's block between guard bands,
// outputs that lie in inputs where the case says so.
#ifndef SHARDPROOF_TOOLS_HARNESS_RANK_BUFFERS_H_
#define SHARDPROOF_TOOLS_HARNESS_RANK_BUFFERS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/harness/generated_inputs.h"
#include "tools/harness/tensor_spec.h"
#include "tools/harness/variant.h"

namespace shardproof {

// Keeps memory from one instance to the next: thousands of small instances
// would otherwise spend their time in the allocator. Slots are numbered.
class BufferPool {
 public:
  // At least `bytes`; what slot `slot` held before is gone.
  StatusOr<std::byte*> Get(const Communicator& comm, bool ordinary, size_t slot,
                           size_t bytes);
  // Lets go of slots from `used` on that hold much.
  void Trim(bool ordinary, size_t used);

 private:
  std::vector<Buffer> shared_, ordinary_;
};

class RankBuffers final : public RankContext {
 public:
  // `comm` is what the variant works with. kOutOfMemory when a tensor does not
  // fit, kInvalidArgument when the case's aliases do not fit into one another.
  static StatusOr<std::unique_ptr<RankBuffers>> Create(const Communicator& comm,
                                                       const Tensors& tensors,
                                                       bool ordinary,
                                                       BufferPool& pool);

  const Communicator& comm() const override { return comm_; }
  const Stream& stream() const override { return stream_; }
  ConstTensorView in(std::string_view tensor) const override;
  TensorView out(std::string_view tensor) const override;

  // The same by position in `tensors`.
  const TensorView& view(size_t i) const { return views_[i]; }

  void PoisonOutputs();
  // Poisons the outputs, then fills the inputs, then notes what they are.
  void Fill(const GeneratedInputs& inputs);
  // kDataLoss naming the guard band that was written.
  Status CheckGuards() const;
  // kDataLoss naming the first element of an input that was changed; inputs
  // that an output lies in are left out.
  Status CheckInputs(const GeneratedInputs& inputs) const;

 private:
  // A stretch of memory with guards, for one tensor or two.
  struct Region {
    std::string name;
    size_t bytes = 0;
    std::byte* data = nullptr;
    size_t guard = 0;
  };
  RankBuffers(Communicator comm, const Tensors& tensors)
      : comm_(std::move(comm)), tensors_(tensors) {}
  Status Place();
  Status Allocate(bool ordinary, BufferPool& pool);
  const TensorView& Find(std::string_view tensor, TensorRole role) const;

  Communicator comm_;
  Stream stream_;
  const Tensors& tensors_;
  std::vector<TensorView> views_;
  std::vector<size_t> region_of_, offset_of_;  // By tensor; bytes.
  std::vector<bool> overwritten_;              // Inputs an output lies in.
  std::vector<Region> regions_;
  std::vector<uint64_t> input_hashes_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_RANK_BUFFERS_H_
