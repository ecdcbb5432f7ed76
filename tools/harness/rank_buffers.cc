#include "tools/harness/rank_buffers.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "reference/compare.h"
#include "tools/harness/hash.h"

namespace shardproof {
namespace {

// Slots larger than this are not kept for instances that need much less.
constexpr size_t kLarge = size_t{16} << 20;
constexpr size_t kNoRegion = ~size_t{0};

// Wide enough for any vector register, and for large tensors so wide that the
// data begin on a page.
size_t GuardBytes(size_t bytes) {
  return bytes >= (size_t{1} << 20) ? 4096 : 256;
}

}  // namespace

StatusOr<std::byte*> BufferPool::Get(const Communicator& comm, bool ordinary,
                                     size_t slot, size_t bytes) {
  std::vector<Buffer>& slots = ordinary ? ordinary_ : shared_;
  if (slots.size() <= slot) slots.resize(slot + 1);
  Buffer& buffer = slots[slot];
  const bool too_large = buffer.bytes() > kLarge && bytes < buffer.bytes() / 4;
  if (buffer.bytes() < bytes || too_large) {
    buffer = Buffer();  // First, so that both need not fit.
    SP_ASSIGN_OR_RETURN(
        buffer, ordinary ? AllocateOrdinary(bytes) : comm.Allocate(bytes));
  }
  return buffer.data();
}

void BufferPool::Trim(bool ordinary, size_t used) {
  std::vector<Buffer>& slots = ordinary ? ordinary_ : shared_;
  for (size_t i = used; i < slots.size(); ++i) {
    if (slots[i].bytes() > kLarge) slots[i] = Buffer();
  }
}

StatusOr<std::unique_ptr<RankBuffers>> RankBuffers::Create(
    const Communicator& comm, const Tensors& tensors, bool ordinary,
    BufferPool& pool) {
  std::unique_ptr<RankBuffers> buffers(new RankBuffers(comm, tensors));
  SP_RETURN_IF_ERROR(buffers->Place());
  SP_RETURN_IF_ERROR(buffers->Allocate(ordinary, pool));
  return buffers;
}

// Decides which tensors share a region. An output that lies in an input makes
// no region; an input that is part of an output makes none either.
Status RankBuffers::Place() {
  const size_t n = tensors_.size();
  region_of_.assign(n, kNoRegion);
  offset_of_.assign(n, 0);
  overwritten_.assign(n, false);
  std::vector<size_t> host(n, kNoRegion);  // The tensor each one lies in.
  for (size_t i = 0; i < n; ++i) {
    const TensorSpec& spec = tensors_[i];
    const LocalBlock block = spec.BlockOf(comm_.rank(), comm_.size());
    views_.push_back({spec.dtype, block.shape, nullptr});
  }
  for (size_t i = 0; i < n; ++i) {
    const TensorSpec& spec = tensors_[i];
    if (spec.alias.empty()) continue;
    const TensorSpec* other = FindTensor(tensors_, spec.alias);
    if (other == nullptr || other->role != TensorRole::kInput ||
        other->dtype != spec.dtype) {
      return InvalidArgument("{} cannot lie in \"{}\": no input of that type",
                             spec.name, spec.alias);
    }
    const auto j = static_cast<size_t>(other - tensors_.data());
    if (views_[i].num_elements() == 0 || views_[j].num_elements() == 0) {
      continue;
    }
    const size_t inner = spec.alias_is_part ? j : i;
    const size_t outer = spec.alias_is_part ? i : j;
    const int64_t at = spec.alias_offset ? spec.alias_offset(comm_.rank()) : 0;
    if (at < 0 ||
        at + views_[inner].num_elements() > views_[outer].num_elements()) {
      return InvalidArgument("{} at element {} does not fit into {} on rank {}",
                             tensors_[inner].name, at, tensors_[outer].name,
                             comm_.rank());
    }
    host[inner] = outer;
    offset_of_[inner] =
        static_cast<size_t>(at) * static_cast<size_t>(SizeOf(spec.dtype));
    overwritten_[j] = true;
  }
  for (size_t i = 0; i < n; ++i) {
    if (host[i] != kNoRegion || views_[i].num_elements() == 0) continue;
    region_of_[i] = regions_.size();
    regions_.push_back({.name = tensors_[i].name,
                        .bytes = static_cast<size_t>(views_[i].num_bytes())});
  }
  for (size_t i = 0; i < n; ++i) {
    if (host[i] != kNoRegion) region_of_[i] = region_of_[host[i]];
  }
  return OkStatus();
}

Status RankBuffers::Allocate(bool ordinary, BufferPool& pool) {
  for (size_t r = 0; r < regions_.size(); ++r) {
    Region& region = regions_[r];
    region.guard = GuardBytes(region.bytes);
    auto memory = pool.Get(comm_, ordinary, r, region.bytes + 2 * region.guard);
    if (!memory.ok()) return memory.status().WithContext(region.name);
    region.data = *memory + region.guard;
    FillGuard(*memory, static_cast<int64_t>(region.guard));
    FillGuard(region.data + region.bytes, static_cast<int64_t>(region.guard));
  }
  pool.Trim(ordinary, regions_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    // Without elements, the pointer is null, as frameworks pass it.
    if (views_[i].num_elements() == 0) continue;
    views_[i].data = regions_[region_of_[i]].data + offset_of_[i];
  }
  return OkStatus();
}

const TensorView& RankBuffers::Find(std::string_view tensor,
                                    TensorRole role) const {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].name == tensor && tensors_[i].role == role) {
      return views_[i];
    }
  }
  fmt::print(stderr,
             "shardproof: a variant asks for {} \"{}\", which its case does "
             "not have\n",
             role == TensorRole::kInput ? "input" : "output", tensor);
  std::abort();
}

ConstTensorView RankBuffers::in(std::string_view tensor) const {
  return Find(tensor, TensorRole::kInput);
}

TensorView RankBuffers::out(std::string_view tensor) const {
  return Find(tensor, TensorRole::kOutput);
}

void RankBuffers::PoisonOutputs() {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].role == TensorRole::kOutput) {
      Poison(tensors_[i].dtype, views_[i].data, views_[i].num_elements());
    }
  }
}

void RankBuffers::Fill(const GeneratedInputs& inputs) {
  PoisonOutputs();
  input_hashes_.assign(tensors_.size(), 0);
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].role == TensorRole::kOutput) continue;
    inputs.FillBlock(tensors_[i], comm_.rank(), views_[i].data);
    if (overwritten_[i]) continue;
    input_hashes_[i] =
        HashBytes(views_[i].data, static_cast<size_t>(views_[i].num_bytes()));
  }
}

Status RankBuffers::CheckGuards() const {
  for (const Region& r : regions_) {
    const auto guard = static_cast<int64_t>(r.guard);
    SP_RETURN_IF_ERROR(CheckGuard(r.data - r.guard, guard,
                                  fmt::format("the memory before {}", r.name)));
    SP_RETURN_IF_ERROR(CheckGuard(r.data + r.bytes, guard,
                                  fmt::format("the memory behind {}", r.name)));
  }
  return OkStatus();
}

Status RankBuffers::CheckInputs(const GeneratedInputs& inputs) const {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const TensorSpec& spec = tensors_[i];
    const TensorView& view = views_[i];
    if (spec.role == TensorRole::kOutput || overwritten_[i]) continue;
    const auto bytes = static_cast<size_t>(view.num_bytes());
    if (HashBytes(view.data, bytes) == input_hashes_[i]) continue;
    // Make it again, to say where it changed.
    Tensor before(spec.dtype, view.shape);
    inputs.FillBlock(spec, comm_.rank(), before.raw());
    const auto* now = static_cast<const std::byte*>(view.data);
    const auto size = static_cast<size_t>(SizeOf(spec.dtype));
    int64_t first = 0;
    while (first < view.num_elements() &&
           std::memcmp(now + first * SizeOf(spec.dtype),
                       before.bytes().data() + first * SizeOf(spec.dtype),
                       size) == 0) {
      ++first;
    }
    return DataLoss("input {} was changed at {}", spec.name,
                    Coordinates(view.shape, first).ToString());
  }
  return OkStatus();
}

}  // namespace shardproof
