// Meetings: what ranks of one node see of each other's memory.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "collectives/backend/conformance.h"

namespace shardproof::conformance {
namespace {

// Ranks offer different sizes, read all of each other's and write into each
// other's: rank s puts its part behind those of the ranks before it.
Status MeetRound(const Communicator& comm, size_t unit, int salt) {
  const int p = comm.size();
  const int me = comm.rank();
  const size_t mine = unit * (me + 1);
  const size_t part = unit + 3;
  SP_ASSIGN_OR_RETURN(const Buffer send, comm.Allocate(mine));
  SP_ASSIGN_OR_RETURN(const Buffer recv, comm.Allocate(p * part));
  Fill({send.data(), mine}, me, 0, salt);
  std::memset(recv.data(), 0, p * part);

  SP_ASSIGN_OR_RETURN(const Peers peers,
                      comm.Meet({send.data(), mine, recv.data(), p * part}));
  if (!peers.AllShared()) return Internal("allocated memory is not shared");
  if (peers.size() != p) return Internal("{} peers, not {}", peers.size(), p);
  std::vector<std::byte> pattern(part);
  for (int r = 0; r < p; ++r) {
    if (peers.SendBytes(r) != unit * (r + 1) ||
        peers.RecvBytes(r) != p * part) {
      return Internal("rank {} offers {} and {} bytes", r, peers.SendBytes(r),
                      peers.RecvBytes(r));
    }
    SP_RETURN_IF_ERROR(Verify(
        {peers.Read(r, 0, unit * (r + 1)), unit * static_cast<size_t>(r + 1)},
        r, 0, salt, "a direct load"));
    Fill(pattern, me, r, salt);
    std::memcpy(peers.Write(r, me * part, part), pattern.data(), part);
  }
  SP_RETURN_IF_ERROR(comm.Sync());
  // Every store is visible now, to its owner and to others.
  const int other = (me + 1) % p;
  for (int s = 0; s < p; ++s) {
    SP_RETURN_IF_ERROR(
        Verify({recv.data() + s * part, part}, s, me, salt, "a direct store"));
    SP_RETURN_IF_ERROR(Verify({peers.ReadBack(other, s * part, part), part}, s,
                              other, salt, "a direct store, read back"));
  }
  return comm.Depart(peers);
}

Status Meet(const Communicator& comm) {
  if (!comm.SharesMemory()) {
    const Status status = comm.Meet({}).status();
    if (status.code() == StatusCode::kUnsupported) return OkStatus();
    return Internal("a meeting between nodes gave {}", status.ToString());
  }
  for (int round = 0; round < 20; ++round) {
    SP_RETURN_IF_ERROR(MeetRound(comm, 1 + 37 * round, round));
  }
  for (const size_t unit : {size_t{70000}, size_t{3} << 20}) {
    SP_RETURN_IF_ERROR(MeetRound(comm, unit, 99));
  }
  return OkStatus();
}

// Offers may be empty, and may be a part of an allocation.
Status MeetWithParts(const Communicator& comm) {
  if (!comm.SharesMemory()) return OkStatus();
  const int p = comm.size();
  const int me = comm.rank();
  SP_ASSIGN_OR_RETURN(const Buffer whole, comm.Allocate(1000));
  std::byte* const part = whole.data() + 100 + me;
  Fill({part, 64}, me, 7, 1);
  const bool giver = me % 2 == 0;
  SP_ASSIGN_OR_RETURN(
      const Peers peers,
      comm.Meet(giver ? Offer{.send = part, .send_bytes = 64} : Offer{}));
  if (!peers.AllShared()) return Internal("part of a buffer is not shared");
  for (int r = 0; r < p; ++r) {
    if (peers.SendBytes(r) != (r % 2 == 0 ? 64u : 0u)) {
      return Internal("rank {} offers {} bytes", r, peers.SendBytes(r));
    }
    if (r % 2 != 0) continue;
    SP_RETURN_IF_ERROR(
        Verify({peers.Read(r, 0, 64), 64}, r, 7, 1, "part of a buffer"));
  }
  return comm.Depart(peers);
}

// One rank's ordinary memory: whether it can be addressed depends on the
// backend, but all ranks must be told the same, and staging always works.
Status OrdinaryMemory(const Communicator& comm) {
  if (!comm.SharesMemory()) return OkStatus();
  const int p = comm.size();
  SP_ASSIGN_OR_RETURN(const Buffer ordinary, AllocateOrdinary(256));
  SP_ASSIGN_OR_RETURN(const Buffer shared, comm.Allocate(256));
  for (int owner = 0; owner < p; ++owner) {
    std::byte* const data =
        comm.rank() == owner ? ordinary.data() : shared.data();
    SP_ASSIGN_OR_RETURN(Peers peers,
                        comm.Meet({.send = data, .send_bytes = 256}));
    const bool all_shared = peers.AllShared();
    SP_RETURN_IF_ERROR(comm.Depart(peers));
    SP_ASSIGN_OR_RETURN(const std::vector<std::string> answers,
                        comm.ExchangeControl(all_shared ? "yes" : "no"));
    if (std::count(answers.begin(), answers.end(), answers[0]) != p) {
      return Internal("ranks disagree whether memory is shared");
    }
    if (comm.backend_name() == "mpi" && all_shared) {
      return Internal("memory of rank {}'s process counts as shared", owner);
    }
  }
  SP_ASSIGN_OR_RETURN(const std::span<std::byte> staging, comm.Staging(256));
  SP_ASSIGN_OR_RETURN(const Peers peers,
                      comm.Meet({.send = staging.data(), .send_bytes = 256}));
  if (!peers.AllShared()) return Internal("staging is not shared");
  return comm.Depart(peers);
}

Status MeetEagerly(const Communicator& comm) {
  if (!comm.SharesMemory()) return OkStatus();
  const int p = comm.size();
  const int me = comm.rank();
  std::vector<std::byte> mine(comm.EagerLimit());
  for (int round = 0; round < 300; ++round) {
    // Rank r gives sizes[(round + r) % 7].
    const size_t sizes[] = {0, 1, 4, 8, 48, 49, comm.EagerLimit()};
    const size_t bytes = sizes[(round + me) % 7];
    Fill({mine.data(), bytes}, me, 0, round);
    SP_ASSIGN_OR_RETURN(const Peers peers, comm.MeetEager(mine.data(), bytes));
    // The payload is a copy: what happens to the original does not show.
    Fill({mine.data(), bytes}, me, 0, round + 1);
    for (int r = 0; r < p; ++r) {
      const size_t theirs = sizes[(round + r) % 7];
      if (peers.SendBytes(r) != theirs) {
        return Internal("rank {} gave {} bytes, not {}", r, peers.SendBytes(r),
                        theirs);
      }
      SP_RETURN_IF_ERROR(Verify({peers.Read(r, 0, theirs), theirs}, r, 0, round,
                                "an eager payload"));
    }
  }
  return OkStatus();
}

Status CountsAccesses(const Communicator& comm) {
  if (!comm.SharesMemory()) return OkStatus();
  const int p = comm.size();
  SP_ASSIGN_OR_RETURN(const Buffer data, comm.Allocate(128));
  SP_ASSIGN_OR_RETURN(const Peers peers,
                      comm.Meet({data.data(), 64, data.data() + 64, 64}));
  const Traffic before = comm.traffic();
  for (int r = 0; r < p; ++r) {
    (void)peers.Read(r, 8, 50);
    (void)peers.Write(r, 0, 60);
    (void)peers.ReadBack(r, 4, 10);
  }
  const Traffic got = comm.traffic() - before;
  const Traffic want{.bytes = 120 * (p - 1), .messages = 3 * (p - 1)};
  SP_RETURN_IF_ERROR(comm.Depart(peers));
  if (got == want) return OkStatus();
  return Internal("{} bytes in {} accesses counted, not {} in {}", got.bytes,
                  got.messages, want.bytes, want.messages);
}

// Nobody leaves a barrier before everybody has entered it.
Status BarrierHolds(const Communicator& comm) {
  if (!comm.SharesMemory()) return comm.Barrier();
  const int p = comm.size();
  const int me = comm.rank();
  SP_ASSIGN_OR_RETURN(const Buffer counter, comm.Allocate(sizeof(int)));
  const std::atomic_ref<int> mine(*counter.as<int>());
  mine = 0;
  SP_ASSIGN_OR_RETURN(
      const Peers peers,
      comm.Meet({.send = counter.data(), .send_bytes = sizeof(int)}));
  for (int round = 1; round <= 200; ++round) {
    mine = round;
    SP_RETURN_IF_ERROR(comm.Barrier());
    for (int r = 0; r < p; ++r) {
      // Who is a round ahead writes while this reads.
      auto* const at = const_cast<std::byte*>(peers.Read(r, 0, sizeof(int)));
      const int theirs = std::atomic_ref<int>(*reinterpret_cast<int*>(at));
      // One round ahead is all that a peer can be.
      if (theirs != round && theirs != round + 1) {
        return Internal("rank {} sees rank {} at round {} in round {}", me, r,
                        theirs, round);
      }
    }
  }
  return comm.Depart(peers);
}

Status AllocatesAndRefuses(const Communicator& comm) {
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{5} << 20}) {
    SP_ASSIGN_OR_RETURN(const Buffer buffer, comm.Allocate(bytes));
    const size_t alignment = bytes >= (2 << 20) ? 2 << 20 : 64;
    if (buffer.bytes() != bytes ||
        reinterpret_cast<uintptr_t>(buffer.data()) % alignment != 0) {
      return Internal("{} bytes at {}, asked for {}", buffer.bytes(),
                      static_cast<void*>(buffer.data()), bytes);
    }
    std::memset(buffer.data(), 1, bytes);
  }
  const auto refused = comm.Allocate(size_t{1} << 50);
  if (refused.status().code() != StatusCode::kOutOfMemory) {
    return Internal("a pebibyte gave {}", refused.status().ToString());
  }
  return OkStatus();
}

constexpr ConformanceCheck kChecks[] = {
    {"Meet", &Meet},
    {"MeetWithParts", &MeetWithParts},
    {"OrdinaryMemory", &OrdinaryMemory},
    {"MeetEagerly", &MeetEagerly},
    {"CountsAccesses", &CountsAccesses},
    {"BarrierHolds", &BarrierHolds},
    {"AllocatesAndRefuses", &AllocatesAndRefuses},
};

}  // namespace

std::span<const ConformanceCheck> Meetings() { return kChecks; }

}  // namespace shardproof::conformance
