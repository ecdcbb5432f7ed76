// NCCL's C interface, as far as it is called here: its types, numbers and
// signatures, declared again so that nothing here needs nccl.h or CUDA to be
// built. The library itself is found at run time (nccl_library.h).
//
// What each function is called in the library is its member's name in NCCL's
// spelling: all_reduce is ncclAllReduce. A cudaStream_t is a pointer here.
//
// Source: nccl.h of NCCL 2.14 to 2.30, in which none of this has changed.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_ABI_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_ABI_H_

#include <array>
#include <cstddef>

namespace shardproof::nccl {

struct OpaqueComm;
using Comm = OpaqueComm*;
using Stream = void*;

struct UniqueId {
  std::array<char, 128> internal;
};

enum class Result : int {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
};

enum class DataType : int {
  kInt8 = 0,
  kUint8 = 1,
  kInt32 = 2,
  kUint32 = 3,
  kInt64 = 4,
  kUint64 = 5,
  kFloat16 = 6,
  kFloat32 = 7,
  kFloat64 = 8,
  kBfloat16 = 9,
  kFloat8E4M3 = 10,
  kFloat8E5M2 = 11,
};

// Numbers from kNumOps on are operations that the library made.
enum class RedOp : int {
  kSum = 0,
  kProd = 1,
  kMax = 2,
  kMin = 3,
  kAvg = 4,
  kNumOps = 5
};

enum class ScalarResidence : int { kDevice = 0, kHostImmediate = 1 };

// ncclConfig_t as it was in 2.14. A library reads as much as `size` says and
// takes its own defaults for what came after `version`.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = 21400;
  int blocking = 0;
};

struct Api {
  Result (*get_version)(int*) = nullptr;
  Result (*get_unique_id)(UniqueId*) = nullptr;
  const char* (*get_error_string)(Result) = nullptr;
  const char* (*get_last_error)(Comm) = nullptr;
  Result (*comm_init_rank_config)(Comm*, int ranks, UniqueId, int rank,
                                  Config*) = nullptr;
  Result (*comm_finalize)(Comm) = nullptr;
  Result (*comm_destroy)(Comm) = nullptr;
  Result (*comm_abort)(Comm) = nullptr;
  Result (*comm_get_async_error)(Comm, Result*) = nullptr;
  Result (*red_op_create_pre_mul_sum)(RedOp*, void* scalar, DataType,
                                      ScalarResidence, Comm) = nullptr;
  Result (*red_op_destroy)(RedOp, Comm) = nullptr;
  Result (*group_start)() = nullptr;
  Result (*group_end)() = nullptr;

  Result (*all_reduce)(const void* send, void* recv, size_t count, DataType,
                       RedOp, Comm, Stream) = nullptr;
  Result (*reduce)(const void* send, void* recv, size_t count, DataType, RedOp,
                   int root, Comm, Stream) = nullptr;
  Result (*broadcast)(const void* send, void* recv, size_t count, DataType,
                      int root, Comm, Stream) = nullptr;
  Result (*reduce_scatter)(const void* send, void* recv, size_t recv_count,
                           DataType, RedOp, Comm, Stream) = nullptr;
  Result (*all_gather)(const void* send, void* recv, size_t send_count,
                       DataType, Comm, Stream) = nullptr;
  Result (*send)(const void* data, size_t count, DataType, int peer, Comm,
                 Stream) = nullptr;
  Result (*recv)(void* data, size_t count, DataType, int peer, Comm,
                 Stream) = nullptr;

  // Null where the library has none.
  Result (*comm_init_rank_scalable)(Comm*, int ranks, int rank, int ids,
                                    UniqueId*, Config*) = nullptr;  // 2.23
  Result (*all_to_all)(const void* send, void* recv, size_t count, DataType,
                       Comm, Stream) = nullptr;  // 2.28: ncclAlltoAll
  Result (*gather)(const void* send, void* recv, size_t count, DataType,
                   int root, Comm, Stream) = nullptr;  // 2.28
  Result (*scatter)(const void* send, void* recv, size_t count, DataType,
                    int root, Comm, Stream) = nullptr;  // 2.28
};

}  // namespace shardproof::nccl

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_ABI_H_
