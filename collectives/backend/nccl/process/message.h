// Values in a message between two processes of the same program, one after the
// other as they lie in memory.
//
//     Writer writer;                        Reader reader(bytes);
//     writer.Put(7);                        const int number = reader.Get<int>();
//     writer.PutList("text");               const std::string text = reader.Text();
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_MESSAGE_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardproof {

using MessageBytes = std::vector<std::byte>;

class Writer {
 public:
  template <class T>
  void Put(const T& value) {
    Append(&value, sizeof(T), std::is_trivially_copyable<T>());
  }
  // Of characters or of numbers.
  template <class List>
  void PutList(const List& list) {
    using T = std::remove_cvref_t<decltype(list[0])>;
    Put(static_cast<uint64_t>(std::size(list)));
    Append(std::data(list), std::size(list) * sizeof(T),
           std::is_trivially_copyable<T>());
  }
  MessageBytes Take() { return std::move(bytes_); }

 private:
  void Append(const void* data, size_t bytes, std::true_type /*copyable*/) {
    const auto* const from = static_cast<const std::byte*>(data);
    if (bytes > 0) bytes_.insert(bytes_.end(), from, from + bytes);
  }
  MessageBytes bytes_;
};

class Reader {
 public:
  explicit Reader(const MessageBytes& bytes) : rest_(bytes) {}
  // False once a message was too short: what came of it is zero or empty.
  bool ok() const { return ok_; }

  template <class T>
  T Get() {
    T value = {};
    Copy(&value, sizeof(T));
    return value;
  }
  std::string Text() {
    std::string text(Length(1), '\0');
    Copy(text.data(), text.size());
    return text;
  }
  std::vector<int64_t> Numbers() {
    std::vector<int64_t> numbers(Length(sizeof(int64_t)));
    Copy(numbers.data(), numbers.size() * sizeof(int64_t));
    return numbers;
  }

 private:
  size_t Length(size_t element_bytes) {
    const auto length = Get<uint64_t>();
    if (length <= rest_.size() / element_bytes) return length;
    ok_ = false;
    return 0;
  }
  void Copy(void* to, size_t bytes) {
    if (bytes > rest_.size()) {
      ok_ = false;
      return;
    }
    if (bytes > 0) std::memcpy(to, rest_.data(), bytes);
    rest_ = rest_.subspan(bytes);
  }

  std::span<const std::byte> rest_;
  bool ok_ = true;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_MESSAGE_H_
