// The arithmetic of the kernels against that of the host, bit for bit but for NaN: all types, all operations, all kinds
// of numbers.
#include "collectives/backend/cuda/kernels/fold.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "collectives/backend/cuda/kernels/reducing.h"
#include "collectives/kernels/reduce.h"
#include "reference/random.h"

namespace shardproof::cuda {
namespace {

constexpr int kRanks = 3;
constexpr int64_t kCount = 1000 + 7;
constexpr double kScales[kRanks] = {1.5, -3, 0.3};

// One thread.
struct SerialContext {
  static int rank() { return 0; }
  static int block() { return 0; }
  static int blocks() { return 1; }
  static int thread() { return 0; }
  static int threads() { return 1; }
  template <class T>
  static T Load(const T* from) {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
  }
  template <class T>
  static void Store(T* to, const T& value) {
    std::memcpy(static_cast<void*>(to), &value, sizeof(T));
  }
};

template <class T>
auto BitsOfElement(T element) {
  return std::bit_cast<std::array<std::byte, sizeof(T)>>(element);
}

// `offset` elements lie before the first, so that heads and tails are folded as well as vectors.
template <class T, ReduceOp kOp>
void Check(bool finite, int64_t offset) {
  std::array<std::vector<T>, kRanks> inputs;
  std::array<const void*, kRanks> sources;
  CollectiveArgs args;
  for (int rank = 0; rank < kRanks; ++rank) {
    inputs[rank].resize(offset + kCount);
    for (int64_t i = 0; i < offset + kCount; ++i) {
      const uint64_t bits =
          RandomBits({.seed = 1, .rank = static_cast<uint64_t>(rank)}, i);
      // Any bits at all: NaN, infinities, subnormals and both zeros are among them; or numbers of a kind.
      std::memcpy(static_cast<void*>(&inputs[rank][i]), &bits, sizeof(T));
      if (finite) {
        inputs[rank][i] = static_cast<T>(static_cast<int>(bits % 17) - 8);
      }
    }
    sources[rank] = inputs[rank].data() + offset;
    args.send[rank] = sources[rank];
    args.scales[rank] = kScales[rank];
  }
  std::vector<T> want(kCount), got(offset + kCount);
  void* const destination = want.data();
  kernels::Reduce(
      DTypeOf<T>(), kOp, sources, kCount, {&destination, 1},
      {.scales = kOp == ReduceOp::kPremulSum ? std::span<const double>(kScales)
                                             : std::span<const double>(),
       .divisor = kOp == ReduceOp::kAvg ? kRanks : 1});
  args.recv[0] = got.data() + offset;
  SerialContext context;
  FoldRange<T, kOp>(context, kRanks, args, 0, 0, kCount, 0, 1);
  for (int64_t i = 0; i < kCount; ++i) {
    // Which NaN comes of two, or of infinities, is the processor's affair.
    const auto a = static_cast<double>(got[offset + i]);
    const auto b = static_cast<double>(want[i]);
    ASSERT_TRUE(BitsOfElement(got[offset + i]) == BitsOfElement(want[i]) ||
                (std::isnan(a) && std::isnan(b)))
        << Name(DTypeOf<T>()) << " " << Name(kOp) << " element " << i << ": "
        << a << ", the host has " << b;
  }
}

template <ReduceOp kOp>
void CheckAllTypes() {
  for (const DType dtype : kAllDTypes) {
    Visit(dtype, [&]<class T>(TypeTag<T> /*type*/) {
      for (const bool finite : {false, true}) {
        for (const int64_t offset : {0, 3}) Check<T, kOp>(finite, offset);
      }
    });
  }
}

TEST(FoldTest, IsTheHostsBitForBit) {
  CheckAllTypes<ReduceOp::kSum>();
  CheckAllTypes<ReduceOp::kProd>();
  CheckAllTypes<ReduceOp::kMin>();
  CheckAllTypes<ReduceOp::kMax>();
  CheckAllTypes<ReduceOp::kAvg>();
  CheckAllTypes<ReduceOp::kPremulSum>();
}

TEST(PartOfTest, CoversEverythingOnceInWholeVectors) {
  for (const int64_t count : {0, 1, 7, 16, 17, 1000}) {
    for (const int p : {1, 2, 3, 8, 16}) {
      int64_t next = 0;
      for (int r = 0; r < p; ++r) {
        const Part part = PartOf<float>(count, p, r);
        EXPECT_EQ(part.begin, next);
        if (part.count > 0) {
          EXPECT_EQ(part.begin % 4, 0);
        }
        next += part.count;
      }
      EXPECT_EQ(next, count);
    }
  }
}

}  // namespace
}  // namespace shardproof::cuda
