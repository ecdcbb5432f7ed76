// What is behind a Communicator. For the files that implement it; everyone else
// uses communicator.h.
#ifndef SHARDPROOF_COLLECTIVES_COMMUNICATOR_IMPL_H_
#define SHARDPROOF_COLLECTIVES_COMMUNICATOR_IMPL_H_

#include <any>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "collectives/backend.h"
#include "collectives/communicator.h"
#include "collectives/traffic_counter.h"

namespace shardproof {

// Tags of users are below this, those of Barrier and ExchangeControl from here
// on. MPI guarantees tags up to 32767.
inline constexpr int kUserTags = 0x7000;
enum ControlTag : int {
  kBarrierTag = kUserTags,
  kControlSizeTag,
  kControlTextTag
};

// Used by one thread at a time. One per rank and communicator, shared by the
// copies of the handle.
class Communicator::Impl {
 public:
  explicit Impl(std::shared_ptr<Backend> b);

  // Refuses what no backend could carry. `role` names the peer: "destination".
  Status CheckMessage(const void* data, size_t bytes, int peer,
                      const char* role, int tag) const;

  // Passes `status` on. An operation in which a call failed does not OnEnd.
  Status Note(Status status) {
    if (!status.ok()) [[unlikely]]
      ++failures;
    return status;
  }

  // A part of this one is born. Forgets those that are gone.
  void AddPart(const std::shared_ptr<Impl>& part);
  // Appends the backends of all living parts, and of theirs. From any thread.
  void AppendParts(std::vector<std::shared_ptr<Backend>>& out);

  std::shared_ptr<Backend> backend;
  NodeBoard* board;  // Null where ranks are on several nodes.
  int rank, size;
  OpRecord* record;
  Interceptor* interceptor = nullptr;
  const Op* current;  // The innermost open operation; never null.
  uint64_t sequence = 0;
  uint64_t failures = 0;
  std::shared_ptr<TrafficCounter> traffic;
  // What the last Meet and the last MeetEager found: two, so that an eager
  // exchange inside a meeting leaves the meeting as it is.
  std::vector<PeerBuffers> met, met_eagerly;
  Buffer staging;
  std::map<std::string, std::any, std::less<>> attributes;
  std::mutex parts_mutex;
  std::vector<std::weak_ptr<Impl>> parts;  // Guarded by parts_mutex.
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_COMMUNICATOR_IMPL_H_
