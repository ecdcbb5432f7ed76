// Memory without a name that two processes share and that grows.
//
//     SP_ASSIGN_OR_RETURN(SharedBlock mine, SharedBlock::Create());
//     SP_RETURN_IF_ERROR(mine.Grow(bytes));       // then say so to the other,
//     SharedBlock its = SharedBlock::Adopt(fd);   // which has the descriptor
//     SP_RETURN_IF_ERROR(its.Hold(bytes));
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_SHARED_BLOCK_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_SHARED_BLOCK_H_

#include <cstddef>
#include <utility>

#include "collectives/backend/node/mapping.h"
#include "reference/status.h"

namespace shardproof {

class SharedBlock {
 public:
  SharedBlock() = default;
  // Of no bytes. It is gone when both processes are.
  static StatusOr<SharedBlock> Create();
  static SharedBlock Adopt(int fd) { return SharedBlock(fd); }

  int fd() const { return file_.get(); }
  // What is mapped here; `data` moves when that grows.
  std::byte* data() const { return mapping_.base(); }
  size_t bytes() const { return mapping_.bytes(); }

  // The creator's: makes it at least so large. kOutOfMemory.
  Status Grow(size_t bytes);
  // The other's: maps at least so much, which must be there.
  Status Hold(size_t bytes);

 private:
  explicit SharedBlock(int fd) : file_(fd) {}
  FileDescriptor file_;
  Mapping mapping_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_SHARED_BLOCK_H_
