#include "collectives/backend/cuda/fiber/fiber.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

// What runs between telling ThreadSanitizer of a switch and the switch itself would be ascribed to the wrong fiber, and
// a function that one fiber enters and another leaves would upset its stacks.
#define SHARDPROOF_NOT_INSTRUMENTED \
  __attribute__((noinline, no_sanitize("thread")))

namespace shardproof::cuda {
namespace {

// Sanitizers make frames several times larger. Pages that are never touched cost nothing.
constexpr size_t kStackBytes = size_t{256} << 10;
constexpr size_t kGuardBytes = size_t{4} << 10;

#ifdef __SANITIZE_THREAD__
void* CurrentFiber() { return __tsan_get_current_fiber(); }
void* CreateFiber() { return __tsan_create_fiber(0); }
void DestroyFiber(void* fiber) { __tsan_destroy_fiber(fiber); }
SHARDPROOF_NOT_INSTRUMENTED void TellSwitch(void* fiber, bool synchronizes) {
  __tsan_switch_to_fiber(fiber,
                         synchronizes ? 0 : __tsan_switch_to_fiber_no_sync);
}
#else
void* CurrentFiber() { return nullptr; }
void* CreateFiber() { return nullptr; }
void DestroyFiber(void* /*fiber*/) {}
void TellSwitch(void* /*fiber*/, bool /*synchronizes*/) {}
#endif

// makecontext passes ints only.
struct Entry {
  void (*entry)(void*);
  void* argument;
};

SHARDPROOF_NOT_INSTRUMENTED void Enter(unsigned high, unsigned low) {
  const uint64_t address = uint64_t{high} << 32 | low;
  const Entry entry = *reinterpret_cast<const Entry*>(address);
  entry.entry(entry.argument);
}

}  // namespace

Fiber::~Fiber() {
  if (owns_sanitizer_) DestroyFiber(sanitizer_);
  if (stack_ != nullptr) munmap(stack_, stack_bytes_);
}

void Fiber::Adopt() { sanitizer_ = CurrentFiber(); }

Status Fiber::Start(void (*entry)(void*), void* argument) {
  stack_bytes_ = kStackBytes + kGuardBytes;
  void* const stack =
      mmap(nullptr, stack_bytes_, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) {
    return {StatusCode::kOutOfMemory,
            fmt::format("no stack of {} bytes for a fiber: {}", stack_bytes_,
                        std::strerror(errno))};
  }
  stack_ = stack;
  // Stacks grow downwards: an overflow hits the guard, and not the stack of another fiber.
  mprotect(stack_, kGuardBytes, PROT_NONE);
  getcontext(&context_);
  context_.uc_stack.ss_sp = static_cast<std::byte*>(stack_) + kGuardBytes;
  // The entry is handed over at the bottom of the stack, which nothing else uses.
  constexpr size_t kEntryBytes = 64;
  context_.uc_stack.ss_size = kStackBytes - kEntryBytes;
  auto* const handed = reinterpret_cast<Entry*>(
      static_cast<std::byte*>(stack_) + stack_bytes_ - kEntryBytes);
  *handed = {entry, argument};
  const auto address = reinterpret_cast<uint64_t>(handed);
  makecontext(&context_, reinterpret_cast<void (*)()>(&Enter), 2,
              static_cast<unsigned>(address >> 32),
              static_cast<unsigned>(address));
  sanitizer_ = CreateFiber();
  owns_sanitizer_ = true;
  return OkStatus();
}

SHARDPROOF_NOT_INSTRUMENTED void Fiber::Switch(Fiber& from, Fiber& to,
                                               bool synchronizes) {
  TellSwitch(to.sanitizer_, synchronizes);
  swapcontext(&from.context_, &to.context_);
}

#ifdef __SANITIZE_THREAD__
void Fiber::Release(void* address) { __tsan_release(address); }
void Fiber::Acquire(void* address) { __tsan_acquire(address); }
#else
void Fiber::Release(void* /*address*/) {}
void Fiber::Acquire(void* /*address*/) {}
#endif

}  // namespace shardproof::cuda
