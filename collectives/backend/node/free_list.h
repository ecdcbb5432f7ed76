// Which parts of a range of memory are free: first fit, lowest address first,
// neighbours joined when they come back.
//
//     FreeList free(1 << 20);
//     std::optional<size_t> at = free.Take(4096, 64);   // an offset
//     free.Return(*at, 4096);
//
// First fit over a map is enough: a rank holds tens of buffers, not millions,
// and low addresses are the ones whose huge pages exist already. Touches no
// memory itself.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NODE_FREE_LIST_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NODE_FREE_LIST_H_

#include <cstddef>
#include <map>
#include <optional>

namespace shardproof {

class FreeList {
 public:
  // The range [0, bytes), all of it free.
  explicit FreeList(size_t bytes);

  // The lowest multiple of `alignment` (a power of two) with `bytes` > 0 free
  // bytes; nothing when there is none.
  std::optional<size_t> Take(size_t bytes, size_t alignment);
  // Gives back a block, or a part of one, that Take gave.
  void Return(size_t offset, size_t bytes);

  // Of the largest free block.
  size_t LargestFree() const;
  size_t blocks() const { return free_.size(); }

 private:
  std::map<size_t, size_t> free_;  // Offset to bytes; never adjacent.
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NODE_FREE_LIST_H_
