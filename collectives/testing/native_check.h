// Every primitive by the library under test (Backend::Native), against the
// serial reference: all types, operations, roots, in and out of place, even and
// uneven, empty and not. For the backends that have such a library.
//
//     ForEachWorld({1, 2, 3}, [](const Communicator& comm) {
//       return CheckNative(comm, {.run = [&](const NativeRequest& request) {
//         return comm.Native(request);
//       }});
//     });
#ifndef SHARDPROOF_COLLECTIVES_TESTING_NATIVE_CHECK_H_
#define SHARDPROOF_COLLECTIVES_TESTING_NATIVE_CHECK_H_

#include <cstdint>
#include <functional>

#include "collectives/backend.h"
#include "collectives/communicator.h"
#include "reference/status.h"

namespace shardproof::testing {

struct NativeLibrary {
  std::function<Status(const NativeRequest&)> run;
  // What it has to answer kUnsupported to, on all ranks alike; null: nothing.
  // Asked before the request has its buffers.
  std::function<bool(const NativeRequest&)> refuses = nullptr;
  // Buffers are the communicator's, and not ordinary memory.
  bool allocated = false;
  // Every so many of the calls are tried: all of them.
  int64_t every = 1;
};

// SHARDPROOF_TEST_EVERY, which thins the instances of cases under sanitizers, or
// 1.
int64_t EveryOfEnvironment();

// SPMD. The error says what differed first.
Status CheckNative(const Communicator& comm, const NativeLibrary& library);

}  // namespace shardproof::testing

#endif  // SHARDPROOF_COLLECTIVES_TESTING_NATIVE_CHECK_H_
