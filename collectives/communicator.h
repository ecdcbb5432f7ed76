// A group of ranks and the ways data crosses between them.
//
// Collectives are free functions over a Communicator (all_reduce/all_reduce.h and its neighbours). They are built from
// three things:
//   * messages (Send, Recv and their non-blocking forms): work anywhere;
//   * meetings (Meet, Depart): the ranks of one node show each other their buffers, load and store through them, and
//     part. Two flag rounds, no copies: the fast path;
//   * eager meetings (MeetEager): a small payload travels with the flag itself. One flag round.
//
//     OpScope op(comm, {.label = "all_reduce/direct", .dtype = args.dtype, .count = args.count});
//     SP_RETURN_IF_ERROR(op.status());
//     SP_ASSIGN_OR_RETURN(Peers peers, comm.Meet({args.send, bytes, args.recv, bytes}));
//     ... peers.Read(r, offset, n) ... peers.Write(r, offset, n) ...
//     return comm.Depart(peers);
//
// A meeting exchanges addresses, so buffers need not lie at equal offsets on every rank, and a buffer allocated on the
// world serves every sub-communicator. Rejected: a symmetric heap in the sense of OpenSHMEM (one offset names a buffer on
// every rank). Ranks would have to allocate in lockstep, which sub-communicators and unequal shards break.
#ifndef SHARDPROOF_COLLECTIVES_COMMUNICATOR_H_
#define SHARDPROOF_COLLECTIVES_COMMUNICATOR_H_

#include <any>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/backend.h"
#include "collectives/device.h"
#include "collectives/interceptor.h"
#include "collectives/op.h"
#include "collectives/traffic.h"
#include "reference/status.h"

namespace shardproof {

// What a rank shows its peers for the time of one operation. Either part may be empty.
struct Offer {
  const void* send = nullptr;
  size_t send_bytes = 0;
  void* recv = nullptr;
  size_t recv_bytes = 0;
};

class Communicator;

// The buffers of all ranks during a meeting, addressable from here. Valid until the next call on the communicator
// (eager) or until Depart.
class Peers {
 public:
  // False when some rank offered memory that its peers cannot address (ordinary memory of another process). All ranks
  // get the same answer; they must then work through staging buffers from Communicator::Staging.
  bool AllShared() const { return all_shared_; }
  int size() const { return static_cast<int>(buffers_.size()); }
  // The number of the operation that meets: one more than that of the last.
  uint64_t sequence() const;

  // `bytes` at `offset` of what `peer` sends, to load from. Counts as traffic when `peer` is another rank.
  const std::byte* Read(int peer, size_t offset, size_t bytes) const;
  // `bytes` at `offset` of where `peer` receives, to store to. Counts likewise.
  std::byte* Write(int peer, size_t offset, size_t bytes) const;
  // `bytes` at `offset` of where `peer` receives, to load from (its stores must be complete: call Communicator::Sync
  // between). Counts likewise.
  const std::byte* ReadBack(int peer, size_t offset, size_t bytes) const;
  // The sizes that `peer` offered, in bytes.
  size_t SendBytes(int peer) const { return buffers_[peer].send_bytes; }
  size_t RecvBytes(int peer) const { return buffers_[peer].recv_bytes; }

 private:
  friend class Communicator;
  const Communicator* communicator_ = nullptr;
  std::span<PeerBuffers> buffers_;
  bool all_shared_ = true;
};

// A non-blocking message. Must be waited for.
using Request = Transfer;

class Communicator {
 public:
  Communicator() =
      default;  // Invalid: what Split gives a rank that is in no group.
  explicit Communicator(std::shared_ptr<Backend> backend);

  bool valid() const { return impl_ != nullptr; }
  int rank() const;
  int size() const;
  const Topology& topology() const;
  std::string_view backend_name() const;
  Backend& backend() const;

  // Collective. Ranks with equal `color` form a group ordered by (key, rank); a negative color gets an invalid one. The
  // new communicator inherits the interceptor and adds to the same traffic counter.
  StatusOr<Communicator> Split(int color, int key) const;
  // Collective. The same ranks with a sequence of its own: one per stream that is used concurrently.
  StatusOr<Communicator> Duplicate() const;

  // Peer-addressable memory; a local call. kOutOfMemory says how much was asked for and how much there is.
  StatusOr<Buffer> Allocate(size_t bytes) const;

  // --- Meetings, within a node -------------------------------------------------------------------------------------
  // Whether Meet, MeetEager and Sync work here: all ranks share a node.
  bool SharesMemory() const;
  // The largest payload of MeetEager, in bytes.
  size_t EagerLimit() const;
  // Shows `offer` to every rank and returns once every rank has shown its own.
  StatusOr<Peers> Meet(const Offer& offer) const;
  // The same, with `meanwhile()` called while the offers of others are on their way: for what a rank does on its own. It
  // must not call the communicator, and is called whether or not memory turns out to be shared.
  template <class Meanwhile>
  StatusOr<Peers> Meet(const Offer& offer, const Meanwhile& meanwhile) const {
    SP_RETURN_IF_ERROR(BeginMeet(offer));
    meanwhile();
    return EndMeet();
  }
  // Publishes a copy of `bytes` at `data` (at most EagerLimit(), may differ between ranks) and returns once every rank
  // has. Read serves the payloads. Needs no Depart.
  StatusOr<Peers> MeetEager(const void* data, size_t bytes) const;
  // A flag round inside a meeting: every rank's loads and stores before it happen before every rank's after it.
  Status Sync() const;
  // Ends a meeting: returns once every rank has called it, so buffers may be reused.
  Status Depart(const Peers& peers) const;
  // The same, with `meanwhile()` called once this rank is done with the memory of others, before it waits for them. It
  // must not call the communicator.
  template <class Meanwhile>
  Status Depart(const Peers& /*peers*/, const Meanwhile& meanwhile) const {
    SP_RETURN_IF_ERROR(BeginDepart());
    meanwhile();
    return EndDepart();
  }
  // This rank's staging buffer of at least `bytes` (peer-addressable, kept between calls), for ordinary memory.
  StatusOr<std::span<std::byte>> Staging(size_t bytes) const;

  // --- Messages ----------------------------------------------------------------------------------------------------
  // Matched by (peer, tag) in order; lengths of both sides must agree. bytes may be 0: nothing travels, nothing counts.
  Status Send(const void* data, size_t bytes, int destination,
              int tag = 0) const;
  Status Recv(void* data, size_t bytes, int source, int tag = 0) const;
  // Both at once, without deadlock.
  Status SendRecv(const void* out, size_t out_bytes, int destination, void* in,
                  size_t in_bytes, int source, int tag = 0) const;
  StatusOr<Request> Isend(const void* data, size_t bytes, int destination,
                          int tag = 0) const;
  StatusOr<Request> Irecv(void* data, size_t bytes, int source,
                          int tag = 0) const;
  Status Wait(Request& request) const;
  Status WaitAll(std::span<Request> requests) const;

  // Returns once every rank has called it. Not a benchmarked primitive (that is barrier/): it opens no OpScope and is
  // neither counted nor intercepted.
  Status Barrier() const;
  // Uncounted, unintercepted exchange of small control data: out[r] is what rank r gave. For harness and set-up code.
  StatusOr<std::vector<std::string>> ExchangeControl(
      std::string_view mine) const;

  // The library under test. kUnsupported says why not.
  Status Native(const NativeRequest& request) const;

  // Ends every wait of every rank with kAborted.
  void Abort(std::string_view reason) const;
  Status health() const;

  // What this rank has put on the wire through this communicator and those split from it.
  Traffic traffic() const;
  // Installs `interceptor` (null removes it) for this rank on this communicator and those split from it later. Not owned.
  void Intercept(Interceptor* interceptor) const;

  // A value that belongs to this communicator, made at first use: sub-communicators of a hierarchy, thresholds, scratch.
  // `make` is called at most once per key and rank, and may be collective if all ranks call Attribute alike.
  template <class T>
  StatusOr<T*> Attribute(const std::string& key,
                         const std::function<StatusOr<T>()>& make) const {
    std::any& slot = AttributeSlot(key);
    if (!slot.has_value()) {
      SP_ASSIGN_OR_RETURN(T value, make());
      slot = std::make_shared<T>(std::move(value));
    }
    return std::any_cast<std::shared_ptr<T>&>(slot).get();
  }

  class Impl;
  Impl& impl() const { return *impl_; }

 private:
  friend class OpScope;
  Status BeginMeet(const Offer& offer) const;
  StatusOr<Peers> EndMeet() const;
  Status BeginDepart() const;
  Status EndDepart() const;
  std::any& AttributeSlot(const std::string& key) const;
  std::shared_ptr<Impl> impl_;
};

// Opens an operation: numbers it, records it for the watchdog, tells the interceptor. Closes it when destroyed.
// Scopes nest (a hierarchical all_reduce opens those of its parts); the innermost names what the transport does.
class OpScope {
 public:
  OpScope(const Communicator& comm, const Op& op);
  ~OpScope();
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

  const Status& status() const { return status_; }
  int root() const { return op_.root; }
  uint64_t sequence() const { return op_.sequence; }

 private:
  const Communicator& comm_;
  Op op_;
  const Op* outer_ = nullptr;
  uint64_t failures_ = 0;
  Status status_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_COMMUNICATOR_H_
