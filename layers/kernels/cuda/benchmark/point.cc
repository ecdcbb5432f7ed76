#include "layers/kernels/cuda/benchmark/point.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "reference/random.h"

namespace shardproof::cuda {
namespace {

// Random elements that are drawn; more are these again. A prime, so that no two rows are the same.
constexpr int64_t kDrawn = 1048573;

template <class Draw>
void Repeated(int64_t count, int64_t element_bytes, void* to,
              const Draw& draw) {
  auto* const bytes = static_cast<std::byte*>(to);
  int64_t done = std::min(count, kDrawn);
  draw(done, to);
  while (done < count) {
    const int64_t more = std::min(done, count - done);
    // Whole periods, so that what follows them is again the beginning.
    const int64_t periods = std::max<int64_t>(more / kDrawn, 1) * kDrawn;
    const int64_t now = std::min(more, periods);
    std::memcpy(bytes + done * element_bytes, bytes,
                static_cast<size_t>(now * element_bytes));
    done += now;
  }
}

StreamKey KeyOf(const std::string& name) {
  return {.seed = 1, .tensor = TensorId(name)};
}

std::vector<MakePoints>& Registered() {
  static std::vector<MakePoints> registered;
  return registered;
}

}  // namespace

Operand Random(const std::string& name, DType dtype, int64_t count,
               double scale) {
  return {.name = name, .dtype = dtype, .count = count, .fill = [=](void* to) {
            Repeated(count, SizeOf(dtype), to, [&](int64_t n, void* at) {
              Fill(Uniform(dtype, scale), KeyOf(name), 0, n, at);
            });
          }};
}

Operand RandomBetween(const std::string& name, DType dtype, int64_t count,
                      double low, double high) {
  return {.name = name, .dtype = dtype, .count = count, .fill = [=](void* to) {
            Repeated(count, SizeOf(dtype), to, [&](int64_t n, void* at) {
              std::vector<double> values(static_cast<size_t>(n));
              FillDouble(Uniform(DType::kF32, 0.5), KeyOf(name), 0, n,
                         values.data());
              for (double& v : values) v = low + (high - low) * (v + 0.5);
              FromDouble(dtype, values.data(), n, at);
            });
          }};
}

Operand Zeros(const std::string& name, DType dtype, int64_t count) {
  return {.name = name, .dtype = dtype, .count = count, .fill = [=](void* to) {
            std::memset(to, 0, static_cast<size_t>(count * SizeOf(dtype)));
          }};
}

Operand RandomIndices(const std::string& name, int64_t count, int64_t below) {
  return {.name = name,
          .dtype = DType::kI64,
          .count = count,
          .fill = [=](void* to) {
            auto* const out = static_cast<int64_t*>(to);
            for (int64_t i = 0; i < count; ++i) {
              out[i] = static_cast<int64_t>(
                  RandomBits(KeyOf(name), static_cast<uint64_t>(i)) %
                  static_cast<uint64_t>(below));
            }
          }};
}

Operand Output(const std::string& name, DType dtype, int64_t count,
               double roundings, double magnitude) {
  // Each of the two rounds once to the type, and may do so to different sides.
  return {.name = name,
          .dtype = dtype,
          .count = count,
          .checked = true,
          .relative = 2 * 2 * UnitRoundoff(dtype),
          .absolute = roundings * UnitRoundoff(DType::kF32) * magnitude};
}

Operand ExactOutput(const std::string& name, DType dtype, int64_t count) {
  return {.name = name, .dtype = dtype, .count = count, .checked = true};
}

Operand InPlace(Operand input, const Operand& result) {
  input.checked = true;
  input.relative = result.relative;
  input.absolute = result.absolute;
  input.ranges = result.ranges;
  return input;
}

KernelPoints::KernelPoints(MakePoints make) { Registered().push_back(make); }

std::vector<KernelPoint> AllKernelPoints(const ModelShape& shape) {
  std::vector<KernelPoint> points;
  for (const MakePoints make : Registered()) make(shape, points);
  std::ranges::stable_sort(points, {}, &KernelPoint::name);
  return points;
}

std::pair<std::string, std::string> Param(const std::string& name,
                                          int64_t value) {
  return {name, std::to_string(value)};
}

}  // namespace shardproof::cuda
