// Sub-communicators, topology, progress, and use from several threads.
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "collectives/backend/conformance.h"

namespace shardproof::conformance {
namespace {

// That `comm` has the ranks `expected` of the parent, in order: everybody says
// who it was.
Status ExpectRanks(const Communicator& comm, int old_rank,
                   const std::vector<int>& expected) {
  if (comm.size() != static_cast<int>(expected.size())) {
    return Internal("a group of {}, not {}", comm.size(), expected.size());
  }
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                      comm.ExchangeControl(std::to_string(old_rank)));
  for (int r = 0; r < comm.size(); ++r) {
    if (names[r] != std::to_string(expected[r])) {
      return Internal("rank {} of the group was {}, not {}", r, names[r],
                      expected[r]);
    }
  }
  if (expected[comm.rank()] != old_rank) return Internal("a wrong rank");
  return OkStatus();
}

Status Splits(const Communicator& comm) {
  const int p = comm.size();
  const int me = comm.rank();
  // Even and odd, backwards.
  SP_ASSIGN_OR_RETURN(const Communicator half, comm.Split(me % 2, -me));
  std::vector<int> expected;
  for (int r = p - 1; r >= 0; --r) {
    if (r % 2 == me % 2) expected.push_back(r);
  }
  SP_RETURN_IF_ERROR(ExpectRanks(half, me, expected));
  // Equal keys keep the order; a part of a part.
  SP_ASSIGN_OR_RETURN(const Communicator forward, half.Split(3, me));
  std::reverse(expected.begin(), expected.end());
  SP_RETURN_IF_ERROR(ExpectRanks(forward, me, expected));
  SP_ASSIGN_OR_RETURN(const Communicator same, comm.Split(0, 0));
  expected.clear();
  for (int r = 0; r < p; ++r) expected.push_back(r);
  SP_RETURN_IF_ERROR(ExpectRanks(same, me, expected));
  // Only the last rank, the others take part and get nothing.
  SP_ASSIGN_OR_RETURN(const Communicator last,
                      comm.Split(me == p - 1 ? 0 : -1, 0));
  if (last.valid() != (me == p - 1)) return Internal("a group without a color");
  if (last.valid()) SP_RETURN_IF_ERROR(ExpectRanks(last, me, {me}));
  return OkStatus();
}

// A group comes and goes many times: nothing runs out, and what the first rank
// gives back is not what others still look at.
Status SplitsAgainAndAgain(const Communicator& comm) {
  for (int round = 0; round < 30; ++round) {
    SP_ASSIGN_OR_RETURN(const Communicator part,
                        comm.Split((comm.rank() + round) % 2, 0));
    SP_RETURN_IF_ERROR(part.Barrier());
    SP_RETURN_IF_ERROR(part.Barrier());
  }
  return OkStatus();
}

// The same ranks and tags on two communicators do not meet.
Status DuplicateIsSeparate(const Communicator& comm) {
  const int p = comm.size();
  const int next = (comm.rank() + 1) % p;
  const int previous = (comm.rank() + p - 1) % p;
  SP_ASSIGN_OR_RETURN(const Communicator other, comm.Duplicate());
  const int first = 1;
  const int second = 2;
  SP_ASSIGN_OR_RETURN(Request a, comm.Isend(&first, sizeof(first), next));
  SP_ASSIGN_OR_RETURN(Request b, other.Isend(&second, sizeof(second), next));
  int got_second = 0;
  int got_first = 0;
  SP_RETURN_IF_ERROR(other.Recv(&got_second, sizeof(int), previous));
  SP_RETURN_IF_ERROR(comm.Recv(&got_first, sizeof(int), previous));
  SP_RETURN_IF_ERROR(comm.Wait(a));
  SP_RETURN_IF_ERROR(other.Wait(b));
  if (got_first != 1 || got_second != 2) {
    return Internal("a message crossed from one communicator to another");
  }
  return OkStatus();
}

// A buffer of the world serves its parts, whose traffic is the world's too.
Status MeetsInAGroup(const Communicator& comm) {
  const int me = comm.rank();
  SP_ASSIGN_OR_RETURN(const Buffer data, comm.Allocate(512));
  Fill({data.data(), 512}, me, 0, 5);
  SP_ASSIGN_OR_RETURN(const Communicator half, comm.Split(me % 2, me));
  if (!half.SharesMemory()) return OkStatus();
  const Traffic before = comm.traffic();
  SP_ASSIGN_OR_RETURN(const Peers peers,
                      half.Meet({.send = data.data(), .send_bytes = 512}));
  if (!peers.AllShared()) return Internal("the world's memory is not shared");
  for (int r = 0; r < half.size(); ++r) {
    SP_RETURN_IF_ERROR(Verify({peers.Read(r, 0, 512), 512}, 2 * r + me % 2, 0,
                              5, "a load in a group"));
  }
  SP_RETURN_IF_ERROR(half.Depart(peers));
  const Traffic got = comm.traffic() - before;
  if (got.bytes != 512 * (half.size() - 1)) {
    return Internal("{} bytes of a group counted", got.bytes);
  }
  return OkStatus();
}

Status TopologyIsSound(const Communicator& comm) {
  const Topology& topology = comm.topology();
  if (static_cast<int>(topology.node_of.size()) != comm.size()) {
    return Internal("nodes of {} ranks", topology.node_of.size());
  }
  int seen = 0;
  for (const int node : topology.node_of) {
    if (node < 0 || node > seen) return Internal("nodes are out of order");
    if (node == seen) ++seen;
  }
  if (seen != topology.nodes) return Internal("{} nodes", topology.nodes);
  if (comm.SharesMemory() != (topology.nodes == 1)) {
    return Internal("memory is shared, or not, across {} nodes",
                    topology.nodes);
  }
  return OkStatus();
}

// The ranks of a node see where the others are.
Status ShowsProgress(const Communicator& comm) {
  const Topology& topology = comm.topology();
  uint64_t sequence = 0;
  {
    const OpScope op(comm, {.label = "conformance/progress"});
    SP_RETURN_IF_ERROR(op.status());
    SP_RETURN_IF_ERROR(comm.Barrier());
    const OpRecord* mine = comm.backend().Progress(comm.rank());
    if (mine == nullptr || mine != comm.backend().MyProgress()) {
      return Internal("a rank does not see its own progress");
    }
    sequence = mine->entered.load();
    for (int r = 0; r < comm.size(); ++r) {
      const OpRecord* record = comm.backend().Progress(r);
      const bool here = topology.node_of[r] == topology.node_of[comm.rank()];
      if ((record != nullptr) != here) {
        return Internal("progress of rank {} is {}", r,
                        here ? "missing" : "there");
      }
      if (!here) continue;
      if (record->entered.load() != sequence ||
          record->finished.load() == sequence ||
          record->Label().view() != "conformance/progress") {
        return Internal("rank {} seems to be in #{} {}", r,
                        record->entered.load(), record->Label().view());
      }
    }
    SP_RETURN_IF_ERROR(comm.Barrier());
  }
  if (comm.backend().MyProgress()->finished.load() != sequence) {
    return Internal("an operation that is over is not finished");
  }
  return comm.Barrier();
}

// Two communicators in two threads of each rank, as two streams use them.
Status TwoThreads(const Communicator& comm) {
  SP_ASSIGN_OR_RETURN(const Communicator other, comm.Duplicate());
  const auto work = [](const Communicator& c) -> Status {
    const int p = c.size();
    const int next = (c.rank() + 1) % p;
    const int previous = (c.rank() + p - 1) % p;
    for (int round = 0; round < 50; ++round) {
      std::vector<std::byte> out(1 + 997 * round);
      std::vector<std::byte> in(out.size());
      Fill(out, c.rank(), next, round);
      SP_RETURN_IF_ERROR(c.SendRecv(out.data(), out.size(), next, in.data(),
                                    in.size(), previous));
      SP_RETURN_IF_ERROR(Verify(in, previous, c.rank(), round, "two threads"));
      SP_RETURN_IF_ERROR(c.Barrier());
    }
    return OkStatus();
  };
  Status theirs;
  std::thread thread([&] { theirs = work(other); });
  const Status mine = work(comm);
  thread.join();
  SP_RETURN_IF_ERROR(mine);
  return theirs;
}

constexpr ConformanceCheck kChecks[] = {
    {"Splits", &Splits},
    {"SplitsAgainAndAgain", &SplitsAgainAndAgain},
    {"DuplicateIsSeparate", &DuplicateIsSeparate},
    {"MeetsInAGroup", &MeetsInAGroup},
    {"TopologyIsSound", &TopologyIsSound},
    {"ShowsProgress", &ShowsProgress},
    {"TwoThreads", &TwoThreads},
};

}  // namespace

std::span<const ConformanceCheck> Groups() { return kChecks; }

}  // namespace shardproof::conformance
