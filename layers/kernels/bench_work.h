// For the benchmark of the kernels: operands, the comparison with a reference,
// and a kernel and a copy timed in turns.
//
//     auto x = std::make_shared<Array>(DType::kF32, Shape{512, 4096}, 2);
//     Measure(state, smoke, {.bytes = 2.0 * x->bytes(),
//                            .run = [=] { return Kernel(x->raw()); },
//                            .check = [=] { Expect("x", *x, 0, want); }});
//
// Errors end the process: a benchmark has nobody to tell but the reader.
#ifndef SHARDPROOF_LAYERS_KERNELS_BENCH_WORK_H_
#define SHARDPROOF_LAYERS_KERNELS_BENCH_WORK_H_

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "collectives/host_memory.h"
#include "collectives/kernels/copy.h"
#include "collectives/kernels/streaming.h"
#include "reference/bounded.h"
#include "reference/random.h"
#include "reference/tensor.h"

namespace shardproof {

[[noreturn]] inline void Die(const std::string& why) {
  fmt::print(stderr, "{}\n", why);
  std::abort();
}

inline Buffer Allocated(int64_t bytes) {
  auto buffer = AllocateHostMemory(static_cast<size_t>(bytes), Pages::kHuge);
  if (!buffer.ok()) Die(buffer.status().ToString());
  return *std::move(buffer);
}

// A tensor in large pages, as layers get theirs.
class Array {
 public:
  // Zeros, if scale is 0; else uniform in [-scale, scale).
  Array(DType dtype, const Shape& shape, double scale = 0)
      : dtype_(dtype),
        shape_(shape),
        buffer_(Allocated(shape.NumElements() * SizeOf(dtype))) {
    std::memset(raw(), 0, buffer_.bytes());
    if (scale == 0) return;
    static uint64_t tensor = 0;
    // What is drawn repeats after a number of elements that no shape divides.
    const int64_t n = shape.NumElements();
    const int64_t drawn = std::min<int64_t>(n, 1000003);
    Fill(Uniform(dtype, scale), {.seed = 7, .tensor = ++tensor}, 0, drawn,
         raw());
    for (int64_t i = drawn; i < n; i += drawn) {
      std::memcpy(at(i), raw(),
                  static_cast<size_t>(std::min(drawn, n - i) * SizeOf(dtype)));
    }
  }
  void* raw() const { return buffer_.data(); }
  void* at(int64_t i) const { return buffer_.data() + i * SizeOf(dtype_); }
  int64_t bytes() const { return shape_.NumElements() * SizeOf(dtype_); }
  // `count` rows from `first` on.
  ConstTensorView rows(int64_t first, int64_t count) const {
    return {dtype_, {count, shape_[1]}, at(first * shape_[1])};
  }
  ConstTensorView view() const { return {dtype_, shape_, raw()}; }
  std::vector<double> doubles(int64_t first, int64_t count) const {
    std::vector<double> out(static_cast<size_t>(count));
    ToDouble(dtype_, at(first), count, out.data());
    return out;
  }

 private:
  DType dtype_;
  Shape shape_;
  Buffer buffer_;
};

// Dies unless elements [first, ...) of `got` are inside the bounds of `want`.
inline void Expect(std::string_view what, const Array& got, int64_t first,
                   std::span<const Bounded> want) {
  const auto values = got.doubles(first, static_cast<int64_t>(want.size()));
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::abs(values[i] - want[i].value) <= want[i].worst) continue;
    Die(fmt::format("{}: element {} is {}, not {}", what,
                    first + static_cast<int64_t>(i), values[i], want[i].value));
  }
}

inline std::vector<Bounded> Exactly(const std::vector<double>& values) {
  std::vector<Bounded> out;
  for (const double x : values) out.push_back({.value = x});
  return out;
}

// One kernel on operands of its own.
struct Work {
  double bytes = 0;  // Read and written, at least.
  std::function<Status()> run;
  std::function<void()> check;  // After the first run.
};

inline double SecondsOf(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  const auto end = std::chrono::steady_clock::now();
  return std::chrono::duration<double>(end - start).count();
}

inline double Median(std::vector<double> v) {
  const auto middle = v.begin() + static_cast<ptrdiff_t>(v.size() / 2);
  std::nth_element(v.begin(), middle, v.end());
  return *middle;
}

inline void Measure(benchmark::State& state, bool smoke, const Work& work) {
  const auto run = [&] {
    if (const Status s = work.run(); !s.ok()) Die(s.ToString());
  };
  run();
  work.check();
  const auto half = static_cast<int64_t>(work.bytes / 2);
  const Buffer from = Allocated(half), to = Allocated(half);
  const kernels::Walk walk = {
      .streaming = kernels::ShouldStream(static_cast<size_t>(2 * half))};
  const auto copy = [&] {
    kernels::Copy(to.data(), from.data(), static_cast<size_t>(half), walk);
  };
  std::vector<double> of_kernel, of_copy;
  const double limit = smoke ? 0.001 : 1;
  const size_t least = smoke ? 3 : 7;
  for (double spent = 0; spent < limit || of_kernel.size() < least;) {
    of_copy.push_back(SecondsOf(copy));
    of_kernel.push_back(SecondsOf(run));
    spent += of_copy.back() + of_kernel.back();
  }
  const double kernel = Median(of_kernel), copied = Median(of_copy);
  for (auto _ : state) state.SetIterationTime(kernel);
  state.counters["GB/s"] = work.bytes / kernel * 1e-9;
  state.counters["copy_GB/s"] = work.bytes / copied * 1e-9;
  state.counters["share"] = copied / kernel;
}

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_BENCH_WORK_H_
