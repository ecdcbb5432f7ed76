#include "tools/harness/workspace.h"

#include <cstring>
#include <random>

namespace shardproof {
namespace {

constexpr int64_t kKeepBytes = int64_t{512} << 20;
// Of all instances of a case, so that its variants share them: with probes each
// is many evaluations.
constexpr size_t kKeepEntries = 512;

// Tells this process from all others, on any machine.
uint64_t ProcessNumber() {
  static const uint64_t number = [] {
    std::random_device device;
    return (static_cast<uint64_t>(device()) << 32) ^ device();
  }();
  return number;
}

int64_t SizeOf(const StatusOr<Evaluated>& outputs) {
  int64_t elements = 0;
  if (!outputs.ok()) return 0;
  for (const auto& [name, values] : outputs->values) {
    elements += static_cast<int64_t>(values.size());
  }
  return elements * static_cast<int64_t>(sizeof(Bounded));
}

}  // namespace

std::optional<int> Evaluation::Take() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (taken_ == parts_ || value_ != nullptr) return std::nullopt;
  return taken_++;
}

void Evaluation::Deliver(int part, StatusOr<DenseOutputs> outputs,
                         const Add& add) {
  std::unique_lock<std::mutex> lock(mutex_);
  delivered_.emplace(part, std::move(outputs));
  if (adding_) return;  // Who adds will come to it.
  adding_ = true;
  while (value_ == nullptr) {
    auto next = delivered_.extract(added_);
    if (next.empty()) break;
    lock.unlock();
    const StatusOr<DenseOutputs>& given = next.mapped();
    if (given.ok()) add(next.key(), *given, evaluated_);
    lock.lock();
    ++added_;
    if (!given.ok()) {
      value_ = std::make_shared<const StatusOr<Evaluated>>(given.status());
    } else if (added_ == parts_) {
      value_ =
          std::make_shared<const StatusOr<Evaluated>>(std::move(evaluated_));
    }
  }
  adding_ = false;
  if (value_ != nullptr) done_.notify_all();
}

Evaluation::Dense Evaluation::Wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [this] { return value_ != nullptr; });
  return value_;
}

std::optional<int64_t> Evaluation::bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (value_ == nullptr) return std::nullopt;
  return SizeOf(*value_);
}

Workspace::Found Workspace::Find(uint64_t key, int parts) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Entry& entry : entries_) {
    if (entry.key == key) return {entry.evaluation, false};
  }
  Evict();
  entries_.push_front({key, std::make_shared<Evaluation>(parts)});
  return {entries_.front().evaluation, true};
}

void Workspace::Evict() {
  int64_t bytes = 0;
  size_t count = 0;
  for (auto at = entries_.begin(); at != entries_.end();) {
    const std::optional<int64_t> size = at->evaluation->bytes();
    bytes += size.value_or(0);
    ++count;
    const bool drop =
        size.has_value() && (bytes > kKeepBytes || count >= kKeepEntries);
    at = drop ? entries_.erase(at) : std::next(at);
  }
}

StatusOr<Locality> FindLocality(const Communicator& comm) {
  Locality here;
  here.workspace = std::make_shared<Workspace>();
  struct Card {
    uint64_t process;
    const std::shared_ptr<Workspace>* workspace;
  };
  const Card mine = {ProcessNumber(), &here.workspace};
  SP_ASSIGN_OR_RETURN(
      const std::vector<std::string> cards,
      comm.ExchangeControl(
          {reinterpret_cast<const char*>(&mine), sizeof(mine)}));
  here.local_rank = here.local_ranks = 0;
  std::shared_ptr<Workspace> first;
  for (int r = 0; r < comm.size(); ++r) {
    Card card;
    std::memcpy(&card, cards[r].data(), sizeof(card));
    if (card.process != mine.process) continue;
    if (first == nullptr) first = *card.workspace;
    if (r < comm.rank()) ++here.local_rank;
    ++here.local_ranks;
  }
  // Nobody's own may go, or be replaced, before all have looked.
  SP_RETURN_IF_ERROR(comm.Barrier());
  here.workspace = std::move(first);
  return here;
}

}  // namespace shardproof
