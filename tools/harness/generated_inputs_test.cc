#include "tools/harness/generated_inputs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

namespace shardproof {
namespace {

std::unique_ptr<GeneratedInputs> Make(const Tensors& tensors, int ranks,
                                      Tier tier, uint64_t seed = 1) {
  auto inputs = GeneratedInputs::Create(tensors, ranks, tier, seed);
  EXPECT_TRUE(inputs.ok()) << inputs.status().ToString();
  return *std::move(inputs);
}

std::vector<double> ReadAll(const Inputs& inputs, std::string_view name,
                            int rank, int64_t n) {
  std::vector<double> x(static_cast<size_t>(n));
  inputs.Read(name, rank, 0, x);
  return x;
}

TEST(GeneratedInputs, BlocksHoldWhatTheReferenceReads) {
  for (const Tier tier : {Tier::kExact, Tier::kBounded}) {
    for (const DType dtype : kAllDTypes) {
      const Tensors tensors = {
          Input("own", dtype, {5, 7}, PerRank()).Terms(ReduceOp::kSum, 3),
          Input("cut", dtype, {6, 7}, Shard(1)),
          Input("same", dtype, {6, 7}, Replicated()),
          Input("ids", DType::kI32, {50}, Replicated())
              .Data({.ids_below = 10})};
      const auto inputs = Make(tensors, 3, tier);
      for (const TensorSpec& spec : tensors) {
        for (int rank = 0; rank < 3; ++rank) {
          const LocalBlock block = spec.BlockOf(rank, 3);
          Tensor local(spec.dtype, block.shape);
          inputs->FillBlock(spec, rank, local.raw());
          std::vector<double> got(static_cast<size_t>(local.num_elements()));
          ToDouble(spec.dtype, local.raw(), local.num_elements(), got.data());
          const std::vector<double> all =
              ReadAll(*inputs, spec.name, rank, spec.shape.NumElements());
          if (spec.sharding.kind == ShardKind::kPerRank) {
            EXPECT_EQ(got, all);
            continue;
          }
          EXPECT_EQ(inputs->All(spec.name), all);
          ForEachRun(spec.shape, block, 0, local.num_elements(),
                     [&](const IndexRun& run) {
                       for (int64_t i = 0; i < run.length; ++i) {
                         EXPECT_EQ(got[run.local + i], all[run.global + i]);
                       }
                     });
        }
      }
    }
  }
}

TEST(GeneratedInputs, DifferBetweenRanksIndicesTensorsAndSeeds) {
  const Tensors tensors = {Input("a", DType::kF32, {1000}, PerRank()),
                           Input("b", DType::kF32, {1000}, PerRank())};
  for (const Tier tier : {Tier::kExact, Tier::kBounded}) {
    const auto inputs = Make(tensors, 4, tier);
    std::set<std::vector<double>> distinct;
    for (int r = 0; r < 4; ++r) {
      distinct.insert(ReadAll(*inputs, "a", r, 1000));
      distinct.insert(ReadAll(*inputs, "b", r, 1000));
    }
    distinct.insert(ReadAll(*Make(tensors, 4, tier, 2), "a", 0, 1000));
    EXPECT_EQ(distinct.size(), 9U);
    const std::vector<double> a = ReadAll(*inputs, "a", 0, 1000);
    EXPECT_GT(std::set<double>(a.begin(), a.end()).size(), 900U);
  }
}

TEST(GeneratedInputs, AnySumOfExactValuesIsExact) {
  for (const DType dtype : kAllDTypes) {
    for (const int ranks : {2, 3, 8, 16}) {
      const Tensors tensors = {
          Input("x", dtype, {500}, PerRank()).Terms(ReduceOp::kSum, ranks)};
      const auto inputs = Make(tensors, ranks, Tier::kExact);
      std::vector<double> magnitude(500, 0.0);
      for (int r = 0; r < ranks; ++r) {
        const std::vector<double> x = ReadAll(*inputs, "x", r, 500);
        for (size_t i = 0; i < x.size(); ++i) {
          EXPECT_EQ(x[i], std::round(x[i]));
          EXPECT_EQ(Round(dtype, x[i]), x[i]);
          magnitude[i] += std::abs(x[i]);
        }
      }
      const double most = std::ldexp(1.0, SignificandBits(dtype));
      EXPECT_LT(*std::max_element(magnitude.begin(), magnitude.end()), most)
          << Name(dtype) << " " << ranks;
    }
  }
}

TEST(GeneratedInputs, ExactValuesFitBothTheTensorAndTheSum) {
  Tensors tensors = {Input("x", DType::kBF16, {500}, PerRank())};
  tensors[0].Data({.terms = 16, .exact_in = DType::kF32});
  const auto inputs = Make(tensors, 16, Tier::kExact);
  double largest = 0;
  for (const double x : ReadAll(*inputs, "x", 3, 500)) {
    EXPECT_EQ(Round(DType::kBF16, x), x);
    largest = std::max(largest, std::abs(x));
  }
  EXPECT_LE(largest, 255);
  EXPECT_GT(largest, 200);
}

TEST(GeneratedInputs, SaysWhenNothingIsExact) {
  const Tensors tensors = {
      Input("x", DType::kE5M2, {500}, PerRank()).Terms(ReduceOp::kAvg, 11)};
  const auto inputs = GeneratedInputs::Create(tensors, 11, Tier::kExact, 1);
  EXPECT_EQ(inputs.status().code(), StatusCode::kUnsupported);
}

TEST(GeneratedInputs, GivesWholeTensorsInTheirType) {
  const Tensors tensors = {Input("w", DType::kBF16, {6, 5}, Shard(0))};
  const auto inputs = Make(tensors, 3, Tier::kBounded);
  const ConstTensorView w = inputs->Global("w");
  EXPECT_EQ(w.shape, (Shape{6, 5}));
  std::vector<double> got(30);
  ToDouble(w.dtype, w.data, 30, got.data());
  EXPECT_EQ(got, inputs->All("w"));
  EXPECT_EQ(inputs->Global("w").data, w.data);
}

TEST(WithoutRank, TakesOutWhatARankHolds) {
  const Tensors tensors = {Input("own", DType::kF32, {9}, PerRank()),
                           Input("cut", DType::kF32, {6, 4}, Shard(1)),
                           Input("same", DType::kF32, {9}, Replicated())};
  const auto inputs = Make(tensors, 2, Tier::kExact);
  const WithoutRank dropped(*inputs, tensors, 1, 2);
  EXPECT_EQ(ReadAll(dropped, "own", 0, 9), ReadAll(*inputs, "own", 0, 9));
  EXPECT_EQ(ReadAll(dropped, "own", 1, 9), std::vector<double>(9, 0.0));
  EXPECT_EQ(dropped.All("same"), inputs->All("same"));
  const std::vector<double> before = inputs->All("cut"),
                            after = dropped.All("cut");
  for (int64_t i = 0; i < 24; ++i) {
    EXPECT_EQ(after[i], i % 4 < 2 ? before[i] : 0) << i;
  }
  // A part of it, from the middle of a row.
  std::vector<double> part(5);
  dropped.Read("cut", 0, 3, part);
  EXPECT_EQ(part, std::vector<double>(after.begin() + 3, after.begin() + 8));
  double last = -1;
  ToDouble(DType::kF32, dropped.Global("cut").as<float>() + 23, 1, &last);
  EXPECT_EQ(last, 0);
}

// Inputs with one mistake each.
class Wrong final : public Inputs {
 public:
  using Value = std::function<double(int rank, int64_t i)>;
  explicit Wrong(Value value) : value_(std::move(value)) {}
  void Read(std::string_view /*tensor*/, int rank, int64_t begin,
            std::span<double> out) const override {
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] = value_(rank, begin + static_cast<int64_t>(i));
    }
  }
  std::vector<double> All(std::string_view) const override { return {}; }
  ConstTensorView Global(std::string_view) const override { return {}; }

 private:
  Value value_;
};

Status Differ(const Wrong::Value& value) {
  const Tensors tensors = {Input("x", DType::kF32, {1000}, PerRank())};
  return CheckInputsDiffer(Wrong(value), tensors, 3);
}

TEST(CheckInputs, FindsRanksThatHoldTheSame) {
  const auto hash = [](int64_t i) {
    return static_cast<double>(RandomBits({.seed = 1}, i) % 1000);
  };
  EXPECT_TRUE(
      Differ([&](int rank, int64_t i) { return hash(i + 1000 * rank); }).ok());
  const Status s = Differ([&](int, int64_t i) { return hash(i); });
  EXPECT_NE(s.message().find("the same on ranks 0 and 1"),
            std::string_view::npos)
      << s.ToString();
}

TEST(CheckInputs, FindsConstantsAndPeriods) {
  EXPECT_NE(Differ([](int rank, int64_t) { return 1.0 + rank; })
                .message()
                .find("every 1 elements"),
            std::string_view::npos);
  EXPECT_NE(Differ([](int rank, int64_t i) { return rank + 1.0 * (i % 64); })
                .message()
                .find("every 64 elements"),
            std::string_view::npos);
}

TEST(CheckInputs, PassesWhatTheGeneratorMakes) {
  for (const Tier tier : {Tier::kExact, Tier::kBounded}) {
    for (const DType dtype : kAllDTypes) {
      // The runner has no bounded tier for integers.
      if (tier == Tier::kBounded && IsInteger(dtype)) continue;
      for (const int64_t count : {0, 1, 7, 30, 1000}) {
        for (const ReduceOp op : kAllReduceOps) {
          const Tensors tensors = {
              Input("x", dtype, {count}, PerRank()).Terms(op, 8)};
          auto inputs = GeneratedInputs::Create(tensors, 8, tier, 1);
          if (!inputs.ok()) continue;
          const Status s = CheckInputsDiffer(**inputs, tensors, 8);
          EXPECT_TRUE(s.ok()) << Name(dtype) << " " << Name(op) << " " << count
                              << " " << Name(tier) << ": " << s.ToString();
        }
      }
    }
  }
}

}  // namespace
}  // namespace shardproof
