#include "collectives/backend/nccl/process/shared_block.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "collectives/backend/node/available_memory.h"

namespace shardproof {
namespace {

// Both sides round alike.
size_t RoundUp(size_t bytes) {
  constexpr size_t kUnit = size_t{2} << 20;
  return (bytes + kUnit - 1) / kUnit * kUnit;
}

}  // namespace

StatusOr<SharedBlock> SharedBlock::Create() {
  const int fd = memfd_create("shardproof-rank", MFD_CLOEXEC);
  if (fd < 0) return Unavailable("no shared memory: {}", std::strerror(errno));
  return SharedBlock(fd);
}

Status SharedBlock::Grow(size_t bytes) {
  if (bytes <= this->bytes()) return OkStatus();
  // Now: a page that is not to be had later is a SIGBUS.
  if (fallocate(fd(), 0, 0, static_cast<off_t>(RoundUp(bytes))) != 0) {
    return OutOfMemory("{} to share with the process of a rank: {}",
                       FormatBytes(bytes), std::strerror(errno));
  }
  return Hold(bytes);
}

Status SharedBlock::Hold(size_t bytes) {
  if (bytes <= this->bytes()) return OkStatus();
  mapping_ = Mapping();
  SP_ASSIGN_OR_RETURN(mapping_, Mapping::Create(file_, RoundUp(bytes), false));
  return OkStatus();
}

}  // namespace shardproof
