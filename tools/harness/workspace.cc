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

Workspace::Dense Workspace::Get(
    uint64_t key, const std::function<StatusOr<Evaluated>()>& compute) {
  std::unique_lock<std::mutex> lock(mutex_);
  for (auto at = entries_.begin(); at != entries_.end(); ++at) {
    if (at->key != key) continue;
    // List nodes do not move, and an entry that is not done is not evicted.
    Entry& entry = *at;
    done_.wait(lock, [&entry] { return entry.value != nullptr; });
    return entry.value;
  }
  entries_.push_front({.key = key});
  Entry& entry = entries_.front();
  lock.unlock();
  auto value = std::make_shared<const StatusOr<Evaluated>>(compute());
  lock.lock();
  entry.value = value;
  entry.bytes = SizeOf(*value);
  done_.notify_all();
  Evict();
  return value;
}

void Workspace::Evict() {
  int64_t bytes = 0;
  size_t count = 0;
  for (auto at = entries_.begin(); at != entries_.end();) {
    bytes += at->bytes;
    ++count;
    const bool drop = count > 1 && at->value != nullptr &&
                      (bytes > kKeepBytes || count > kKeepEntries);
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
