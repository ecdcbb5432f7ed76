#include "layers/testing/allocations.h"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

constexpr size_t kLarge = 4096;
// NOLINTBEGIN: operator new is global.
std::atomic<int64_t> allocations{0};
std::atomic<int64_t> large_allocations{0};
// NOLINTEND

// Null where there is no memory.
void* Counted(size_t bytes, size_t alignment) {
  ++allocations;
  if (bytes >= kLarge) ++large_allocations;
  if (alignment <= alignof(std::max_align_t)) return std::malloc(bytes);
  return std::aligned_alloc(alignment,
                            (bytes + alignment - 1) / alignment * alignment);
}

void* CountedOrThrow(size_t bytes, size_t alignment) {
  if (void* const p = Counted(bytes, alignment)) return p;
  throw std::bad_alloc();
}

}  // namespace

// The array forms too: a sanitizer's own do not come here. Not inlined: GCC takes
// a free that it sees beside a new for a mistake.
#define SHARDPROOF_COUNT(new_form, delete_form)                            \
  [[gnu::noinline]] void* new_form(size_t bytes) {                         \
    return CountedOrThrow(bytes, 0);                                       \
  }                                                                        \
  [[gnu::noinline]] void* new_form(size_t bytes, std::align_val_t align) { \
    return CountedOrThrow(bytes, static_cast<size_t>(align));              \
  }                                                                        \
  [[gnu::noinline]] void* new_form(size_t bytes,                           \
                                   const std::nothrow_t&) noexcept {       \
    return Counted(bytes, 0);                                              \
  }                                                                        \
  [[gnu::noinline]] void* new_form(size_t bytes, std::align_val_t align,   \
                                   const std::nothrow_t&) noexcept {       \
    return Counted(bytes, static_cast<size_t>(align));                     \
  }                                                                        \
  [[gnu::noinline]] void delete_form(void* p) noexcept { std::free(p); }   \
  [[gnu::noinline]] void delete_form(void* p, size_t) noexcept {           \
    std::free(p);                                                          \
  }                                                                        \
  [[gnu::noinline]] void delete_form(void* p, std::align_val_t) noexcept { \
    std::free(p);                                                          \
  }                                                                        \
  [[gnu::noinline]] void delete_form(void* p, size_t,                      \
                                     std::align_val_t) noexcept {          \
    std::free(p);                                                          \
  }                                                                        \
  [[gnu::noinline]] void delete_form(void* p,                              \
                                     const std::nothrow_t&) noexcept {     \
    std::free(p);                                                          \
  }                                                                        \
  [[gnu::noinline]] void delete_form(void* p, std::align_val_t,            \
                                     const std::nothrow_t&) noexcept {     \
    std::free(p);                                                          \
  }

SHARDPROOF_COUNT(operator new, operator delete)
SHARDPROOF_COUNT(operator new[], operator delete[])
#undef SHARDPROOF_COUNT

namespace shardproof {

int64_t Allocations() { return allocations; }
int64_t LargeAllocations() { return large_allocations; }

}  // namespace shardproof
