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

// A standard normal number (Box and Muller).
double Normal(const StreamKey& key, uint64_t index) {
  const uint64_t bits = RandomBits(key, index);
  const double radius =
      (static_cast<double>(bits >> 32) + 0.5) * 0x1p-32;  // In (0, 1).
  const double turn = static_cast<double>(bits & 0xffffffffu) * 0x1p-32;
  return std::sqrt(-2 * std::log(radius)) *
         std::cos(2 * std::numbers::pi * turn);
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
    const double d = probed[i].value - exact[i].value;
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

double ProbedRounding(double x, double u) {
  if (!std::isfinite(x)) return 0;
  int exponent;
  const double mantissa = std::frexp(x, &exponent);
  // Numbers that are rounded to the same number.
  const double place = u > 0 ? std::rint(mantissa / u) : mantissa;
  return Normal({.seed = current,
                 .tensor = std::bit_cast<uint64_t>(u),
                 .rank = static_cast<uint64_t>(exponent)},
                std::bit_cast<uint64_t>(place));
}

double ProbedFunction(double x, double u, uint64_t function) {
  const StreamKey key = {
      .seed = current, .tensor = TensorId("wave"), .rank = function};
  // 2^-6 to 2^6.
  const double frequency =
      std::exp2(static_cast<double>(RandomBits(key, 0) % 13) - 6);
  return ProbedRounding(x, u) + Normal(key, 1) * std::cos(frequency * x) +
         Normal(key, 2) * std::sin(frequency * x);
}

}  // namespace internal
}  // namespace shardproof
