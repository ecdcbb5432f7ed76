// One value per rank of a node, on the stack for as many ranks as nodes usually
// have: the hot paths allocate nothing.
#ifndef SHARDPROOF_COLLECTIVES_DIRECT_RANK_ARRAY_H_
#define SHARDPROOF_COLLECTIVES_DIRECT_RANK_ARRAY_H_

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>

namespace shardproof::direct {

template <class T>
class RankArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  // Values are not initialised.
  explicit RankArray(int ranks) : ranks_(static_cast<size_t>(ranks)) {
    if (ranks_ > kInline) [[unlikely]] {
      many_ = std::make_unique_for_overwrite<T[]>(ranks_);
    }
  }

  T& operator[](int rank) { return data()[rank]; }
  const T& operator[](int rank) const { return data()[rank]; }
  std::span<const T> view() const { return {data(), ranks_}; }
  // The first `n`.
  std::span<const T> first(int n) const {
    return view().first(static_cast<size_t>(n));
  }
  T* data() { return many_ == nullptr ? few_.data() : many_.get(); }
  const T* data() const { return many_ == nullptr ? few_.data() : many_.get(); }

 private:
  static constexpr size_t kInline = 32;
  size_t ranks_;
  std::array<T, kInline> few_;
  std::unique_ptr<T[]> many_;
};

}  // namespace shardproof::direct

#endif  // SHARDPROOF_COLLECTIVES_DIRECT_RANK_ARRAY_H_
