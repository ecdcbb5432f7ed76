// What host_cublaslt.cc exports besides cuBLASLt's interface: how its algorithms behave, and what it was asked for.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_HOST_CUBLASLT_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_HOST_CUBLASLT_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "layers/kernels/cuda/blas/cublaslt_abi.h"

namespace shardproof::cublaslt {

inline constexpr int kHostAlgorithms = 6;

struct HostAlgorithm {
  double microseconds = 10;  // What a product adds to the clock.
  uint32_t scheme = kReductionNone;
  uint32_t alignment = 1;  // That it needs of every matrix.
  size_t workspace_bytes = 0;
  Result state = Result::kSuccess;   // In the answer of the heuristics,
  Result result = Result::kSuccess;  // and of cublasLtMatmul.
};

// To be changed while nothing is queued.
struct HostBehaviour {
  // In the order in which the heuristics propose them; their numbers are their places.
  std::array<HostAlgorithm, kHostAlgorithms> algorithms = {};
  // The heuristics propose what they were asked to leave out.
  bool ignores_preferences = false;
  // There is no epilogue, for any type. There is none for f64 in any case.
  bool no_epilogues = false;
  Result create = Result::kSuccess;
  Result heuristics = Result::kSuccess;
  // Called by cublasLtCreate, cublasLtDestroy and cublasLtMatmul before anything else, unless it is null.
  void (*on_call)(void* argument) = nullptr;
  void* on_call_argument = nullptr;
};

struct HostSeen {
  std::atomic<int> heuristics = 0, asked = 0;
  std::atomic<int> last_algorithm = -1;
  std::array<std::atomic<int>, kHostAlgorithms> products = {};
  // Of all that is made and destroyed.
  std::atomic<int> alive = 0;
  // In microseconds; goes on with each product, when it is made on the stream.
  std::atomic<double> clock = 0;
};

struct HostControls {
  HostBehaviour behaviour;
  HostSeen seen;
};

// The name of the function that gives the controls: HostControls* (*)().
inline constexpr char kHostControls[] = "hostCublasLtControls";

}  // namespace shardproof::cublaslt

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_HOST_CUBLASLT_H_
