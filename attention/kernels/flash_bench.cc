// How fast flash attention is on one thread, beside what it is made of and what
// it replaces.
//
//     chrt -f 20 taskset -c 1 bazel-bin/attention/kernels_flash_bench
//
// gflops counts 4 head_dim operations for each pair of a query and a key that it
// sees forward and 10 backward, however they are computed. gemm_gflops is the
// layers' product (oneDNN's, in bf16 and f32) of square matrices of 1024, the
// best of those before and after, and share the first as a part of it. plain
// times the core that keeps all scores.
//
// Every answer is checked: O, lse and dQ of some queries against the reference,
// dV and dK of a key against sums in double. --smoke does so at a sixteenth of
// the length and measures nothing that one could quote.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "attention/kernels/flash.h"
#include "attention/kernels/merge.h"
#include "attention/kernels/tile_product.h"
#include "layers/kernels/attention_core.h"
#include "layers/kernels/gemm.h"
#include "reference/flash_attention.h"
#include "reference/random.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

struct Setting {
  DType dtype = DType::kF32;
  int64_t tokens = 0;
  int64_t head_dim = 0;
  bool causal = false;
  bool backward = false;
  bool plain = false;
  bool smoke = false;
};

Tensor Random(DType dtype, const Shape& shape, const char* name) {
  Tensor t(dtype, shape);
  Fill(Uniform(dtype, 1.5), {.seed = 7, .tensor = TensorId(name)}, 0,
       t.num_elements(), t.raw());
  return t;
}

double Seconds(const std::chrono::steady_clock::time_point& start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

// The best of a few products, in operations per second.
double GemmRate(DType dtype, bool smoke) {
  const int64_t size = smoke ? 64 : 1024;
  const Tensor a = Random(dtype, {size, size}, "a");
  const Tensor b = Random(dtype, {size, size}, "b");
  Tensor c(dtype, {size, size});
  const double operations = 2 * std::pow(static_cast<double>(size), 3);
  double best = 0;
  for (int i = 0; i < (smoke ? 1 : 10); ++i) {
    const auto start = std::chrono::steady_clock::now();
    const Status status =
        Gemm(Stream::Inline(), {.a = a.view(), .b = b.view(), .c = c.view()});
    if (!status.ok()) return 0;
    best = std::max(best, operations / Seconds(start));
  }
  return best;
}

// The tensors of one head, and what is done with them.
class Head {
 public:
  explicit Head(const Setting& s)
      : s_(s), wide_(Accumulator(s.dtype)), visibility_{.causal = s.causal} {
    const Shape rows = {s.tokens, s.head_dim};
    q_ = Random(s.dtype, rows, "q");
    k_ = Random(s.dtype, rows, "k");
    v_ = Random(s.dtype, rows, "v");
    d_o_ = Random(s.dtype, rows, "do");
    o_ = Tensor::Zeros(s.dtype, rows);
    const DType gradients = s.plain ? s.dtype : wide_;
    dq_ = Tensor::Zeros(gradients, rows);
    dk_ = Tensor::Zeros(gradients, rows);
    dv_ = Tensor::Zeros(gradients, rows);
    lse_ = Tensor::Zeros(wide_, {1, s.tokens});
    delta_ = Tensor::Zeros(wide_, {1, s.tokens});
  }

  Status Create() {
    const double scale = Scale();
    if (s_.plain) {
      SP_ASSIGN_OR_RETURN(plain_, CreatePlainAttention({.queries = s_.tokens,
                                                        .keys = s_.tokens,
                                                        .heads = 1,
                                                        .kv_heads = 1,
                                                        .head_dim = s_.head_dim,
                                                        .causal = s_.causal,
                                                        .scale = scale,
                                                        .dtype = s_.dtype}));
      return Forward();
    }
    SP_ASSIGN_OR_RETURN(flash_, FlashAttention::Create({.queries = s_.tokens,
                                                        .keys = s_.tokens,
                                                        .heads = 1,
                                                        .kv_heads = 1,
                                                        .head_dim = s_.head_dim,
                                                        .scale = scale,
                                                        .dtype = s_.dtype}));
    SP_RETURN_IF_ERROR(Forward());
    return AttentionDelta(Stream::Inline(), {.dtype = s_.dtype,
                                             .o_type = s_.dtype,
                                             .queries = s_.tokens,
                                             .heads = 1,
                                             .head_dim = s_.head_dim,
                                             .d_o = In(d_o_),
                                             .o = In(o_),
                                             .delta = {delta_.raw()}});
  }

  Status Forward() {
    const int64_t d = s_.head_dim;
    if (s_.plain) {
      return plain_->Forward(Stream::Inline(), {.q = {q_.raw(), d},
                                                .k = {k_.raw(), d},
                                                .v = {v_.raw(), d},
                                                .o = {o_.raw(), d}});
    }
    return flash_->Forward(Stream::Inline(), {.block = Block(),
                                              .q = In(q_),
                                              .k = In(k_),
                                              .v = In(v_),
                                              .o = Out(o_),
                                              .o_type = s_.dtype,
                                              .lse = {lse_.raw()}});
  }
  Status Backward() {
    const int64_t d = s_.head_dim;
    if (s_.plain) {
      return plain_->Backward(Stream::Inline(), {.q = {q_.raw(), d},
                                                 .k = {k_.raw(), d},
                                                 .v = {v_.raw(), d},
                                                 .o = {o_.raw(), d},
                                                 .d_o = {d_o_.raw(), d},
                                                 .dq = {dq_.raw(), d},
                                                 .dk = {dk_.raw(), d},
                                                 .dv = {dv_.raw(), d}});
    }
    return flash_->Backward(Stream::Inline(), {.block = Block(),
                                               .q = In(q_),
                                               .k = In(k_),
                                               .v = In(v_),
                                               .d_o = In(d_o_),
                                               .lse = {lse_.raw()},
                                               .delta = {delta_.raw()},
                                               .dq = Out(dq_),
                                               .dk = Out(dk_),
                                               .dv = Out(dv_),
                                               .overwrite = true});
  }
  Status Run() { return s_.backward ? Backward() : Forward(); }

  double Operations() const {
    const TokenRun all = {.count = s_.tokens};
    return (s_.backward ? 10.0 : 4.0) * static_cast<double>(s_.head_dim) *
           static_cast<double>(CountPairs(visibility_, all, all));
  }

  // Empty where all is right. Not of the plain core, which has its own tests.
  std::string Wrong() const {
    if (s_.plain) return "";
    FlashInputs in = {.heads = 1,
                      .kv_heads = 1,
                      .head_dim = s_.head_dim,
                      .scale = Scale(),
                      .q = q_.view(),
                      .k = k_.view(),
                      .v = v_.view(),
                      .d_o = d_o_.view()};
    in.seen.resize(static_cast<size_t>(s_.tokens));
    const std::vector<int64_t> some = {0, 1, s_.tokens / 2 + 3, s_.tokens - 1};
    for (const int64_t i : some) {
      const IndexRange seen = KeysSeen(visibility_, i, {.count = s_.tokens});
      for (int64_t j = seen.first; j < seen.last; ++j) {
        in.seen[static_cast<size_t>(i)].push_back(j);
      }
    }
    FlashArithmetic a = FlashArithmetic::For(s_.dtype);
    a.products = ProductType(s_.dtype);
    a.tiles = s_.tokens / 256 + 1;
    const FlashResult want = FlashReference(in, a);
    const double lambda = Lambda(static_cast<double>(s_.tokens));
    const auto right = [&](const Tensor& t, int64_t i, const Bounded& x) {
      return std::abs(At(t, i) - x.value) <= x.Likely(lambda);
    };
    for (const int64_t i : some) {
      if (!right(lse_, i, want.lse.at(0, i))) {
        return fmt::format("lse of query {}", i);
      }
      for (int64_t e = 0; e < s_.head_dim; ++e) {
        const int64_t at = i * s_.head_dim + e;
        if (!right(o_, at, want.o.at(i, e))) {
          return fmt::format("O of query {}", i);
        }
        if (s_.backward && !right(dq_, at, want.dq.at(i, e))) {
          return fmt::format("dQ of query {}", i);
        }
      }
    }
    return s_.backward ? WrongKey(s_.tokens / 3, a) : "";
  }

 private:
  double Scale() const {
    return 1 / std::sqrt(static_cast<double>(s_.head_dim));
  }
  FlashBlock Block() const {
    const TokenRun all = {.count = s_.tokens};
    return {all, all, &visibility_};
  }
  ConstTokens In(const Tensor& t) const { return {t.raw(), s_.head_dim}; }
  Tokens Out(Tensor& t) const { return {t.raw(), s_.head_dim}; }
  static double At(const Tensor& t, int64_t i) {
    double x = 0;
    ToDouble(t.dtype(), t.bytes().data() + i * SizeOf(t.dtype()), 1, &x);
    return x;
  }
  static std::vector<double> Row(const Tensor& t, int64_t i) {
    const int64_t d = t.shape()[1];
    std::vector<double> row(static_cast<size_t>(d));
    ToDouble(t.dtype(), t.bytes().data() + i * d * SizeOf(t.dtype()), d,
             row.data());
    return row;
  }
  struct Dot {
    double value = 0, size = 0;
    Dot(const std::vector<double>& a, const std::vector<double>& b) {
      for (size_t e = 0; e < a.size(); ++e) {
        value += a[e] * b[e];
        size += std::abs(a[e] * b[e]);
      }
    }
  };

  // dK and dV of key j from the kernel's own lse and delta, with the most that
  // scores, exponentials, their rounding and the sums can err.
  std::string WrongKey(int64_t j, const FlashArithmetic& a) const {
    const double u = UnitRoundoff(wide_);
    const double rounding = a.products == wide_ ? 0 : UnitRoundoff(a.products);
    const double d = static_cast<double>(s_.head_dim);
    const double steps = Gamma(static_cast<double>(s_.tokens) + 4, u);
    std::vector<double> dk(static_cast<size_t>(s_.head_dim), 0), dv(dk);
    std::vector<double> dk_bound(dk), dv_bound(dk);
    const std::vector<double> k = Row(k_, j), v = Row(v_, j);
    for (int64_t i = s_.causal ? j : 0; i < s_.tokens; ++i) {
      const std::vector<double> q = Row(q_, i), d_o = Row(d_o_, i);
      const Dot score(q, k), gradient(d_o, v);
      const double x = Scale() * score.value, lse = At(lse_, i);
      const double p = std::exp(x - lse);
      const double ds = p * (gradient.value - At(delta_, i));
      const double relative =
          std::expm1(Gamma(d, u) * Scale() * score.size +
                     3 * u * (std::abs(x) + std::abs(lse)) + a.exp_error) +
          rounding + 4 * u;
      const double ds_error =
          std::abs(ds) * relative + p * Gamma(d, u) * gradient.size;
      for (size_t e = 0; e < k.size(); ++e) {
        dk[e] += Scale() * ds * q[e];
        dk_bound[e] +=
            Scale() * (ds_error + steps * std::abs(ds)) * std::abs(q[e]);
        dv[e] += p * d_o[e];
        dv_bound[e] += p * (relative + steps) * std::abs(d_o[e]);
      }
    }
    for (int64_t e = 0; e < s_.head_dim; ++e) {
      const auto n = static_cast<size_t>(e);
      const int64_t at = j * s_.head_dim + e;
      if (!(std::abs(At(dk_, at) - dk[n]) <= dk_bound[n])) {
        return fmt::format("dK of key {}", j);
      }
      if (!(std::abs(At(dv_, at) - dv[n]) <= dv_bound[n])) {
        return fmt::format("dV of key {}", j);
      }
    }
    return "";
  }

  Setting s_;
  DType wide_;
  Visibility visibility_;
  Tensor q_, k_, v_, d_o_, o_, dq_, dk_, dv_, lse_, delta_;
  std::unique_ptr<AttentionCore> plain_;
  std::unique_ptr<FlashAttention> flash_;
};

void Measure(benchmark::State& state, const Setting& setting) {
  Head head(setting);
  Status status = head.Create();
  if (status.ok()) status = head.Run();
  if (!status.ok()) return state.SkipWithError(status.ToString().c_str());
  double gemm = GemmRate(setting.dtype, setting.smoke);
  double best = HUGE_VAL;
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    status = head.Run();
    best = std::min(best, Seconds(start));
    if (!status.ok()) return state.SkipWithError(status.ToString().c_str());
  }
  gemm = std::max(gemm, GemmRate(setting.dtype, setting.smoke));
  const std::string wrong = head.Wrong();
  if (!wrong.empty()) {
    return state.SkipWithError(("the answer is wrong: " + wrong).c_str());
  }
  state.counters["best_ms"] = best * 1e3;
  state.counters["gflops"] = head.Operations() / best / 1e9;
  state.counters["gemm_gflops"] = gemm / 1e9;
  state.counters["share"] = head.Operations() / best / gemm;
}

void Register(const Setting& s) {
  const std::string name = fmt::format(
      "{}/{}/{}/tokens:{}/head_dim:{}/{}", s.plain ? "plain" : "flash",
      s.backward ? "backward" : "forward", Name(s.dtype), s.tokens, s.head_dim,
      s.causal ? "causal" : "full");
  benchmark::RegisterBenchmark(name.c_str(), [s](benchmark::State& state) {
    Measure(state, s);
  })->Unit(benchmark::kMillisecond);
}

void RegisterAll(int64_t tokens, bool smoke) {
  for (const DType dtype : {DType::kBF16, DType::kF32, DType::kF16}) {
    for (const bool backward : {false, true}) {
      for (const bool causal : {false, true}) {
        for (const bool plain : {false, true}) {
          Register({dtype, tokens, 128, causal, backward, plain, smoke});
        }
      }
      for (const int64_t head_dim : {64, 80, 96, 256}) {
        if (smoke) continue;
        Register({dtype, tokens, head_dim, false, backward, false, smoke});
      }
    }
  }
}

}  // namespace
}  // namespace shardproof

int main(int argc, char** argv) {
  char quick[] = "--benchmark_min_time=0.001";
  bool smoke = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--smoke") == 0) {
      smoke = true;
      argv[i] = quick;
    }
  }
  shardproof::RegisterAll(smoke ? 256 : 4096, smoke);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
