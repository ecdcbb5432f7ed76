// Our declarations of NCCL's interface against nccl.h, where there is one: a
// machine without it loads libraries all the same.
#include "collectives/backend/nccl/nccl_abi.h"

#include <gtest/gtest.h>

#if __has_include(<nccl.h>)
#include <nccl.h>
#else
#define NCCL_VERSION_CODE 0
#endif

#include <cstddef>
#include <string>
#include <type_traits>

namespace shardproof::nccl {
namespace {

#if NCCL_VERSION_CODE >= 22800

// Their type in our terms.
template <class T>
struct Ours {
  using type = T;
};
template <>
struct Ours<ncclResult_t> {
  using type = Result;
};
template <>
struct Ours<ncclResult_t*> {
  using type = Result*;
};
template <>
struct Ours<ncclComm_t> {
  using type = Comm;
};
template <>
struct Ours<ncclComm_t*> {
  using type = Comm*;
};
template <>
struct Ours<ncclUniqueId> {
  using type = UniqueId;
};
template <>
struct Ours<ncclUniqueId*> {
  using type = UniqueId*;
};
template <>
struct Ours<ncclDataType_t> {
  using type = DataType;
};
template <>
struct Ours<ncclRedOp_t> {
  using type = RedOp;
};
template <>
struct Ours<ncclRedOp_t*> {
  using type = RedOp*;
};
template <>
struct Ours<ncclScalarResidence_t> {
  using type = ScalarResidence;
};
template <>
struct Ours<ncclConfig_t*> {
  using type = Config*;
};
template <>
struct Ours<cudaStream_t> {
  using type = Stream;
};

// A pointer to a function like theirs.
template <class Function>
struct Pointer;
template <class R, class... Args>
struct Pointer<R(Args...)> {
  using type = typename Ours<R>::type (*)(typename Ours<Args>::type...);
};

template <class Theirs, class Member>
constexpr bool kSame = std::is_same_v<typename Pointer<Theirs>::type, Member>;

template <class Mine, class Theirs>
void ExpectSame(Mine mine, Theirs theirs) {
  static_assert(sizeof(Mine) == sizeof(Theirs));
  EXPECT_EQ(static_cast<int>(mine), static_cast<int>(theirs));
}

TEST(NcclAbiTest, NumbersAreThoseOfTheHeader) {
  ExpectSame(Result::kSuccess, ncclSuccess);
  ExpectSame(Result::kUnhandledCudaError, ncclUnhandledCudaError);
  ExpectSame(Result::kSystemError, ncclSystemError);
  ExpectSame(Result::kInternalError, ncclInternalError);
  ExpectSame(Result::kInvalidArgument, ncclInvalidArgument);
  ExpectSame(Result::kInvalidUsage, ncclInvalidUsage);
  ExpectSame(Result::kRemoteError, ncclRemoteError);
  ExpectSame(Result::kInProgress, ncclInProgress);
  ExpectSame(DataType::kInt8, ncclInt8);
  ExpectSame(DataType::kUint8, ncclUint8);
  ExpectSame(DataType::kInt32, ncclInt32);
  ExpectSame(DataType::kUint32, ncclUint32);
  ExpectSame(DataType::kInt64, ncclInt64);
  ExpectSame(DataType::kUint64, ncclUint64);
  ExpectSame(DataType::kFloat16, ncclFloat16);
  ExpectSame(DataType::kFloat32, ncclFloat32);
  ExpectSame(DataType::kFloat64, ncclFloat64);
  ExpectSame(DataType::kBfloat16, ncclBfloat16);
  ExpectSame(DataType::kFloat8E4M3, ncclFloat8e4m3);
  ExpectSame(DataType::kFloat8E5M2, ncclFloat8e5m2);
  ExpectSame(RedOp::kSum, ncclSum);
  ExpectSame(RedOp::kProd, ncclProd);
  ExpectSame(RedOp::kMax, ncclMax);
  ExpectSame(RedOp::kMin, ncclMin);
  ExpectSame(RedOp::kAvg, ncclAvg);
  ExpectSame(RedOp::kNumOps, ncclNumOps);
  ExpectSame(ScalarResidence::kDevice, ncclScalarDevice);
  ExpectSame(ScalarResidence::kHostImmediate, ncclScalarHostImmediate);
}

TEST(NcclAbiTest, StructsAreThoseOfTheHeader) {
  EXPECT_EQ(sizeof(UniqueId), sizeof(ncclUniqueId));
  EXPECT_EQ(alignof(UniqueId), alignof(ncclUniqueId));
  const ncclConfig_t theirs = NCCL_CONFIG_INITIALIZER;
  EXPECT_EQ(Config().magic, theirs.magic);
  EXPECT_LE(sizeof(Config), sizeof(ncclConfig_t));
  EXPECT_EQ(offsetof(Config, size), offsetof(ncclConfig_t, size));
  EXPECT_EQ(offsetof(Config, magic), offsetof(ncclConfig_t, magic));
  EXPECT_EQ(offsetof(Config, version), offsetof(ncclConfig_t, version));
  EXPECT_EQ(offsetof(Config, blocking), offsetof(ncclConfig_t, blocking));
}

TEST(NcclAbiTest, FunctionsAreThoseOfTheHeader) {
  EXPECT_TRUE((kSame<decltype(ncclGetVersion), decltype(Api::get_version)>));
  EXPECT_TRUE((kSame<decltype(ncclGetUniqueId), decltype(Api::get_unique_id)>));
  EXPECT_TRUE(
      (kSame<decltype(ncclGetErrorString), decltype(Api::get_error_string)>));
  EXPECT_TRUE(
      (kSame<decltype(ncclGetLastError), decltype(Api::get_last_error)>));
  EXPECT_TRUE((kSame<decltype(ncclCommInitRankConfig),
                     decltype(Api::comm_init_rank_config)>));
  EXPECT_TRUE(
      (kSame<decltype(ncclCommFinalize), decltype(Api::comm_finalize)>));
  EXPECT_TRUE((kSame<decltype(ncclCommDestroy), decltype(Api::comm_destroy)>));
  EXPECT_TRUE((kSame<decltype(ncclCommAbort), decltype(Api::comm_abort)>));
  EXPECT_TRUE((kSame<decltype(ncclCommGetAsyncError),
                     decltype(Api::comm_get_async_error)>));
  EXPECT_TRUE((kSame<decltype(ncclRedOpCreatePreMulSum),
                     decltype(Api::red_op_create_pre_mul_sum)>));
  EXPECT_TRUE(
      (kSame<decltype(ncclRedOpDestroy), decltype(Api::red_op_destroy)>));
  EXPECT_TRUE((kSame<decltype(ncclGroupStart), decltype(Api::group_start)>));
  EXPECT_TRUE((kSame<decltype(ncclGroupEnd), decltype(Api::group_end)>));
  EXPECT_TRUE((kSame<decltype(ncclAllReduce), decltype(Api::all_reduce)>));
  EXPECT_TRUE((kSame<decltype(ncclReduce), decltype(Api::reduce)>));
  EXPECT_TRUE((kSame<decltype(ncclBroadcast), decltype(Api::broadcast)>));
  EXPECT_TRUE(
      (kSame<decltype(ncclReduceScatter), decltype(Api::reduce_scatter)>));
  EXPECT_TRUE((kSame<decltype(ncclAllGather), decltype(Api::all_gather)>));
  EXPECT_TRUE((kSame<decltype(ncclSend), decltype(Api::send)>));
  EXPECT_TRUE((kSame<decltype(ncclRecv), decltype(Api::recv)>));
  EXPECT_TRUE((kSame<decltype(ncclCommInitRankScalable),
                     decltype(Api::comm_init_rank_scalable)>));
  EXPECT_TRUE((kSame<decltype(ncclAlltoAll), decltype(Api::all_to_all)>));
  EXPECT_TRUE((kSame<decltype(ncclGather), decltype(Api::gather)>));
  EXPECT_TRUE((kSame<decltype(ncclScatter), decltype(Api::scatter)>));
}

#else

TEST(NcclAbiTest, IsThatOfTheHeader) {
  GTEST_SKIP() << (NCCL_VERSION_CODE == 0 ? "there is no nccl.h here"
                                          : "nccl.h here is older than 2.28");
}

#endif

}  // namespace
}  // namespace shardproof::nccl
