// Our declarations of a library's C interface against its own header, where there is one:
//
//     template <class T> struct Ours { using type = T; };                  // Their type in our terms,
//     template <> struct Ours<ncclComm_t> { using type = Comm; };          // where it is another.
//     HeaderComparator<Ours> all;
//     all.Numbers("ncclSuccess", Result::kSuccess, ncclSuccess);
//     all.Functions<decltype(ncclAllReduce), decltype(Api::all_reduce)>("ncclAllReduce");
//     return all.result();
//
// In a source of nvcc's, which knows where the headers of its toolkit are: g++ does not.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_LIBRARY_HEADER_COMPARISON_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_LIBRARY_HEADER_COMPARISON_H_

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace shardproof {

struct HeaderComparison {
  int compared = 0;                      // 0: there is no such header.
  std::vector<std::string> differences;  // What is not as the header says.
};

template <template <class> class Ours>
class HeaderComparator {
 public:
  template <class Mine, class Theirs>
  void Numbers(const char* name, Mine mine, Theirs theirs) {
    Add(name, sizeof(Mine) == sizeof(Theirs) &&
                  static_cast<int64_t>(mine) == static_cast<int64_t>(theirs));
  }
  // `Member` is a pointer to a function like `Theirs`.
  template <class Theirs, class Member>
  void Functions(const char* name) {
    Add(name, std::is_same_v<typename Pointer<Theirs>::type, Member>);
  }
  const HeaderComparison& result() const { return result_; }

 private:
  template <class Function>
  struct Pointer;
  template <class R, class... Args>
  struct Pointer<R(Args...)> {
    using type = typename Ours<R>::type (*)(typename Ours<Args>::type...);
  };

  void Add(const char* name, bool same) {
    ++result_.compared;
    if (!same) result_.differences.emplace_back(name);
  }

  HeaderComparison result_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_LIBRARY_HEADER_COMPARISON_H_
