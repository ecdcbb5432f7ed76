#include "layers/kernels/cuda/blas/testing/host_blas.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <atomic>
#include <cstdlib>

namespace shardproof::testing {

cublaslt::HostControls& HostBlasControls(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  void* found =
      handle == nullptr ? nullptr : dlsym(handle, cublaslt::kHostControls);
  if (found == nullptr) {
    fmt::print(stderr, "{} is not made of host_cublaslt.cc\n", path);
    std::abort();
  }
  return *reinterpret_cast<cublaslt::HostControls* (*)()>(found)();
}

void Reset(cublaslt::HostControls& controls) {
  controls.behaviour = {};
  cublaslt::HostSeen& seen = controls.seen;
  seen.heuristics = seen.asked = 0;
  seen.last_algorithm = -1;
  for (std::atomic<int>& products : seen.products) products = 0;
  seen.clock = 0;
}

}  // namespace shardproof::testing
