#include "tools/cli/roofline/prepared_point.h"

#include <cstring>
#include <utility>

#include "reference/compare.h"

namespace shardproof {
namespace {

// This thread computes with `services` while it lives; with null on the host.
class Computing {
 public:
  explicit Computing(std::shared_ptr<const RankServices> services)
      : before_(CurrentContext()) {
    SetCurrentContext(std::move(services));
  }
  ~Computing() { SetCurrentContext(before_); }
  Computing(const Computing&) = delete;
  Computing& operator=(const Computing&) = delete;

 private:
  const std::shared_ptr<const RankServices> before_;
};

// Null for what has no elements: an operand that is not there.
void* AddressOf(const Buffer& buffer) {
  return buffer.bytes() == 0 ? nullptr : buffer.data();
}

size_t Bytes(const cuda::Operand& operand) {
  return static_cast<size_t>(operand.bytes());
}

}  // namespace

int64_t PreparedPoint::bytes() const {
  int64_t bytes = 0;
  for (const cuda::Operand& operand : point_.operands) bytes += operand.bytes();
  return bytes;
}

Status PreparedPoint::Fill() {
  for (const cuda::Operand& operand : point_.operands) {
    Buffer buffer;
    if (operand.count > 0) {
      SP_ASSIGN_OR_RETURN(buffer, AllocateOrdinary(Bytes(operand)));
      if (operand.fill != nullptr) {
        operand.fill(buffer.data());
      } else {
        Poison(operand.dtype, buffer.data(), operand.count);
      }
    }
    at_host_.push_back(AddressOf(buffer));
    host_.push_back(std::move(buffer));
  }
  return OkStatus();
}

StatusOr<PreparedPoint::Set> PreparedPoint::MakeSet() {
  Set set;
  for (size_t i = 0; i < point_.operands.size(); ++i) {
    const cuda::Operand& operand = point_.operands[i];
    Buffer buffer;
    if (operand.count > 0) {
      SP_ASSIGN_OR_RETURN(buffer, on_.device().Allocate(Bytes(operand)));
      // By the GPU, so that pages are there and not here.
      SP_RETURN_IF_ERROR(
          on_.stream->Copy(buffer.data(), at_host_[i], Bytes(operand)));
    }
    set.at.push_back(AddressOf(buffer));
    set.memory.push_back(std::move(buffer));
  }
  SP_RETURN_IF_ERROR(Wait());
  if (point_.product != nullptr) {
    SP_RETURN_IF_ERROR(point_.product(*on_.gemm, *on_.stream, set.at.data()));
    SP_RETURN_IF_ERROR(Wait());
    return set;
  }
  set.recording = std::make_shared<RecordingGpus>(on_.gpus, *on_.stream);
  set.services = on_.services(set.recording, on_.gpu);
  const Computing computing(set.services);
  SP_RETURN_IF_ERROR(point_.run(set.at.data()));
  SP_RETURN_IF_ERROR(CheckLaunches(set));
  return set;
}

Status PreparedPoint::CheckLaunches(const Set& set) const {
  std::string got, want;
  for (const auto& launch : set.recording->launches()) got += " " + launch.name;
  for (const auto& kernel : point_.kernels) want += " " + kernel.name;
  if (got == want) return OkStatus();
  return Internal("{} launched{}, and not{}", point_.name,
                  got.empty() ? " nothing" : got, want);
}

Status PreparedPoint::Prepare(int sets) {
  SP_RETURN_IF_ERROR(Fill());
  for (int i = 0; i < sets; ++i) {
    SP_ASSIGN_OR_RETURN(Set set, MakeSet());
    sets_.push_back(std::move(set));
  }
  return OkStatus();
}

StatusOr<OperandCheck> PreparedPoint::Check() {
  std::vector<Buffer> got(point_.operands.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const cuda::Operand& operand = point_.operands[i];
    if (!operand.checked || operand.count == 0) continue;
    SP_ASSIGN_OR_RETURN(got[i], AllocateOrdinary(Bytes(operand)));
    SP_RETURN_IF_ERROR(
        on_.stream->Copy(got[i].data(), sets_.front().at[i], Bytes(operand)));
  }
  SP_RETURN_IF_ERROR(Wait());
  {
    const Computing on_host(nullptr);
    SP_RETURN_IF_ERROR(
        (point_.host != nullptr ? point_.host : point_.run)(at_host_.data()));
  }
  OperandCheck worst;
  bool any = false;
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i].bytes() == 0) continue;
    OperandCheck found =
        CompareOperand(point_.operands[i], got[i].data(), at_host_[i]);
    const bool worse = !any || (worst.passed && !found.passed) ||
                       (worst.passed == found.passed &&
                        found.error.worst_ratio > worst.error.worst_ratio);
    any = true;
    if (worse) worst = std::move(found);
  }
  if (!any) return Internal("{} has nothing to check", point_.name);
  return worst;
}

Status PreparedPoint::Queue(int set, int kernel) {
  Set& mine = sets_[static_cast<size_t>(set)];
  if (point_.product != nullptr) {
    return point_.product(*on_.gemm, *on_.stream, mine.at.data());
  }
  return on_.stream->Launch(
      mine.recording->launches()[static_cast<size_t>(kernel)]);
}

Status PreparedPoint::QueueAll(int set) {
  for (size_t k = 0; k < point_.kernels.size(); ++k) {
    SP_RETURN_IF_ERROR(Queue(set, static_cast<int>(k)));
  }
  return OkStatus();
}

}  // namespace shardproof
