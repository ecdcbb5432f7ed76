// Compiled by nvcc, which knows where its toolkit's headers are; all of it is for the host.
#include "collectives/backend/nccl/nccl_header.h"

#if __has_include(<nccl.h>)
#include <nccl.h>
#else
#define NCCL_VERSION_CODE 0
#endif

#include <cstddef>

#include "collectives/backend/nccl/nccl_abi.h"

namespace shardproof::nccl {

// A source without a kernel gives no report, and that is an error (tools/bazel/nvcc.sh).
__global__ void NoKernel() {}

namespace {

#if NCCL_VERSION_CODE >= 22800

// Their type in our terms.
template <class T>
struct Ours {
  using type = T;
};
#define SHARDPROOF_OURS(theirs, ours) \
  template <>                         \
  struct Ours<theirs> {               \
    using type = ours;                \
  }
SHARDPROOF_OURS(ncclResult_t, Result);
SHARDPROOF_OURS(ncclResult_t*, Result*);
SHARDPROOF_OURS(ncclComm_t, Comm);
SHARDPROOF_OURS(ncclComm_t*, Comm*);
SHARDPROOF_OURS(ncclUniqueId, UniqueId);
SHARDPROOF_OURS(ncclUniqueId*, UniqueId*);
SHARDPROOF_OURS(ncclDataType_t, DataType);
SHARDPROOF_OURS(ncclRedOp_t, RedOp);
SHARDPROOF_OURS(ncclRedOp_t*, RedOp*);
SHARDPROOF_OURS(ncclScalarResidence_t, ScalarResidence);
SHARDPROOF_OURS(ncclConfig_t*, Config*);
SHARDPROOF_OURS(cudaStream_t, Stream);
#undef SHARDPROOF_OURS

using Comparison = HeaderComparator<Ours>;

void CompareNumbers(Comparison& all) {
  all.Numbers("ncclSuccess", Result::kSuccess, ncclSuccess);
  all.Numbers("ncclUnhandledCudaError", Result::kUnhandledCudaError,
              ncclUnhandledCudaError);
  all.Numbers("ncclSystemError", Result::kSystemError, ncclSystemError);
  all.Numbers("ncclInternalError", Result::kInternalError, ncclInternalError);
  all.Numbers("ncclInvalidArgument", Result::kInvalidArgument,
              ncclInvalidArgument);
  all.Numbers("ncclInvalidUsage", Result::kInvalidUsage, ncclInvalidUsage);
  all.Numbers("ncclRemoteError", Result::kRemoteError, ncclRemoteError);
  all.Numbers("ncclInProgress", Result::kInProgress, ncclInProgress);
  all.Numbers("ncclInt8", DataType::kInt8, ncclInt8);
  all.Numbers("ncclUint8", DataType::kUint8, ncclUint8);
  all.Numbers("ncclInt32", DataType::kInt32, ncclInt32);
  all.Numbers("ncclUint32", DataType::kUint32, ncclUint32);
  all.Numbers("ncclInt64", DataType::kInt64, ncclInt64);
  all.Numbers("ncclUint64", DataType::kUint64, ncclUint64);
  all.Numbers("ncclFloat16", DataType::kFloat16, ncclFloat16);
  all.Numbers("ncclFloat32", DataType::kFloat32, ncclFloat32);
  all.Numbers("ncclFloat64", DataType::kFloat64, ncclFloat64);
  all.Numbers("ncclBfloat16", DataType::kBfloat16, ncclBfloat16);
  all.Numbers("ncclFloat8e4m3", DataType::kFloat8E4M3, ncclFloat8e4m3);
  all.Numbers("ncclFloat8e5m2", DataType::kFloat8E5M2, ncclFloat8e5m2);
  all.Numbers("ncclSum", RedOp::kSum, ncclSum);
  all.Numbers("ncclProd", RedOp::kProd, ncclProd);
  all.Numbers("ncclMax", RedOp::kMax, ncclMax);
  all.Numbers("ncclMin", RedOp::kMin, ncclMin);
  all.Numbers("ncclAvg", RedOp::kAvg, ncclAvg);
  all.Numbers("ncclNumOps", RedOp::kNumOps, ncclNumOps);
  all.Numbers("ncclScalarDevice", ScalarResidence::kDevice, ncclScalarDevice);
  all.Numbers("ncclScalarHostImmediate", ScalarResidence::kHostImmediate,
              ncclScalarHostImmediate);
}

void CompareStructs(Comparison& all) {
  all.Numbers("sizeof ncclUniqueId", sizeof(UniqueId), sizeof(ncclUniqueId));
  all.Numbers("alignof ncclUniqueId", alignof(UniqueId), alignof(ncclUniqueId));
  const ncclConfig_t theirs = NCCL_CONFIG_INITIALIZER;
  all.Numbers("magic of NCCL_CONFIG_INITIALIZER", Config().magic, theirs.magic);
  // Ours is the beginning of theirs.
  all.Numbers("sizeof ncclConfig_t", sizeof(Config) <= sizeof(ncclConfig_t),
              true);
  all.Numbers("offset of size", offsetof(Config, size),
              offsetof(ncclConfig_t, size));
  all.Numbers("offset of magic", offsetof(Config, magic),
              offsetof(ncclConfig_t, magic));
  all.Numbers("offset of version", offsetof(Config, version),
              offsetof(ncclConfig_t, version));
  all.Numbers("offset of blocking", offsetof(Config, blocking),
              offsetof(ncclConfig_t, blocking));
}

void CompareFunctions(Comparison& all) {
  all.Functions<decltype(ncclGetVersion), decltype(Api::get_version)>(
      "ncclGetVersion");
  all.Functions<decltype(ncclGetUniqueId), decltype(Api::get_unique_id)>(
      "ncclGetUniqueId");
  all.Functions<decltype(ncclGetErrorString), decltype(Api::get_error_string)>(
      "ncclGetErrorString");
  all.Functions<decltype(ncclGetLastError), decltype(Api::get_last_error)>(
      "ncclGetLastError");
  all.Functions<decltype(ncclCommInitRankConfig),
                decltype(Api::comm_init_rank_config)>("ncclCommInitRankConfig");
  all.Functions<decltype(ncclCommFinalize), decltype(Api::comm_finalize)>(
      "ncclCommFinalize");
  all.Functions<decltype(ncclCommDestroy), decltype(Api::comm_destroy)>(
      "ncclCommDestroy");
  all.Functions<decltype(ncclCommAbort), decltype(Api::comm_abort)>(
      "ncclCommAbort");
  all.Functions<decltype(ncclCommGetAsyncError),
                decltype(Api::comm_get_async_error)>("ncclCommGetAsyncError");
  all.Functions<decltype(ncclRedOpCreatePreMulSum),
                decltype(Api::red_op_create_pre_mul_sum)>(
      "ncclRedOpCreatePreMulSum");
  all.Functions<decltype(ncclRedOpDestroy), decltype(Api::red_op_destroy)>(
      "ncclRedOpDestroy");
  all.Functions<decltype(ncclGroupStart), decltype(Api::group_start)>(
      "ncclGroupStart");
  all.Functions<decltype(ncclGroupEnd), decltype(Api::group_end)>(
      "ncclGroupEnd");
  all.Functions<decltype(ncclAllReduce), decltype(Api::all_reduce)>(
      "ncclAllReduce");
  all.Functions<decltype(ncclReduce), decltype(Api::reduce)>("ncclReduce");
  all.Functions<decltype(ncclBroadcast), decltype(Api::broadcast)>(
      "ncclBroadcast");
  all.Functions<decltype(ncclReduceScatter), decltype(Api::reduce_scatter)>(
      "ncclReduceScatter");
  all.Functions<decltype(ncclAllGather), decltype(Api::all_gather)>(
      "ncclAllGather");
  all.Functions<decltype(ncclSend), decltype(Api::send)>("ncclSend");
  all.Functions<decltype(ncclRecv), decltype(Api::recv)>("ncclRecv");
  all.Functions<decltype(ncclCommInitRankScalable),
                decltype(Api::comm_init_rank_scalable)>(
      "ncclCommInitRankScalable");
  all.Functions<decltype(ncclAlltoAll), decltype(Api::all_to_all)>(
      "ncclAlltoAll");
  all.Functions<decltype(ncclGather), decltype(Api::gather)>("ncclGather");
  all.Functions<decltype(ncclScatter), decltype(Api::scatter)>("ncclScatter");
}

#endif

}  // namespace

int HeaderVersion() { return NCCL_VERSION_CODE; }

HeaderComparison CompareWithHeader() {
#if NCCL_VERSION_CODE >= 22800
  Comparison all;
  CompareNumbers(all);
  CompareStructs(all);
  CompareFunctions(all);
  return all.result();
#else
  return {};
#endif
}

}  // namespace shardproof::nccl
