// A library with a C interface that is found and loaded at run time, and never linked: NCCL, cuBLASLt, and what stands for
// them in tests.
//
//     SP_ASSIGN_OR_RETURN(SharedLibrary file, SharedLibrary::Open("NCCL", LibrarySearchPaths({"libnccl.so.2"})));
//     file.Want("ncclGetVersion", api.get_version);           // Null where there is none.
//     file.Need("ncclAllReduce", api.all_reduce);             // That too; missing() is then "ncclAllReduce".
//     path = file.PathOf(api.get_version);                    // "/usr/lib/x86_64-linux-gnu/libnccl.so.2"
//     if (file.missing().empty()) file.Keep();                // Until the process ends. Without this it is closed again.
//
// Several threads may open libraries at once.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_LIBRARY_SHARED_LIBRARY_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_LIBRARY_SHARED_LIBRARY_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "reference/status.h"

namespace shardproof {

// Where libraries of CUDA's are looked for that nobody names, in this order: each of `names` where the dynamic linker
// finds it, then each in the folders lib and lib64 of CUDA_HOME, of CUDA_PATH and of /usr/local/cuda.
std::vector<std::string> LibrarySearchPaths(
    const std::vector<std::string>& names);

class SharedLibrary {
 public:
  // The first of `paths` that can be opened, whatever is wrong with it: to go on would hide what is wrong, and take
  // another library than the one that programs get. kUnavailable, as one sentence: of one path why it cannot be loaded,
  // "the NCCL library /opt/nccl.so cannot be loaded: ..."; of several that there is none, "there is no NCCL: ...".
  static StatusOr<SharedLibrary> Open(std::string_view kind,
                                      const std::vector<std::string>& paths);

  // As it was asked for.
  const std::string& path() const { return path_; }

  template <class Function>
  void Want(const char* name, Function*& function) const {
    function = reinterpret_cast<Function*>(Find(name));
  }
  template <class Function>
  void Need(const char* name, Function*& function) {
    Want(name, function);
    if (function == nullptr && missing_.empty()) missing_ = name;
  }
  bool Has(const char* name) const { return Find(name) != nullptr; }
  // The first function that was needed and is not there; empty: none.
  const std::string& missing() const { return missing_; }

  // The file that a function of it lies in, where path() may be a name that the linker looked for.
  template <class Function>
  std::string PathOf(Function* function) const {
    return FileOf(reinterpret_cast<const void*>(function));
  }

  // Leaves it loaded until the process ends: it may have threads of its own.
  void Keep() { static_cast<void>(handle_.release()); }

 private:
  struct Close {
    void operator()(void* handle) const;
  };

  SharedLibrary(void* handle, std::string path);
  void* Find(const char* name) const;
  std::string FileOf(const void* function) const;

  std::unique_ptr<void, Close> handle_;
  std::string path_, missing_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_LIBRARY_SHARED_LIBRARY_H_
