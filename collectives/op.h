// What an operation is called, and where every rank is in its sequence of operations.
//
// Every collective opens an OpScope. It gives the operation the next sequence number of its communicator, so that a
// watchdog can say "ranks 0, 1, 3 are in #17 all_reduce/ring; rank 2 never entered it (last: #16 barrier)", and it
// tells an Interceptor what is about to happen.
#ifndef SHARDPROOF_COLLECTIVES_OP_H_
#define SHARDPROOF_COLLECTIVES_OP_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "reference/dtype.h"

namespace shardproof {

// A name of at most 31 characters, stored by value: ranks in other processes can read it, which they could not do
// with a pointer.
class OpLabel {
 public:
  constexpr OpLabel() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): a literal is a label.
  consteval OpLabel(const char* text) {
    for (size_t i = 0; i + 1 < text_.size() && text[i] != '\0'; ++i)
      text_[i] = text[i];
  }
  constexpr std::string_view view() const {
    return std::string_view(text_.data());
  }

 private:
  std::array<char, 32> text_{};
};

// The facts of one operation. `root` is -1 where there is none; `count` is in elements of `dtype`.
struct Op {
  OpLabel label;
  DType dtype = DType::kU8;
  int64_t count = 0;
  int root = -1;
  uint64_t sequence =
      0;  // Set by OpScope; the first operation of a communicator is 1.
};

// One rank's progress, in memory that every rank of the node can read. Written by its owner only.
struct alignas(128) OpRecord {
  std::atomic<uint64_t> entered{
      0};  // Sequence number of the last operation entered.
  std::atomic<uint64_t> finished{
      0};  // Sequence number of the last operation left.
  std::array<std::atomic<uint64_t>, 4> label{};

  void Enter(const Op& op) {
    std::array<uint64_t, 4> words;
    static_assert(sizeof(words) == sizeof(OpLabel));
    std::memcpy(words.data(), &op.label, sizeof(words));
    for (size_t i = 0; i < words.size(); ++i)
      label[i].store(words[i], std::memory_order_relaxed);
    entered.store(op.sequence, std::memory_order_release);
  }
  void Leave(const Op& op) {
    finished.store(op.sequence, std::memory_order_release);
  }
  OpLabel Label() const {
    std::array<uint64_t, 4> words;
    for (size_t i = 0; i < words.size(); ++i)
      words[i] = label[i].load(std::memory_order_relaxed);
    OpLabel out;
    std::memcpy(static_cast<void*>(&out), words.data(), sizeof(words));
    return out;
  }
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_OP_H_
