#include "tools/cli/roofline/measure_point.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>

#include "collectives/backend/cuda/device/emulated_gpu.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/cuda/device/layer_kernels_on_gpu.h"
#include "layers/kernels/cuda/device/layer_launch.h"
#include "tools/cli/roofline/machine.h"

namespace shardproof {
namespace {

constexpr int64_t kElements = 40;

std::shared_ptr<const RankServices> ServicesOn(
    const std::shared_ptr<cuda::GpuSystem>& gpus, int gpu) {
  auto services = std::make_shared<RankServices>();
  services->Put<LayerKernels>(std::make_shared<cuda::LayerKernelsOnGpu>(
      cuda::GpuLanesOptions{.gpus = gpus, .gpu = gpu}));
  return services;
}

// GELU, and what a test makes of it.
cuda::KernelPoint GeluPoint() {
  return {.name = "gelu",
          .dtype = DType::kF32,
          .params = {{"dtype", "f32"}},
          .operands = {cuda::Random("z", DType::kF32, kElements),
                       cuda::Output("a", DType::kF32, kElements)},
          .run =
              [](void* const* at) {
                return Gelu(Stream::Inline(), DType::kF32, kElements, at[0],
                            at[1]);
              },
          .kernels = {{.name = "Gelu", .bytes = 2.0 * kElements * 4}}};
}

class MeasurePointTest : public ::testing::Test {
 protected:
  void SetUp() override { Open({}); }
  void Open(const cuda::EmulatedGpuOptions& options) {
    auto gpus = cuda::OpenEmulatedGpus(options);
    ASSERT_TRUE(gpus.ok());
    on_.gpus = *gpus;
    auto stream = on_.device().NewStream();
    ASSERT_TRUE(stream.ok());
    stream_ = *std::move(stream);
    on_.stream = stream_.get();
    on_.services = &ServicesOn;
  }
  std::vector<Record> Measure(const cuda::KernelPoint& point,
                              bool cold = true) {
    return MeasurePoint(on_, point, {}, {.cold = cold});
  }

  RooflineGpu on_;
  std::unique_ptr<cuda::GpuStream> stream_;
};

TEST_F(MeasurePointTest, SaysThatItIsRightAndEmulated) {
  const std::vector<Record> records = Measure(GeluPoint());
  ASSERT_EQ(records.size(), 1U);
  const Record& r = records[0];
  EXPECT_EQ(r.case_name, "kernels/gelu");
  EXPECT_EQ(r.variant, "ours");
  EXPECT_EQ(r.verdict, Verdict::kPassed) << r.reason;
  EXPECT_TRUE(r.emulated);
  EXPECT_FALSE(r.time_us.has_value());
  EXPECT_FALSE(r.floor_us.has_value());
  EXPECT_EQ(r.error->compared, kElements);
  const std::vector<std::pair<std::string, std::string>> params = {
      {"dtype", "f32"}, {"cache", "cold"}, {"gpu", "0"}};
  EXPECT_EQ(r.params, params);
  EXPECT_EQ(Measure(GeluPoint(), false)[0].params[1].second, "hot");
}

TEST_F(MeasurePointTest, FindsAWrongKernel) {
  cuda::KernelPoint point = GeluPoint();
  // The host's is that of another function.
  point.host = [](void* const* at) {
    return GeluBackward(Stream::Inline(), DType::kF32, kElements, at[0], at[0],
                        at[1]);
  };
  const Record r = Measure(point)[0];
  EXPECT_EQ(r.verdict, Verdict::kIncorrect);
  EXPECT_EQ(r.reason.substr(0, 3), "a: ");
  EXPECT_FALSE(r.time_us.has_value());
}

TEST_F(MeasurePointTest, FindsAKernelThatWritesNothing) {
  cuda::KernelPoint point = GeluPoint();
  // Every launch but this one's result is poison.
  point.operands.push_back(cuda::Output("b", DType::kF32, kElements));
  point.host = [run = point.run](void* const* at) -> Status {
    SP_RETURN_IF_ERROR(run(at));
    void* const other[] = {at[0], at[2]};
    return run(other);
  };
  const Record r = Measure(point)[0];
  EXPECT_EQ(r.verdict, Verdict::kIncorrect);
  EXPECT_EQ(r.reason.substr(0, 3), "b: ");
}

TEST_F(MeasurePointTest, RefusesTheHostsWork) {
  cuda::KernelPoint point = GeluPoint();
  point.run = [](void* const* /*at*/) { return OkStatus(); };
  const Record r = Measure(point)[0];
  EXPECT_EQ(r.verdict, Verdict::kFailed);
  EXPECT_EQ(r.reason, "gelu launched nothing, and not Gelu");
}

TEST_F(MeasurePointTest, RefusesOtherKernelsThanItNames) {
  cuda::KernelPoint point = GeluPoint();
  point.kernels[0].name = "SwiGlu";
  EXPECT_EQ(Measure(point)[0].reason, "gelu launched Gelu, and not SwiGlu");
}

TEST_F(MeasurePointTest, RefusesWhatCannotBeChecked) {
  cuda::KernelPoint point = GeluPoint();
  point.operands[1].checked = false;
  const Record r = Measure(point)[0];
  EXPECT_EQ(r.verdict, Verdict::kFailed);
  EXPECT_EQ(r.reason, "gelu has nothing to check");
}

TEST_F(MeasurePointTest, ReportsALaunchThatFails) {
  Open({.faults = {.refused_launch = 0}});
  const Record r = Measure(GeluPoint())[0];
  EXPECT_EQ(r.verdict, Verdict::kFailed);
  EXPECT_FALSE(r.reason.empty());
}

TEST_F(MeasurePointTest, ReportsMemoryThatThereIsNot) {
  Open({.memory_bytes = 64});
  EXPECT_EQ(Measure(GeluPoint())[0].verdict, Verdict::kUnsupported);
}

TEST_F(MeasurePointTest, LeavesOutProductsWithoutALibrary) {
  cuda::KernelPoint point = GeluPoint();
  point.product = [](CublasLtGemm&, cuda::GpuStream&, void* const*) {
    return OkStatus();
  };
  const Record r = Measure(point)[0];
  EXPECT_EQ(r.verdict, Verdict::kUnsupported);
  EXPECT_EQ(r.reason, "there is no cuBLASLt here");
}

// On the GPU, that the time goes on: only there is one.
TEST_F(MeasurePointTest, LaunchesAgainOnEverySet) {
  const cuda::KernelPoint spec = GeluPoint();
  PreparedPoint point(on_, spec);
  ASSERT_TRUE(point.Prepare(3).ok());
  EXPECT_EQ(point.sets(), 3);
  EXPECT_EQ(point.bytes(), 2 * kElements * 4);
  for (int set = 0; set < 3; ++set) {
    ASSERT_TRUE(point.QueueAll(set).ok());
  }
  ASSERT_TRUE(cuda::Synchronize(*stream_, std::chrono::seconds(10)).ok());
  const auto check = point.Check();
  ASSERT_TRUE(check.ok());
  EXPECT_TRUE(check->passed) << check->reason;
}

// Every family, at sizes that are no multiples of anything.
TEST_F(MeasurePointTest, AllPointsAreRight) {
  const cuda::ModelShape shape = {.tokens = 13,
                                  .hidden = 72,
                                  .intermediate = 40,
                                  .vocabulary = 37,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .head_dim = 36};
  for (const cuda::KernelPoint& point : cuda::AllKernelPoints(shape)) {
    if (point.product != nullptr) continue;
    for (const Record& r : Measure(point)) {
      EXPECT_EQ(r.verdict, Verdict::kPassed)
          << r.case_name << " " << ParamsText(r) << ": " << r.reason;
    }
  }
}

TEST_F(MeasurePointTest, CopiesAreChecked) {
  const MeasuredCeilings found = MeasureCeilings(on_, {});
  ASSERT_EQ(found.records.size(), 4U);
  for (const Record& r : found.records) {
    EXPECT_EQ(r.case_name, "ceilings/copy");
    EXPECT_EQ(r.verdict, Verdict::kPassed) << r.variant << ": " << r.reason;
    EXPECT_FALSE(r.time_us.has_value());
  }
  EXPECT_EQ(found.ceilings.copy_bytes_per_us, 0);
}

TEST(CaseNameTest, IsLowerCase) {
  EXPECT_EQ(CaseName("EmbeddingCount"), "embedding_count");
  EXPECT_EQ(CaseName("flash_forward"), "flash_forward");
  EXPECT_EQ(CaseName("SwiGluBackward"), "swiglu_backward");
}

// Every kernel that layers can launch is measured: a new one needs a point.
TEST(AllKernelPointsTest, NameEveryKernelOfTheTable) {
  std::set<std::string> named;
  for (const cuda::KernelPoint& point : cuda::AllKernelPoints({})) {
    EXPECT_FALSE(point.operands.empty()) << point.name;
    for (const cuda::KernelCost& cost : point.kernels) {
      EXPECT_GT(cost.bytes, 0) << cost.name;
      named.insert(cost.name);
    }
  }
  for (int i = 0; i < cuda::kLayerKernels; ++i) {
    const std::string name(cuda::Name(static_cast<cuda::LayerKernel>(i)));
    EXPECT_TRUE(named.contains(name)) << name;
  }
}

}  // namespace
}  // namespace shardproof
