// The stream end of a collective's public entry.
#ifndef SHARDPROOF_COLLECTIVES_DIRECT_QUEUE_H_
#define SHARDPROOF_COLLECTIVES_DIRECT_QUEUE_H_

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "reference/status.h"

namespace shardproof::direct {

// Runs `run(comm, args)` on `stream`: at once and without copies where it is the
// inline stream, else later, on copies of the handle and the arguments.
template <class Args>
Status Enqueue(const Stream& stream, const Communicator& comm, const Args& args,
               Status (*run)(const Communicator&, const Args&)) {
  if (stream.is_inline()) return run(comm, args);
  return stream.Run([comm, args, run] { return run(comm, args); });
}

}  // namespace shardproof::direct

#endif  // SHARDPROOF_COLLECTIVES_DIRECT_QUEUE_H_
