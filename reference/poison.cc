// Poison, guard bands and the check of a comparison's power.

#include <cmath>
#include <cstring>

#include "reference/compare.h"

namespace shardproof {
namespace {

// More elements than any case compares, for likely bounds that are no tighter
// than those that the comparison will have.
constexpr int64_t kLargePopulation = 1000000000000;

// Quiet NaNs with a payload that arithmetic does not produce; the 8-bit types
// have no payload to choose.
template <typename T>
T PoisonOf() {
  T value;
  if constexpr (std::is_same_v<T, double>) {
    value = std::bit_cast<double>(uint64_t{0x7ffdeaddeaddeadd});
  } else if constexpr (std::is_same_v<T, float>) {
    value = std::bit_cast<float>(uint32_t{0x7fddeadd});
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    value = T::FromBits(0x7fdd);
  } else if constexpr (std::is_same_v<T, Float16>) {
    value = T::FromBits(0x7edd);
  } else if constexpr (std::is_integral_v<T>) {
    std::memset(&value, 0xa5, sizeof(T));
  } else {
    value = T::FromBits(0x7f);
  }
  return value;
}

uint8_t GuardByte(int64_t i) {
  return static_cast<uint8_t>(0xa5 ^ (i * 0x9d) ^ (i >> 8));
}

}  // namespace

void Poison(DType dtype, void* data, int64_t n) {
  Visit(dtype, [&]<typename T>(TypeTag<T>) {
    const T poison = PoisonOf<T>();
    // By bytes: a signalling or payload-carrying NaN must not pass through
    // arithmetic.
    for (int64_t i = 0; i < n; ++i) {
      std::memcpy(static_cast<T*>(data) + i, &poison, sizeof(T));
    }
  });
}

bool IsPoison(DType dtype, const void* data, int64_t i) {
  return Visit(dtype, [&]<typename T>(TypeTag<T>) {
    const T poison = PoisonOf<T>();
    // The bytes, not the values: a NaN equals nothing.
    const void* bytes = &poison;
    const void* element = static_cast<const T*>(data) + i;
    return std::memcmp(element, bytes, sizeof(T)) == 0;
  });
}

void FillGuard(void* data, int64_t bytes) {
  auto* p = static_cast<uint8_t*>(data);
  for (int64_t i = 0; i < bytes; ++i) p[i] = GuardByte(i);
}

Status CheckGuard(const void* data, int64_t bytes, std::string_view what) {
  const auto* p = static_cast<const uint8_t*>(data);
  for (int64_t i = 0; i < bytes; ++i) {
    if (p[i] != GuardByte(i)) {
      return DataLoss("{} was overwritten at byte {} of {}", what, i, bytes);
    }
  }
  return OkStatus();
}

void PowerCheck::Add(std::string_view fault, std::span<const Bounded> expected,
                     std::span<const double> faulty,
                     std::optional<double> probed_gain) {
  Fault* entry = nullptr;
  for (Fault& f : faults_) {
    if (f.name == fault) entry = &f;
  }
  if (entry == nullptr) {
    faults_.push_back({.name = std::string(fault)});
    entry = &faults_.back();
  }
  const auto n = static_cast<int64_t>(expected.size());
  std::vector<std::byte> stored(static_cast<size_t>(n * SizeOf(dtype_)));
  FromDouble(dtype_, faulty.data(), n, stored.data());
  const Comparison found = Compare({.dtype = dtype_,
                                    .shape = Shape{n},
                                    .exact = exact_,
                                    .population = kLargePopulation,
                                    .probed_gain = probed_gain,
                                    .max_mismatches = 0},
                                   stored.data(), expected);
  entry->elements += n;
  entry->seen += found.incorrect;
  entry->found = entry->found || found.outcome == Outcome::kIncorrect;
}

double PowerCheck::Power() const {
  double power = 1;
  for (const Fault& f : faults_) {
    if (f.elements == 0) continue;
    power = std::min(
        power, static_cast<double>(f.seen) / static_cast<double>(f.elements));
  }
  return power;
}

Status PowerCheck::Check() const {
  for (const Fault& f : faults_) {
    if (f.elements > 0 && !f.found) {
      return InvalidArgument(
          "the tolerance is blind: the fault '{}' would pass in all of {} "
          "elements",
          f.name, f.elements);
    }
  }
  return OkStatus();
}

}  // namespace shardproof
