// Collectives over an emulated link of kLinkBytesPerSecond: each does what
// `auto` does, and then sleeps for as long as the link would take for what the
// rank sends. Sleeping takes no core, so what overlaps with it is really free.
#ifndef SHARDPROOF_LAYERS_SPEED_LINK_COLLECTIVES_H_
#define SHARDPROOF_LAYERS_SPEED_LINK_COLLECTIVES_H_

#include <chrono>
#include <cstdint>
#include <thread>

#include "layers/tensor_parallel/collective_family.h"

namespace shardproof {

inline constexpr double kLinkBytesPerSecond = 1e9;

namespace internal {

// Ring bytes: each of `passes` passes over the ranks sends all but 1 / ranks.
inline void TravelOverLink(const Communicator& comm, int64_t bytes,
                           int passes) {
  const double sent =
      static_cast<double>(bytes) * passes * (comm.size() - 1) / comm.size();
  std::this_thread::sleep_for(
      std::chrono::duration<double>(sent / kLinkBytesPerSecond));
}

inline int64_t BytesOf(std::span<const int64_t> counts, DType dtype) {
  int64_t elements = 0;
  for (const int64_t n : counts) elements += n;
  return elements * SizeOf(dtype);
}

}  // namespace internal

inline constexpr CollectiveFamily kLinkCollectives = [] {
  CollectiveFamily family = kAutoCollectives;
  family.name = "link";
  family.all_reduce = [](const Communicator& comm, const AllReduceArgs& args) {
    SP_RETURN_IF_ERROR(AllReduce(comm, args));
    internal::TravelOverLink(comm, args.count * SizeOf(args.dtype), 2);
    return OkStatus();
  };
  family.all_gather = [](const Communicator& comm, const AllGatherVArgs& args) {
    SP_RETURN_IF_ERROR(AllGatherV(comm, args));
    internal::TravelOverLink(comm, internal::BytesOf(args.counts, args.dtype),
                             1);
    return OkStatus();
  };
  family.reduce_scatter = [](const Communicator& comm,
                             const ReduceScatterVArgs& args) {
    SP_RETURN_IF_ERROR(ReduceScatterV(comm, args));
    internal::TravelOverLink(comm, internal::BytesOf(args.counts, args.dtype),
                             1);
    return OkStatus();
  };
  return family;
}();

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_SPEED_LINK_COLLECTIVES_H_
