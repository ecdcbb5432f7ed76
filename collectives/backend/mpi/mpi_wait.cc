#include "collectives/backend/mpi/mpi_wait.h"

#include <algorithm>
#include <ctime>

#include "collectives/backend/node/wait.h"

namespace shardproof {
namespace {

// A look costs about 0.1 us, so there are 0.2 ms of looking and a millisecond
// or more of yielding; by then a nap of 50 us does not matter.
constexpr int kLooks = 2000;
constexpr int kYields = 2000;
// How often news of an abort is sought from other nodes: that takes a call of
// MPI, where the flag of this node takes a load.
constexpr int kLooksPerProbe = 64;

}  // namespace

Status MpiPatience::Pause() {
  const int look = looks_;
  looks_ = std::min(looks_ + 1, 1 << 20);
  if (session_.waiting().abort->raised() || look % kLooksPerProbe == 0 ||
      look >= kLooks + kYields) [[unlikely]] {
    SP_RETURN_IF_ERROR(session_.Health());
  }
  if (session_.waiting().spin && look < kLooks) return OkStatus();
  if (look < kLooks + kYields) {
    if (YieldToOthers()) looks_ = kLooks + kYields;
    return OkStatus();
  }
  const timespec nap{.tv_sec = 0, .tv_nsec = 50'000};
  nanosleep(&nap, nullptr);
  return OkStatus();
}

}  // namespace shardproof
