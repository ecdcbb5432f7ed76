// Which forward kernel a call is given: that of warpgroups on compute capability 9 where TMA takes its tensors, that of
// mma.sync otherwise. Nothing runs: GPUs, kernels and maps are names.
#include "attention/kernels/cuda/device/flash_gpu.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/cuda/kernel_table.h"
#include "attention/kernels/cuda/warpgroup/tiling.h"
#include "collectives/backend/cuda/device/gpu.h"

namespace shardproof::cuda {
namespace {

constexpr int kHeadDim = 128;

class NamedGpu final : public Gpu {
 public:
  explicit NamedGpu(int major) { info_.major = major; }
  const GpuInfo& info() const override { return info_; }
  Status Use() override { return OkStatus(); }
  Status EnablePeer(int /*peer*/) override { return OkStatus(); }
  StatusOr<Buffer> Allocate(size_t /*bytes*/) override { return Nothing(); }
  StatusOr<Buffer> AllocateFlags(size_t /*bytes*/) override {
    return Nothing();
  }
  StatusOr<Buffer> AllocateReports(size_t /*bytes*/) override {
    return Nothing();
  }
  StatusOr<std::unique_ptr<GpuStream>> NewStream() override {
    return Nothing();
  }
  StatusOr<std::unique_ptr<GpuEvent>> NewEvent() override { return Nothing(); }
  StatusOr<double> Microseconds(const GpuEvent& /*from*/,
                                const GpuEvent& /*to*/) override {
    return Nothing();
  }
  Status Prepare(const CollectiveLaunch& /*launch*/) override {
    return Nothing();
  }

 private:
  static Status Nothing() { return Unsupported("a GPU in name only"); }
  GpuInfo info_;
};

class NamedGpus final : public GpuSystem {
 public:
  NamedGpus(int major, bool emulated) : gpu_(major), emulated_(emulated) {}
  int count() const override { return 1; }
  Gpu& gpu(int /*index*/) override { return gpu_; }
  bool emulated() const override { return emulated_; }
  std::string Describe() const override { return "names"; }
  bool Addresses(const void* /*data*/) const override { return true; }

 private:
  NamedGpu gpu_;
  const bool emulated_;
};

const char* Encode(const TileMapSpec& spec, TileMap& map) {
  std::memcpy(&map, &spec.box, sizeof(spec.box));
  return WhyNotTileMap(spec);
}
const char* EncodeNothing(const TileMapSpec& /*spec*/, TileMap& /*map*/) {
  return "a driver that knows no maps";
}

constexpr char kNames[kFlashKernels] = {};
template <TileMapEncoder kEncode, bool kHasWarpgroups = true>
FlashKernelEntry Find(FlashKernel kernel, DType /*dtype*/, int /*head_dim*/) {
  if (kernel != FlashKernel::kWarpgroupForward) {
    return {&kNames[static_cast<int>(kernel)], 128, 64, 0};
  }
  using Tiling = WarpgroupTiling<kHeadDim>;
  return {kHasWarpgroups ? &kNames[static_cast<int>(kernel)] : nullptr,
          Tiling::kThreads, Tiling::kRows, Tiling::kSharedBytes, kEncode};
}

alignas(16) std::byte memory[32];

FlashForwardArgs Args(int queries = 300, int keys = 500) {
  FlashForwardArgs args = {};
  args.work = {.heads = 4, .kv_heads = 2, .heads_per_kv = 2};
  args.work.sight.queries.count = queries;
  args.work.sight.keys.count = keys;
  args.q = {memory, 512, 0};
  args.k = args.v = {memory, 256, 0};
  return args;
}

using Finder = FlashKernelEntry (*)(FlashKernel, DType, int);

GridLaunch Chosen(const FlashForwardArgs& args, int major,
                  bool emulated = false, Finder find = Find<Encode>) {
  const FlashGpu gpu(
      {.gpus = std::make_shared<NamedGpus>(major, emulated), .find = find});
  FlashLaunches launches(gpu, DType::kBF16, kHeadDim);
  launches.AddForward(args);
  EXPECT_EQ(launches.all().size(), 1u);
  return launches.all().front();
}
bool TakesWarpgroups(const GridLaunch& launch) {
  return launch.name == "flash_warpgroup_forward";
}

TEST(FlashGpuTest, TakesWarpgroupsOnCapability9) {
  const GridLaunch launch = Chosen(Args(), 9);
  EXPECT_TRUE(TakesWarpgroups(launch)) << launch.name;
  using Tiling = WarpgroupTiling<kHeadDim>;
  EXPECT_EQ(launch.blocks, 3 * 4);  // Of 128 queries each.
  EXPECT_EQ(launch.threads, Tiling::kThreads);
  EXPECT_EQ(launch.shared_bytes, static_cast<int>(Tiling::kSharedBytes));
  EXPECT_EQ(launch.emulated, nullptr);
  ASSERT_EQ(launch.parameters.size(), 1u);
  // Aligned as a map has to be, with the box of each tensor.
  const auto* const args =
      static_cast<const WarpgroupForwardArgs*>(launch.parameters[0]);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(&args->q) % 128, 0u);
  EXPECT_EQ(args->flash.work.sight.keys.count, 500);
  const int32_t box[] = {64, 1, 128, 1};
  for (const TileMap* const map : {&args->q, &args->k, &args->v}) {
    EXPECT_EQ(std::memcmp(map, box, sizeof(box)), 0);
  }
}

TEST(FlashGpuTest, TakesMmaOnOthers) {
  for (const int major : {8, 10, 12}) {
    EXPECT_EQ(Chosen(Args(), major).name, "flash_forward") << major;
  }
  EXPECT_EQ(Chosen(Args(), 9, true).name, "flash_forward");
}

TEST(FlashGpuTest, TakesMmaWhereTmaDoesNotServe) {
  EXPECT_EQ(Chosen(Args(300, 0), 9).name, "flash_forward");
  FlashForwardArgs args = Args();
  args.v.stride += 4;
  EXPECT_EQ(Chosen(args, 9).name, "flash_forward");
  EXPECT_EQ(Chosen(Args(), 9, false, Find<EncodeNothing>).name,
            "flash_forward");
  EXPECT_EQ(Chosen(Args(), 9, false, Find<Encode, false>).name,
            "flash_forward");
}

}  // namespace
}  // namespace shardproof::cuda
