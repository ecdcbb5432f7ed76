#include "reference/probe.h"

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "reference/random.h"

namespace shardproof {
namespace {

thread_local bool active = false;
thread_local uint64_t current = 0;

// The ziggurat: kLayers pieces of equal area under exp(-x^2 / 2), x > 0, the
// lowest of them with all that is right of kTail, which is such that the topmost
// ends at 1 (Doornik, An Improved Ziggurat Method, 2005, table 1).
constexpr int kLayers = 256;
constexpr double kTail = 3.6541528853610088;

struct Ziggurat {
  double x[kLayers + 1];  // Falling; x[0] as if the lowest were a rectangle.
  double f[kLayers + 1];

  Ziggurat() {
    const auto density = [](double v) { return std::exp(-0.5 * v * v); };
    const double area =
        kTail * density(kTail) + std::sqrt(std::numbers::pi / 2) *
                                     std::erfc(kTail / std::numbers::sqrt2);
    x[0] = area / density(kTail);
    x[1] = kTail;
    for (int i = 2; i < kLayers; ++i) {
      x[i] = std::sqrt(-2 * std::log(area / x[i - 1] + density(x[i - 1])));
    }
    x[kLayers] = 0;
    for (int i = 0; i <= kLayers; ++i) f[i] = density(x[i]);
  }
};

// In (0, 1).
double Fraction(uint64_t bits) {
  return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
}

// Bits for the numbers that are rounded to unit roundoff u in the current
// probe: those of random.h would hash the key once for each of them.
class Roundings {
 public:
  uint64_t Bits(double u, uint64_t number) {
    if (seed_ != current || u_ != u) {
      const StreamKey key = {.seed = current,
                             .tensor = std::bit_cast<uint64_t>(u)};
      before_ = RandomBits(key, 0);
      between_ = RandomBits(key, 1);
      seed_ = current;
      u_ = u;
    }
    // The two halves of the mix of random.h.
    uint64_t z = number * 0x9e3779b97f4a7c15u + before_;
    z = (z ^ (z >> 32)) * 0xd6e8feb86659fd93u;
    z = (z ^ (z >> 32)) ^ between_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  uint64_t seed_ = 0;
  double u_ = -1;  // Of none.
  uint64_t before_ = 0, between_ = 0;
};

// The random wave by which a function errs in a probe.
struct Wave {
  uint64_t seed = 0, function = 0;
  bool drawn = false;
  double frequency = 0, cosine = 0, sine = 0;

  void Draw(uint64_t of) {
    if (drawn && seed == current && function == of) return;
    const StreamKey key = {
        .seed = current, .tensor = TensorId("wave"), .rank = of};
    // 2^-6 to 2^6.
    frequency = std::exp2(static_cast<double>(RandomBits(key, 0) % 13) - 6);
    cosine = internal::StandardNormal(RandomBits(key, 1));
    sine = internal::StandardNormal(RandomBits(key, 2));
    seed = current;
    function = of;
    drawn = true;
  }
};

// A computation alternates between few roundoffs and few functions. The powers
// of two that are roundoffs of types all differ modulo 11.
constexpr size_t kSlots = 11;
thread_local Roundings roundings[kSlots];
thread_local Wave waves[kSlots];

// The number that x is rounded to. Neither zeros nor subnormal numbers are.
double RoundedTo(double x, double u) {
  const uint64_t power = std::bit_cast<uint64_t>(x) & 0x7ff0000000000000u;
  if (power == 0 || !(u > 0)) return x;
  // The mantissa of frexp, in [1/2, 1), is a multiple of u: x of this.
  const double place = 2 * u * std::bit_cast<double>(power);
  // Adding 1.5 * 2^52 rounds to an integer whatever is below 2^51.
  constexpr double kMagic = 0x1.8p52;
  if (u > 0x1p-50) return ((x / place + kMagic) - kMagic) * place;
  return std::rint(x / place) * place;
}

}  // namespace

Probe::Probe(uint64_t seed) : outer_active_(active), outer_seed_(current) {
  active = true;
  current = seed;
}

Probe::~Probe() {
  active = outer_active_;
  current = outer_seed_;
}

bool Probe::Active() { return active; }

std::optional<uint64_t> Probe::Current() {
  if (!active) return std::nullopt;
  return current;
}

double ProbedLambda(double lambda, int probes) {
  if (probes <= 0) return HUGE_VAL;
  const double k = probes;
  return std::sqrt(k * std::expm1(lambda * lambda / k));
}

void Deviations::Add(std::span<const Bounded> exact,
                     std::span<const Bounded> probed) {
  for (size_t i = 0; i < squares_.size(); ++i) {
    // Results are doubles, whose own rounding hides as much of a deviation: all
    // of it, often enough, where f64 is under test.
    const double d = std::abs(probed[i].value - exact[i].value) +
                     kSlack * std::abs(exact[i].value);
    squares_[i] += d * d;
  }
  ++probes_;
}

void Deviations::Tighten(double lambda, std::span<Bounded> exact) const {
  const double t = ProbedLambda(lambda, probes_);
  for (size_t i = 0; i < squares_.size(); ++i) {
    const double bound = t * std::sqrt(squares_[i] / probes_);
    // Written so that a probe that overflows changes nothing.
    if (!(bound < exact[i].Likely(lambda))) continue;
    exact[i].likely = bound;
    exact[i].likely2 = 0;
  }
}

namespace internal {

double StandardNormal(uint64_t bits) {
  static const Ziggurat z;
  // Below: 8 bits for the layer, 1 for the sign, 53 for the place within.
  const uint64_t first = bits;
  const double sign = (bits & 256) != 0 ? -1 : 1;
  for (uint64_t more = 0;; bits = RandomBits({.seed = first}, more++)) {
    const uint64_t layer = bits & 255;
    const double x = Fraction(bits) * z.x[layer];
    if (x < z.x[layer + 1]) return sign * x;
    if (layer == 0) {
      // Beyond kTail (Marsaglia, 1964): exponential numbers, of which some go.
      while (true) {
        const double right =
            -std::log(Fraction(RandomBits({.seed = first}, more++))) / kTail;
        const double above =
            -std::log(Fraction(RandomBits({.seed = first}, more++)));
        if (2 * above >= right * right) return sign * (kTail + right);
      }
    }
    const double height = Fraction(RandomBits({.seed = first}, more++));
    if (z.f[layer] + height * (z.f[layer + 1] - z.f[layer]) <
        std::exp(-0.5 * x * x)) {
      return sign * x;
    }
  }
}

double ProbedRounding(double x, double u) {
  if (!std::isfinite(x)) return 0;
  const auto slot = static_cast<size_t>(std::bit_cast<uint64_t>(u) >> 52);
  return StandardNormal(roundings[slot % kSlots].Bits(
      u, std::bit_cast<uint64_t>(RoundedTo(x, u))));
}

double ProbedFunction(double x, double u, uint64_t function) {
  Wave& wave = waves[function % kSlots];
  wave.Draw(function);
  const double turn = wave.frequency * x;
  return ProbedRounding(x, u) + wave.cosine * std::cos(turn) +
         wave.sine * std::sin(turn);
}

}  // namespace internal
}  // namespace shardproof
