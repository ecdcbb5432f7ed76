// Barrier and ExchangeControl: for set-up and the harness, uncounted and
// unintercepted, so they talk to the board and the backend directly.
#include <cstring>

#include "collectives/backend/node/board.h"
#include "collectives/communicator.h"
#include "collectives/communicator_impl.h"

namespace shardproof {
namespace {

// Waits for all of them, even after an error.
Status WaitForAll(Backend& backend, std::span<Transfer> transfers) {
  Status first;
  for (Transfer& transfer : transfers) {
    if (transfer.state == nullptr) continue;
    Status status = backend.Wait(transfer);
    if (first.ok() && !status.ok()) first = std::move(status);
  }
  return first;
}

struct Block {
  std::byte* data;
  size_t bytes;
};

// Sends `mine` to every other rank and receives theirs[r] from rank r, for the
// ranks with bytes.
Status ExchangeAll(Backend& backend, std::span<const std::byte> mine,
                   std::span<const Block> theirs, int tag) {
  std::vector<Transfer> transfers;
  Status status;
  for (int r = 0; r < backend.size() && status.ok(); ++r) {
    if (r == backend.rank() || theirs[r].bytes == 0) continue;
    auto transfer =
        backend.StartReceive(theirs[r].data, theirs[r].bytes, r, tag);
    status = transfer.status();
    if (transfer.ok()) transfers.push_back(*transfer);
  }
  for (int r = 0; r < backend.size() && status.ok() && !mine.empty(); ++r) {
    if (r == backend.rank()) continue;
    auto transfer = backend.StartSend(mine.data(), mine.size(), r, tag);
    status = transfer.status();
    if (transfer.ok()) transfers.push_back(*transfer);
  }
  // What is under way may never be answered now.
  if (!status.ok()) backend.Abort(status.ToString());
  const Status waited = WaitForAll(backend, transfers);
  return status.ok() ? waited : status;
}

// Dissemination (Hensgen, Finkel and Manber, 1988): in round k every rank tells
// the one 2^k after it.
Status BarrierByMessages(Backend& backend) {
  const int rank = backend.rank(), size = backend.size();
  for (int step = 1; step < size; step *= 2) {
    char out = 0, in = 0;
    std::vector<Transfer> transfers;
    SP_ASSIGN_OR_RETURN(
        Transfer receive,
        backend.StartReceive(&in, 1, (rank - step + size) % size, kBarrierTag));
    auto send = backend.StartSend(&out, 1, (rank + step) % size, kBarrierTag);
    if (!send.ok()) {
      backend.Abort(send.status().ToString());
      static_cast<void>(WaitForAll(backend, {&receive, 1}));
      return std::move(send).status();
    }
    Transfer both[] = {receive, *send};
    SP_RETURN_IF_ERROR(WaitForAll(backend, both));
  }
  return OkStatus();
}

}  // namespace

Status Communicator::Barrier() const {
  return impl_->board != nullptr ? impl_->board->Sync()
                                 : BarrierByMessages(*impl_->backend);
}

StatusOr<std::vector<std::string>> Communicator::ExchangeControl(
    std::string_view mine) const {
  Backend& backend = *impl_->backend;
  const int size = impl_->size;
  std::vector<std::string> all(size);
  std::vector<uint64_t> sizes(size);
  const uint64_t my_size = mine.size();
  std::vector<Block> blocks(size);
  if (impl_->board != nullptr) {
    // One round where everything fits beside the sizes.
    constexpr size_t kFits = NodeBoard::kEagerBytes - sizeof(my_size);
    std::string card(sizeof(my_size), '\0');
    std::memcpy(card.data(), &my_size, sizeof(my_size));
    if (my_size <= kFits) card += mine;
    SP_RETURN_IF_ERROR(
        impl_->board->MeetEager(card.data(), card.size(), impl_->met_eagerly));
    bool all_fit = true;
    for (int r = 0; r < size; ++r) {
      const std::byte* theirs = impl_->met_eagerly[r].send;
      std::memcpy(&sizes[r], theirs, sizeof(my_size));
      all_fit = all_fit && sizes[r] <= kFits;
      if (sizes[r] <= kFits) {
        all[r].assign(reinterpret_cast<const char*>(theirs + sizeof(my_size)),
                      sizes[r]);
      }
    }
    if (all_fit) return all;
  } else {
    for (int r = 0; r < size; ++r) {
      blocks[r] = {reinterpret_cast<std::byte*>(&sizes[r]), sizeof(my_size)};
    }
    SP_RETURN_IF_ERROR(ExchangeAll(backend,
                                   std::as_bytes(std::span(&my_size, 1)),
                                   blocks, kControlSizeTag));
  }
  for (int r = 0; r < size; ++r) {
    all[r].resize(sizes[r]);
    blocks[r] = {reinterpret_cast<std::byte*>(all[r].data()), sizes[r]};
  }
  all[impl_->rank] = mine;
  SP_RETURN_IF_ERROR(ExchangeAll(backend, std::as_bytes(std::span(mine)),
                                 blocks, kControlTextTag));
  return all;
}

}  // namespace shardproof
