#include "collectives/backend/cuda/library/shared_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <mutex>
#include <utility>

namespace shardproof {
namespace {

// Ranks that are threads load at once, and the name that dladdr gives one of them is what dlopen wrote in another.
std::mutex& Linker() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace

std::vector<std::string> LibrarySearchPaths(
    const std::vector<std::string>& names) {
  std::vector<std::string> paths = names;
  const auto add = [&](std::string_view root) {
    for (const char* folder : {"lib", "lib64"}) {
      for (const std::string& name : names) {
        paths.push_back(fmt::format("{}/{}/{}", root, folder, name));
      }
    }
  };
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const char* root = std::getenv(variable)) add(root);
  }
  add("/usr/local/cuda");
  return paths;
}

SharedLibrary::SharedLibrary(void* handle, std::string path)
    : handle_(handle), path_(std::move(path)) {}

void SharedLibrary::Close::operator()(void* handle) const {
  const std::lock_guard lock(Linker());
  dlclose(handle);
}

StatusOr<SharedLibrary> SharedLibrary::Open(
    std::string_view kind, const std::vector<std::string>& paths) {
  const std::lock_guard lock(Linker());
  std::string why = "dlopen gave no reason";
  for (const std::string& path : paths) {
    void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) return SharedLibrary(handle, path);
    // Its words begin with the path in most cases, but not in all.
    if (const char* words = dlerror()) why = words;
  }
  if (paths.size() == 1) {
    return Unavailable("the {} library {} cannot be loaded: {}", kind,
                       paths.front(), why);
  }
  if (paths.empty()) return Unavailable("there is no {}", kind);
  return Unavailable("there is no {}: nothing from {} to {} can be opened",
                     kind, paths.front(), paths.back());
}

void* SharedLibrary::Find(const char* name) const {
  return dlsym(handle_.get(), name);
}

std::string SharedLibrary::FileOf(const void* function) const {
  const std::lock_guard lock(Linker());
  Dl_info info = {};
  if (dladdr(function, &info) == 0 || info.dli_fname == nullptr) return path_;
  return info.dli_fname;
}

}  // namespace shardproof
