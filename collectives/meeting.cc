// Meetings: the fast path within a node.
#include <cassert>

#include "collectives/backend/node/board.h"
#include "collectives/communicator.h"
#include "collectives/communicator_impl.h"

namespace shardproof {
namespace {

[[gnu::cold]] Status NoBoard() {
  return Unsupported(
      "the ranks of this communicator are on several nodes and share no "
      "memory");
}

}  // namespace

uint64_t Peers::sequence() const { return communicator_->impl().sequence; }

const std::byte* Peers::Read(int peer, size_t offset, size_t bytes) const {
  assert(offset + bytes <= buffers_[peer].send_bytes);
  Communicator::Impl& impl = communicator_->impl();
  if (peer != impl.rank) {
    impl.traffic->Count(bytes);
    if (impl.interceptor != nullptr) [[unlikely]] {
      return impl.interceptor->OnLoad(*impl.current, impl.rank, peer,
                                      buffers_[peer].send + offset, bytes);
    }
  }
  return buffers_[peer].send + offset;
}

std::byte* Peers::Write(int peer, size_t offset, size_t bytes) const {
  assert(offset + bytes <= buffers_[peer].recv_bytes);
  Communicator::Impl& impl = communicator_->impl();
  if (peer != impl.rank) {
    impl.traffic->Count(bytes);
    if (impl.interceptor != nullptr) [[unlikely]] {
      return impl.interceptor->OnStore(*impl.current, impl.rank, peer,
                                       buffers_[peer].recv + offset, bytes);
    }
  }
  return buffers_[peer].recv + offset;
}

const std::byte* Peers::ReadBack(int peer, size_t offset, size_t bytes) const {
  assert(offset + bytes <= buffers_[peer].recv_bytes);
  Communicator::Impl& impl = communicator_->impl();
  if (peer != impl.rank) {
    impl.traffic->Count(bytes);
    if (impl.interceptor != nullptr) [[unlikely]] {
      return impl.interceptor->OnLoad(*impl.current, impl.rank, peer,
                                      buffers_[peer].recv + offset, bytes);
    }
  }
  return buffers_[peer].recv + offset;
}

bool Communicator::SharesMemory() const { return impl_->board != nullptr; }

size_t Communicator::EagerLimit() const {
  return impl_->board != nullptr ? NodeBoard::kEagerBytes : 0;
}

Status Communicator::BeginMeet(const Offer& offer) const {
  Impl& impl = *impl_;
  if (impl.board == nullptr) [[unlikely]]
    return NoBoard();
  if ((offer.send == nullptr && offer.send_bytes != 0) ||
      (offer.recv == nullptr && offer.recv_bytes != 0)) [[unlikely]] {
    return impl.Note(InvalidArgument(
        "a meeting offers null as {} buffer of {} bytes",
        offer.send == nullptr && offer.send_bytes != 0 ? "send" : "recv",
        offer.send == nullptr && offer.send_bytes != 0 ? offer.send_bytes
                                                       : offer.recv_bytes));
  }
  impl.board->BeginMeet(
      {offer.send, offer.send_bytes, offer.recv, offer.recv_bytes});
  return OkStatus();
}

StatusOr<Peers> Communicator::EndMeet() const {
  Impl& impl = *impl_;
  Peers peers;
  peers.communicator_ = this;
  peers.buffers_ = impl.met;
  SP_RETURN_IF_ERROR(
      impl.Note(impl.board->EndMeet(impl.met, &peers.all_shared_)));
  return peers;
}

StatusOr<Peers> Communicator::Meet(const Offer& offer) const {
  return Meet(offer, [] {});
}

StatusOr<Peers> Communicator::MeetEager(const void* data, size_t bytes) const {
  Impl& impl = *impl_;
  if (impl.board == nullptr) [[unlikely]]
    return NoBoard();
  if (bytes > NodeBoard::kEagerBytes || (data == nullptr && bytes != 0))
      [[unlikely]] {
    return impl.Note(InvalidArgument(
        "an eager meeting takes up to {} bytes and no null; it was given {} "
        "bytes at {}",
        NodeBoard::kEagerBytes, bytes, data));
  }
  Peers peers;
  peers.communicator_ = this;
  peers.buffers_ = impl.met_eagerly;
  SP_RETURN_IF_ERROR(
      impl.Note(impl.board->MeetEager(data, bytes, impl.met_eagerly)));
  return peers;
}

Status Communicator::Sync() const {
  Impl& impl = *impl_;
  if (impl.board == nullptr) [[unlikely]]
    return NoBoard();
  return impl.Note(impl.board->Sync());
}

Status Communicator::BeginDepart() const {
  Impl& impl = *impl_;
  if (impl.board == nullptr) [[unlikely]]
    return NoBoard();
  if (impl.interceptor != nullptr) [[unlikely]] {
    impl.interceptor->OnDepart(*impl.current, impl.rank);
  }
  impl.board->BeginSync();
  return OkStatus();
}

Status Communicator::EndDepart() const {
  return impl_->Note(impl_->board->EndSync());
}

Status Communicator::Depart(const Peers& peers) const {
  return Depart(peers, [] {});
}

}  // namespace shardproof
