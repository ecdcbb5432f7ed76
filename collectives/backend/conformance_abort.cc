// An abort ends every wait of every rank, wherever it waits.
#include <chrono>
#include <thread>
#include <vector>

#include "collectives/backend/conformance.h"

namespace shardproof {
namespace {

constexpr std::string_view kReason = "rank 0 gave up";

Status ExpectAborted(const Status& status, std::string_view what) {
  if (status.code() == StatusCode::kAborted &&
      status.message().find(kReason) != std::string_view::npos) {
    return OkStatus();
  }
  return Internal("{} ended with {}", what, status.ToString());
}

// Rank 0 aborts while the others are, most likely, in `wait`, which must not
// return before.
template <class Wait>
Status AbortDuring(const Communicator& comm, std::string_view what, Wait wait) {
  if (comm.rank() == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (!comm.health().ok()) return Internal("aborted before anybody did");
    comm.Abort(kReason);
    // The first reason stays.
    comm.Abort("another reason");
  } else {
    SP_RETURN_IF_ERROR(ExpectAborted(wait(), what));
  }
  SP_RETURN_IF_ERROR(ExpectAborted(comm.health(), "health"));
  // Later waits end at once, too.
  int value = 0;
  return ExpectAborted(
      comm.Recv(&value, sizeof(value), (comm.rank() + 1) % comm.size(), 9),
      "a wait after the abort");
}

Status EndsReceive(const Communicator& comm) {
  return AbortDuring(comm, "Recv", [&] {
    int value = 0;
    return comm.Recv(&value, sizeof(value), 0);
  });
}

// A message too large to be sent without its receiver.
Status EndsSend(const Communicator& comm) {
  std::vector<std::byte> data(size_t{4} << 20);
  return AbortDuring(comm, "Send",
                     [&] { return comm.Send(data.data(), data.size(), 0); });
}

Status EndsBarrier(const Communicator& comm) {
  return AbortDuring(comm, "Barrier", [&] { return comm.Barrier(); });
}

Status EndsMeeting(const Communicator& comm) {
  if (!comm.SharesMemory()) return EndsBarrier(comm);
  return AbortDuring(comm, "Meet", [&] { return comm.Meet({}).status(); });
}

// In a group that the aborting rank is no part of.
Status EndsWaitsOfGroups(const Communicator& comm) {
  SP_ASSIGN_OR_RETURN(const Communicator part,
                      comm.Split(comm.rank() == 0 ? 0 : 1, 0));
  return AbortDuring(comm, "a wait in a group", [&] {
    // The last rank stays away; it waits for rank 0 in the world.
    if (part.rank() == part.size() - 1) {
      int value = 0;
      return comm.Recv(&value, sizeof(value), 0);
    }
    return part.Barrier();
  });
}

Status EndsSplit(const Communicator& comm) {
  return AbortDuring(comm, "Split", [&] { return comm.Split(0, 0).status(); });
}

constexpr ConformanceCheck kChecks[] = {
    {"EndsReceive", &EndsReceive},
    {"EndsSend", &EndsSend},
    {"EndsBarrier", &EndsBarrier},
    {"EndsMeeting", &EndsMeeting},
    {"EndsWaitsOfGroups", &EndsWaitsOfGroups},
    {"EndsSplit", &EndsSplit},
};

}  // namespace

std::span<const ConformanceCheck> AbortConformance() { return kChecks; }

}  // namespace shardproof
