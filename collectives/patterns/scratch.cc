#include "collectives/patterns/scratch.h"

namespace shardproof {

StatusOr<std::byte*> Scratch(const Communicator& comm, ScratchSlot slot,
                             int64_t count, DType dtype) {
  // Short enough that the key is stored in the string itself.
  static constexpr const char* kKeys[] = {"scratch/segment", "scratch/vector",
                                          "scratch/input"};
  const char* key = kKeys[static_cast<int>(slot)];
  SP_ASSIGN_OR_RETURN(Buffer * buffer, comm.Attribute<Buffer>(key, [] {
    return StatusOr<Buffer>(Buffer());
  }));
  const auto bytes = static_cast<size_t>(count * SizeOf(dtype));
  if (buffer->bytes() < bytes) {
    *buffer = Buffer();  // Free the old one first: there may be room for one.
    SP_ASSIGN_OR_RETURN(*buffer, comm.Allocate(bytes));
  }
  return buffer->data();
}

}  // namespace shardproof
