// Against a model written down once more as plain loops: its finite differences
// in double, and its training in float with gradients from a tape.
#include "reference/trained_language_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "reference/optimizer.h"
#include "reference/probe.h"
#include "reference/random.h"
#include "reference/trained_language_model_testing.h"

namespace shardproof {
namespace {

using testing::Batch;
using testing::Doubles;
using testing::Fault;
using testing::Plain;
using testing::Taped;

enum class Kind { kGpt, kLlama, kMixtral };

constexpr int64_t kSequences = 4, kLength = 3;

LanguageModelConfig Config(Kind kind, bool tied,
                           OptimizerRule rule = OptimizerRule::kSgd) {
  const bool gpt = kind == Kind::kGpt;
  LanguageModelConfig c{
      .vocabulary = 7,
      .length = kLength,
      .hidden = 4,
      .heads = 2,
      .kv_heads = gpt ? 2 : 1,
      .head_dim = 2,
      .intermediate = 5,
      .norm = gpt ? NormKind::kLayerNorm : NormKind::kRmsNorm,
      .activation = gpt ? Activation::kGeluTanh : Activation::kSwiGlu,
      .rope_theta = gpt ? 0. : 10000.,
      .bias = gpt,
      .tied = tied,
      .learned_positions = gpt,
      .experts = kind == Kind::kMixtral ? 3 : 0,
      .top_k = kind == Kind::kMixtral ? 2 : 0};
  c.optimizer = {.rule = rule,
                 .learning_rate = 0.25,
                 .beta1 = 0.75,
                 .beta2 = 0.9375,
                 .epsilon = 0.125,
                 .max_norm = 0.5};
  return c;
}

// Representable in float.
Doubles Initial(const LanguageModelConfig& c) {
  Doubles w(static_cast<size_t>(LanguageModelSize(c)));
  FillDouble(Uniform(DType::kF32, 0.75), {7, TensorId("w")}, 0,
             LanguageModelSize(c), w.data());
  return w;
}

// Tokens of a step; some targets are not to be counted.
Batch Tokens(const LanguageModelConfig& c, uint64_t step) {
  Batch batch;
  for (uint64_t i = 0; i < kSequences * kLength; ++i) {
    const auto draw = [&](const char* name) {
      return static_cast<int64_t>(
          RandomBits({.seed = step, .tensor = TensorId(name)}, i) %
          static_cast<uint64_t>(c.vocabulary));
    };
    batch.ids.push_back(draw("ids"));
    batch.targets.push_back(i % 4 == 3 ? kIgnoredTarget : draw("targets"));
  }
  return batch;
}
constexpr double kCounted = 0.75 * kSequences * kLength;

Doubles Values(const std::vector<Bounded>& values) {
  Doubles out;
  for (const Bounded& v : values) out.push_back(v.value);
  return out;
}

TEST(TrainedLanguageModelReference, DescendsFiniteDifferences) {
  for (const Kind kind : {Kind::kGpt, Kind::kLlama, Kind::kMixtral}) {
    for (const bool tied : {false, true}) {
      LanguageModelConfig c = Config(kind, tied);
      c.dtype = DType::kF64;
      const Doubles initial = Initial(c);
      const Batch batch = Tokens(c, 0);
      TrainedLanguageModelReference r(c, initial);
      const Status status = r.Step(batch.ids, batch.targets);
      ASSERT_TRUE(status.ok()) << status.ToString();
      const auto loss = [&](const Doubles& w) {
        double sum = 0;
        for (const double l : Plain<double>(c, w, Fault::kNone).Losses(batch)) {
          sum += l;
        }
        return sum;
      };
      EXPECT_NEAR(r.loss().value, loss(initial) / kCounted, 1e-14);
      ASSERT_EQ(r.gradient().size(), initial.size());
      for (size_t i = 0; i < initial.size(); ++i) {
        constexpr double kStep = 1e-5;
        Doubles up = initial, down = initial;
        up[i] += kStep;
        down[i] -= kStep;
        const double gradient = (loss(up) - loss(down)) / (2 * kStep);
        // The differences' own error: a third derivative and roundings.
        ASSERT_NEAR(r.gradient()[i].value, gradient,
                    1e-7 * std::max(1.0, std::abs(gradient)))
            << i << " of kind " << static_cast<int>(kind) << ", tied " << tied;
      }
    }
  }
}

// What a training leaves: parameters, the last gradient, its norm, all losses.
std::vector<Bounded> Reference(const LanguageModelConfig& c, uint64_t steps) {
  TrainedLanguageModelReference r(c, Initial(c));
  std::vector<Bounded> losses;
  for (uint64_t s = 0; s < steps; ++s) {
    const Batch batch = Tokens(c, s);
    const Status status = r.Step(batch.ids, batch.targets);
    EXPECT_TRUE(status.ok()) << status.ToString();
    losses.push_back(r.loss());
  }
  std::vector<Bounded> all = r.parameters();
  all.insert(all.end(), r.gradient().begin(), r.gradient().end());
  all.push_back(r.norm());
  all.insert(all.end(), losses.begin(), losses.end());
  return all;
}

// The same in float.
Doubles InFloat(const LanguageModelConfig& c, uint64_t steps, Fault fault) {
  const Doubles initial = Initial(c);
  std::vector<float> w(initial.begin(), initial.end()), m(w.size()),
      v(w.size()), g(w.size());
  Doubles losses;
  double norm = 0;
  const OptimizerSettings& o = c.optimizer;
  for (uint64_t step = 1; step <= steps; ++step) {
    Taped::Tape().clear();
    const Plain<Taped> model(c, Doubles(w.begin(), w.end()), fault);
    const std::vector<Taped> of_tokens = model.Losses(Tokens(c, step - 1));
    Taped::Backward(of_tokens);
    double loss = 0, squares = 0;
    for (const Taped& l : of_tokens) loss += l.value();
    losses.push_back(static_cast<float>(loss / kCounted));
    for (size_t i = 0; i < w.size(); ++i) {
      g[i] = model.parameters()[i].node().gradient;
      squares += static_cast<double>(g[i]) * g[i];
    }
    norm = std::sqrt(squares) / kCounted;
    const auto factor = static_cast<float>(
        std::min(1.0, *o.max_norm / (norm + o.clip_epsilon)) / kCounted);
    const auto rate = static_cast<float>(o.learning_rate);
    const auto beta1 = static_cast<float>(o.beta1),
               beta2 = static_cast<float>(o.beta2),
               epsilon = static_cast<float>(o.epsilon);
    const double t = static_cast<double>(step);
    const auto rate1 =
        static_cast<float>(o.learning_rate / (1 - std::pow(o.beta1, t)));
    const auto root2 =
        static_cast<float>(1 / std::sqrt(1 - std::pow(o.beta2, t)));
    for (size_t i = 0; i < w.size(); ++i) {
      const float scaled = factor * g[i];
      if (o.rule == OptimizerRule::kSgd) {
        w[i] -= rate * scaled;
        continue;
      }
      m[i] = beta1 * m[i] + (1 - beta1) * scaled;
      v[i] = beta2 * v[i] + (1 - beta2) * (scaled * scaled);
      w[i] -= rate1 * (m[i] / (root2 * std::sqrt(v[i]) + epsilon));
    }
  }
  Doubles all(w.begin(), w.end());
  all.insert(all.end(), g.begin(), g.end());
  all.push_back(norm);
  all.insert(all.end(), losses.begin(), losses.end());
  return all;
}

struct Instance {
  Kind kind;
  bool tied;
  OptimizerRule rule;
};
void PrintTo(const Instance& i, std::ostream* out) {
  *out << "kind " << static_cast<int>(i.kind) << ", tied " << i.tied << ", "
       << Name(i.rule);
}

class TrainedInFloat : public ::testing::TestWithParam<Instance> {};

// What probes say of 5 steps holds for the same in float, and refuses positions
// left out, a scale that is wrong by a thousandth, and a use of the table that
// is lost.
TEST_P(TrainedInFloat, IsWithinProbedBoundsUnlessWrong) {
  const LanguageModelConfig c =
      Config(GetParam().kind, GetParam().tied, GetParam().rule);
  constexpr uint64_t kSteps = 5;
  std::vector<Bounded> expected = Reference(c, kSteps);
  const Doubles right = InFloat(c, kSteps, Fault::kNone);
  ASSERT_EQ(right.size(), expected.size());
  Deviations deviations(expected.size());
  for (uint64_t k = 0; k < 16; ++k) {
    const Probe probe(k);
    deviations.Add(expected, Reference(c, kSteps));
  }
  const double lambda = Lambda(static_cast<double>(expected.size()));
  deviations.Tighten(lambda, expected);
  const auto beyond = [&](const Doubles& actual) {
    size_t count = 0;
    for (size_t i = 0; i < actual.size(); ++i) {
      const double e = std::abs(actual[i] - expected[i].value);
      if (!(e <= expected[i].Likely(lambda))) ++count;
    }
    return count;
  };
  EXPECT_EQ(beyond(right), 0U);
  const size_t half = expected.size() / 2;
  EXPECT_GT(beyond(InFloat(c, kSteps, Fault::kScale)), half);
  if (c.learned_positions) {
    EXPECT_GT(beyond(InFloat(c, kSteps, Fault::kNoPositions)), half);
  }
  if (c.tied) {
    EXPECT_GT(beyond(InFloat(c, kSteps, Fault::kLostUse)), half);
  }

  // Every rounding is as large in a probe as it may be: in earnest they are
  // smaller, and those of a sum of terms of either sign far smaller, but not by
  // more than the terms are many.
  double errors = 0, variances = 0;
  for (size_t i = 0; i < right.size(); ++i) {
    const double e = right[i] - expected[i].value;
    const double d = expected[i].Likely(lambda) / ProbedLambda(lambda, 16);
    EXPECT_GT(d, 0) << i;
    errors += e * e;
    variances += d * d;
  }
  EXPECT_LT(errors, variances);
  EXPECT_GT(errors * 16 * 16, variances);
}

INSTANTIATE_TEST_SUITE_P(
    All, TrainedInFloat,
    ::testing::Values(Instance{Kind::kGpt, true, OptimizerRule::kSgd},
                      Instance{Kind::kGpt, false, OptimizerRule::kAdamW},
                      Instance{Kind::kLlama, false, OptimizerRule::kSgd},
                      Instance{Kind::kLlama, true, OptimizerRule::kAdamW},
                      Instance{Kind::kMixtral, false, OptimizerRule::kAdamW},
                      Instance{Kind::kMixtral, true, OptimizerRule::kSgd}));

// In f64 a probe's own doubles are as coarse as what it rounds: here the plain
// model in double is what is under test.
TEST(TrainedLanguageModelReference, BoundsDoubles) {
  LanguageModelConfig c = Config(Kind::kGpt, true);
  c.dtype = DType::kF64;
  std::vector<Bounded> expected;
  TrainedLanguageModelReference exact(c, Initial(c));
  const Batch batch = Tokens(c, 0);
  ASSERT_TRUE(exact.Step(batch.ids, batch.targets).ok());
  expected.push_back(exact.loss());
  Deviations deviations(1);
  for (uint64_t k = 0; k < 16; ++k) {
    const Probe probe(k);
    TrainedLanguageModelReference r(c, Initial(c));
    ASSERT_TRUE(r.Step(batch.ids, batch.targets).ok());
    deviations.Add(expected, std::vector<Bounded>{r.loss()});
  }
  deviations.Tighten(7, expected);
  double loss = 0;
  for (const double l :
       Plain<double>(c, Initial(c), Fault::kNone).Losses(batch)) {
    loss += l;
  }
  EXPECT_LE(std::abs(loss / kCounted - expected[0].value),
            expected[0].Likely(7));
  EXPECT_LT(expected[0].Likely(7), 1e-13);
  EXPECT_GT(expected[0].Likely(7), 0);
}

TEST(TrainedLanguageModelReference, StepsAsTheOptimizerDoes) {
  for (const OptimizerRule rule :
       {OptimizerRule::kSgd, OptimizerRule::kAdamW}) {
    const LanguageModelConfig c = Config(Kind::kLlama, false, rule);
    TrainedLanguageModelReference r(c, Initial(c));
    OptimizerReference optimizer(c.optimizer, c.dtype, Initial(c));
    for (uint64_t s = 0; s < 3; ++s) {
      const Batch batch = Tokens(c, s);
      ASSERT_TRUE(r.Step(batch.ids, batch.targets).ok());
      std::vector<Bounded> gradient;
      for (const Bounded& g : r.gradient()) gradient.push_back({g.value});
      optimizer.Step(gradient, 1 / kCounted);
      EXPECT_EQ(Values(r.parameters()), Values(optimizer.parameters()));
      EXPECT_EQ(r.norm().value, optimizer.norm().value);
      EXPECT_GT(r.norm().value, *c.optimizer.max_norm);  // It is clipped.
    }
  }
}

TEST(TrainedLanguageModelReference, ClaimsNothingUnprobed) {
  const LanguageModelConfig c = Config(Kind::kGpt, true);
  for (const Bounded& v : Reference(c, 1)) {
    EXPECT_EQ(v.worst, HUGE_VAL);
    EXPECT_EQ(v.Likely(7), HUGE_VAL);
  }
}

TEST(TrainedLanguageModelReference, NamesItsParameters) {
  const auto names = [](Kind kind, bool tied) {
    LanguageModelConfig c = Config(kind, tied);
    c.blocks = 1;
    std::string all;
    int64_t end = 0;
    for (const LanguageModelParameter& p : LanguageModelParameters(c)) {
      EXPECT_EQ(p.begin, end);
      end = p.end();
      all += p.name + p.shape.ToString() + " ";
    }
    EXPECT_EQ(end, LanguageModelSize(c));
    return all;
  };
  EXPECT_EQ(names(Kind::kGpt, true),
            "table[7, 4] positions[3, 4] block0_norm1_w[4] block0_norm1_b[4] "
            "block0_w_qkv[12, 4] block0_b_qkv[12] block0_w_out[4, 4] "
            "block0_b_out[4] block0_norm2_w[4] block0_norm2_b[4] "
            "block0_w_up[5, 4] block0_b_up[5] block0_w_down[4, 5] "
            "block0_b_down[4] norm_w[4] norm_b[4] ");
  EXPECT_EQ(names(Kind::kLlama, false),
            "table[7, 4] block0_norm1_w[4] block0_w_qkv[8, 4] "
            "block0_w_out[4, 4] block0_norm2_w[4] block0_w_gate[5, 4] "
            "block0_w_up[5, 4] block0_w_down[4, 5] norm_w[4] head[7, 4] ");
  EXPECT_EQ(names(Kind::kMixtral, true),
            "table[7, 4] block0_norm1_w[4] block0_w_qkv[8, 4] "
            "block0_w_out[4, 4] block0_norm2_w[4] block0_router[3, 4] "
            "block0_w_gate[3, 5, 4] block0_w_up[3, 5, 4] "
            "block0_w_down[3, 4, 5] norm_w[4] ");
}

TEST(TrainedLanguageModelReference, RefusesWhatIsNoBatch) {
  const LanguageModelConfig c = Config(Kind::kLlama, false);
  TrainedLanguageModelReference r(c, Initial(c));
  const Batch good = Tokens(c, 0);
  const auto refused = [&](const Batch& b) {
    return !r.Step(b.ids, b.targets).ok();
  };
  for (const int64_t id : {int64_t{-1}, c.vocabulary}) {
    Batch bad = good;
    bad.ids[5] = id;
    EXPECT_TRUE(refused(bad));
    bad = good;
    bad.targets[5] = id;
    EXPECT_TRUE(refused(bad));
  }
  Batch bad = good;
  bad.ids.push_back(0);
  EXPECT_TRUE(refused(bad));
  bad.targets.push_back(0);
  EXPECT_TRUE(refused(bad));
  EXPECT_FALSE(refused(good));
}

// No target that counts: no loss, no gradient, nothing moves.
TEST(TrainedLanguageModelReference, NothingToLearn) {
  const LanguageModelConfig c = Config(Kind::kLlama, true);
  TrainedLanguageModelReference r(c, Initial(c));
  const Batch batch = Tokens(c, 0);
  const std::vector<int64_t> none(batch.ids.size(), kIgnoredTarget);
  ASSERT_TRUE(r.Step(batch.ids, none).ok());
  EXPECT_EQ(r.loss().value, 0);
  EXPECT_EQ(r.norm().value, 0);
  EXPECT_EQ(Values(r.parameters()), Initial(c));
}

TEST(RoutingMargin, TellsHowSureChoicesAre) {
  LanguageModelConfig c = Config(Kind::kMixtral, false);
  const Batch batch = Tokens(c, 0);
  const auto evaluated = [&](const Doubles& initial) {
    TrainedLanguageModelReference r(c, initial);
    const Status status = r.Step(batch.ids, batch.targets);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return r;
  };
  const TrainedLanguageModelReference exact = evaluated(Initial(c));
  std::vector<TrainedLanguageModelReference> probed;
  constexpr int kProbes = 16;
  for (uint64_t k = 0; k < kProbes; ++k) {
    const Probe probe(k);
    probed.push_back(evaluated(Initial(c)));
  }
  ASSERT_EQ(exact.gaps().size(), batch.ids.size() * 2);
  EXPECT_EQ(exact.choices().size(), 2 * exact.gaps().size());
  const double lambda = Lambda(static_cast<double>(exact.gaps().size()));
  const double margin = RoutingMargin(exact, probed);
  EXPECT_GT(margin, ProbedLambda(lambda, kProbes));
  // Gaps are below 1, and logits are rounded.
  EXPECT_LT(margin, 0x1p24);

  // Another router: the last of its three experts is what the first was.
  Doubles other = Initial(c);
  for (const LanguageModelParameter& p : LanguageModelParameters(c)) {
    if (p.name != "block1_router") continue;
    std::rotate(other.begin() + p.begin, other.begin() + p.begin + c.hidden,
                other.begin() + p.end());
  }
  probed[2] = evaluated(other);
  EXPECT_EQ(RoutingMargin(exact, probed), 0);
  EXPECT_EQ(RoutingMargin(exact, {}), 0);

  // What is not clear enough is refused, and nothing is learned.
  const double least =
      *std::min_element(exact.gaps().begin(), exact.gaps().end());
  c.least_gap = 1.01 * least / UnitRoundoff(c.dtype);
  TrainedLanguageModelReference refusing(c, Initial(c));
  EXPECT_FALSE(refusing.Step(batch.ids, batch.targets).ok());
  EXPECT_EQ(Values(refusing.parameters()), Initial(c));
  c.least_gap = 0.99 * least / UnitRoundoff(c.dtype);
  evaluated(Initial(c));
}

}  // namespace
}  // namespace shardproof
