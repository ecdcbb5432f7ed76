// How fast the kernels that memory bounds go, as a share of the rate of a copy.
//
//     bazel run -c opt //layers:kernels_bench -- [--smoke] [Google Benchmark's
//                                                          flags]
//
// For every kernel, type and size: the bytes that must be read and written, each
// once ("GB/s" is them per second); beside it the rate of a copy of as many
// bytes ("copy_GB/s": half read, half written, the faster kind of copy at that
// size); and "share", kernel to copy. Both are timed in turns in one process,
// and medians are shown; one thread. Operands and the copy's two buffers evict
// one another from the caches of a core, not from a large last-level cache.
//
// Every answer is compared with the reference once, before it is timed: some
// rows or elements of it where the reference would take minutes.
//
// --smoke does all that with small operands, shortly.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "layers/kernels/bench_work.h"
#include "layers/kernels/cross_entropy.h"
#include "layers/kernels/embedding.h"
#include "layers/kernels/norm.h"
#include "layers/kernels/optimizer.h"
#include "layers/kernels/softmax.h"
#include "reference/attention_core.h"
#include "reference/cross_entropy.h"
#include "reference/embedding.h"
#include "reference/norm.h"
#include "reference/optimizer.h"
#include "reference/random.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

// --- Norm ---

struct NormOptions {
  NormKind kind = NormKind::kLayerNorm;
  bool backward = false;
  bool full = false;  // A residual, and its gradient.
};

Work NormWork(DType dtype, int64_t rows, int64_t columns,
              const NormOptions& options) {
  struct Operands {
    Array x, residual, w, b, dy, dz, z, y, dx, mean, inverse, dw, db;
  };
  const Shape all = {rows, columns};
  const DType wide = Accumulator(dtype);
  const auto make = [&](double scale) { return Array(dtype, all, scale); };
  const bool full = options.full;
  const bool centred = options.kind == NormKind::kLayerNorm;
  auto o = std::make_shared<Operands>(
      Operands{make(2), make(full ? 2 : 0), Array(dtype, {columns}, 2),
               Array(dtype, {columns}, 2), make(2), make(full ? 2 : 0), make(0),
               make(0), make(0), Array(wide, {rows}), Array(wide, {rows}),
               Array(wide, {columns}), Array(wide, {columns})});
  const NormRows shape = {
      .dtype = dtype, .rows = rows, .columns = columns, .centred = centred};
  const auto forward = [=] {
    return Normalize(Stream::Inline(), shape,
                     {.x = o->x.raw(),
                      .residual = full ? o->residual.raw() : nullptr,
                      .weight = o->w.raw(),
                      .bias = centred ? o->b.raw() : nullptr,
                      .z = full ? o->z.raw() : nullptr,
                      .y = o->y.raw(),
                      .mean = o->mean.raw(),
                      .inverse = o->inverse.raw()});
  };
  const auto backward = [=] {
    return NormalizeBackward(Stream::Inline(), shape,
                             {.z = full ? o->z.raw() : o->x.raw(),
                              .weight = o->w.raw(),
                              .dy = o->dy.raw(),
                              .dz = full ? o->dz.raw() : nullptr,
                              .mean = o->mean.raw(),
                              .inverse = o->inverse.raw(),
                              .dx = o->dx.raw(),
                              .dweight = o->dw.raw(),
                              .dbias = centred ? o->db.raw() : nullptr});
  };
  const auto check = [=] {
    NormInputs in{
        .kind = options.kind, .x = o->x.view(), .weight = o->w.view()};
    if (full) in.residual = o->residual.view();
    if (centred) in.bias = o->b.view();
    if (options.backward) in.dy = o->dy.view();
    if (options.backward && full) in.dz = o->dz.view();
    NormArithmetic a = NormArithmetic::For(dtype);
    a.dw.store = a.dw.accumulate;
    const NormResult want = NormReference(in, a, {0, rows / 2, rows - 1});
    const auto row = [&](const Matrix& m, size_t i) {
      return std::span(m.values).subspan(i * static_cast<size_t>(columns),
                                         static_cast<size_t>(columns));
    };
    for (size_t i = 0; i < 3; ++i) {
      const int64_t first = want.y.rows[i] * columns;
      if (full) Expect("z", o->z, first, row(want.z, i));
      if (!options.backward) Expect("y", o->y, first, row(want.y, i));
      if (options.backward) Expect("dx", o->dx, first, row(want.dx, i));
    }
    if (!options.backward) return;
    Expect("dweight", o->dw, 0, want.dw.values);
    if (centred) Expect("dbias", o->db, 0, want.db.values);
  };
  // x, y; z, dy, dx; and two more tensors where there is a residual, one in the
  // backward pass.
  const double tensors = options.backward ? 3 + full : 2 + 2 * full;
  if (!options.backward) return {tensors * o->x.bytes(), forward, check};
  if (!forward().ok()) Die("norm");
  return {tensors * o->x.bytes(), backward, check};
}

// --- Softmax ---

Work SoftmaxWork(DType dtype, int64_t rows, int64_t columns, bool backward) {
  struct Operands {
    Array scores, s, p, dp, ds;
  };
  const Shape all = {rows, columns};
  const DType wide = Accumulator(dtype);
  const auto o = std::make_shared<Operands>(
      Operands{Array(wide, all, 3), Array(wide, all), Array(dtype, all),
               Array(wide, all, 2), Array(wide, all)});
  const SoftmaxShape shape = {
      .dtype = dtype, .rows = rows, .columns = columns, .scale = 0.5};
  std::memcpy(o->s.raw(), o->scores.raw(), static_cast<size_t>(o->s.bytes()));
  // Scores are used up; what is left of them are scores as well. In place where
  // that is one type, as attention does it.
  void* const to = dtype == wide ? o->s.raw() : o->p.raw();
  const auto p = [=]() -> const Array& { return dtype == wide ? o->s : o->p; };
  const auto forward = [=] {
    return Softmax(Stream::Inline(), shape, o->s.raw(), to);
  };
  const auto check = [=] {
    const double u = UnitRoundoff(wide);
    for (const int64_t i : {int64_t{0}, rows / 2, rows - 1}) {
      const int64_t at = i * columns;
      if (backward) {
        Expect("ds", o->ds, at,
               SoftmaxRowGrad(Exactly(p().doubles(at, columns)),
                              Exactly(o->dp.doubles(at, columns)), shape.scale,
                              u + kSlack));
        continue;
      }
      std::vector<Bounded> x = Exactly(o->scores.doubles(at, columns));
      for (Bounded& v : x) v = Rounded(shape.scale * v, u);
      std::vector<Bounded> want =
          SoftmaxRow(x, u, Arithmetic::For(dtype).function_ulps);
      for (Bounded& v : want) v = Rounded(v, dtype);
      Expect("p", p(), at, want);
    }
  };
  const auto bytes = static_cast<double>(o->s.bytes() + o->p.bytes());
  if (!backward) return {bytes, forward, check};
  if (!forward().ok()) Die("softmax");
  return {bytes + static_cast<double>(o->ds.bytes()),
          [=] {
            return SoftmaxBackward(Stream::Inline(), shape, to, o->dp.raw(),
                                   o->ds.raw());
          },
          check};
}

// --- Embedding ---

enum class EmbeddingPass { kLookup, kGradient, kAccumulate };

Work EmbeddingWork(DType dtype, int64_t vocabulary, int64_t tokens,
                   int64_t hidden, EmbeddingPass pass) {
  struct Operands {
    Array table, y;
    std::vector<int64_t> ids, order, starts;
  };
  const bool lookup = pass == EmbeddingPass::kLookup;
  const EmbeddingShape shape = {
      .dtype = dtype, .tokens = tokens, .hidden = hidden, .rows = vocabulary};
  const auto o = std::make_shared<Operands>(
      Operands{Array(dtype, {vocabulary, hidden}, lookup ? 1 : 0),
               Array(dtype, {tokens, hidden}, 1),
               std::vector<int64_t>(static_cast<size_t>(tokens)),
               std::vector<int64_t>(static_cast<size_t>(tokens)),
               std::vector<int64_t>(static_cast<size_t>(vocabulary) + 1)});
  Fill(Uniform(DType::kI64, 1e9), {.seed = 7, .tensor = TensorId("ids")}, 0,
       tokens, o->ids.data());
  for (int64_t& id : o->ids) id = std::abs(id) % vocabulary;
  if (lookup) {
    return {
        2.0 * static_cast<double>(o->y.bytes()),
        [=] {
          return EmbeddingLookup(Stream::Inline(), shape, o->ids.data(),
                                 o->table.raw(), o->y.raw());
        },
        [=] {
          for (int64_t i = 0; i < tokens; ++i) {
            const int64_t row = o->ids[static_cast<size_t>(i)];
            if (std::memcmp(o->y.at(i * hidden), o->table.at(row * hidden),
                            static_cast<size_t>(hidden * SizeOf(dtype))) != 0) {
              Die(fmt::format("token {} has another row", i));
            }
          }
        }};
  }
  std::vector<int64_t> touched = o->ids;
  std::ranges::sort(touched);
  touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
  const bool accumulate = pass == EmbeddingPass::kAccumulate;
  const double rows =
      accumulate ? 2.0 * static_cast<double>(touched.size()) : vocabulary;
  return {static_cast<double>(o->y.bytes()) +
              rows * static_cast<double>(hidden * SizeOf(dtype)),
          [=] {
            return EmbeddingGradient(
                Stream::Inline(), shape, o->ids.data(), o->y.raw(), accumulate,
                {.order = o->order, .starts = o->starts}, o->table.raw());
          },
          [=] {
            const Rows some = {0, touched.front(), touched.back()};
            const Matrix want = EmbeddingGrad(o->ids, o->y.view(), vocabulary,
                                              Arithmetic::For(dtype), some);
            for (size_t i = 0; i < some.size(); ++i) {
              Expect("dtable", o->table, some[i] * hidden, want.row(i));
            }
          }};
}

// --- Cross entropy ---

Work CrossEntropyWork(DType dtype, int64_t tokens, int64_t vocabulary,
                      bool gradient) {
  struct Operands {
    Array x, dx, max, sums, loss, upstream;
    std::vector<int64_t> targets;
  };
  const DType wide = Accumulator(dtype);
  const auto o = std::make_shared<Operands>(
      Operands{Array(dtype, {tokens, vocabulary}, 10),
               Array(dtype, {gradient ? tokens : 0, vocabulary}),
               Array(wide, {tokens}),
               Array(wide, {2 * tokens}),
               Array(wide, {tokens}),
               Array(wide, {tokens}, 1),
               {}});
  for (int64_t i = 0; i < tokens; ++i) {
    o->targets.push_back(i * 7919 % vocabulary);
  }
  const CrossEntropyShape shape = {.dtype = dtype,
                                   .tokens = tokens,
                                   .columns = vocabulary,
                                   .valid = vocabulary,
                                   .vocabulary = vocabulary};
  const int64_t* const targets = o->targets.data();
  const auto local = [=] {
    return CrossEntropyLocal(shape, o->x.raw(), targets, o->max.raw(),
                             o->sums.raw());
  };
  const auto rest = [=] {
    const bool done =
        CrossEntropyRescale(shape, o->x.raw(), targets, o->max.raw(),
                            o->max.raw(), o->sums.raw())
            .ok() &&
        CrossEntropyLoss(shape, targets, o->sums.raw(), o->loss.raw()).ok();
    if (!done) Die("cross entropy");
  };
  const auto check = [=] {
    if (!gradient) rest();
    for (const int64_t i : {int64_t{0}, tokens - 1}) {
      const CrossEntropyResult want = CrossEntropyReference(
          {.logits = o->x.rows(i, 1),
           .targets = std::span(targets + i, 1),
           .vocabulary = vocabulary,
           .upstream = {wide, {1}, o->upstream.at(i)},
           .per_token = true},
          Arithmetic::For(dtype),
          {.rescalings =
               static_cast<int>(vocabulary / kCrossEntropyBlock) + 1});
      Expect("loss", o->loss, i, want.loss);
      if (gradient) Expect("dx", o->dx, i * vocabulary, want.dlogits.values);
    }
  };
  const auto bytes = static_cast<double>(o->x.bytes());
  if (!gradient) return {bytes, local, check};
  if (!local().ok()) Die("cross entropy");
  rest();
  return {2 * bytes,
          [=] {
            return CrossEntropyGradient(
                shape, o->x.raw(), targets, o->max.raw(), o->sums.raw(),
                {.upstream = o->upstream.raw(), .per_token = true},
                o->dx.raw());
          },
          check};
}

// --- Optimizer ---

Work OptimizerWork(DType dtype, int64_t n, const OptimizerSettings& settings) {
  struct Operands {
    Array parameter, master, gradient, first, second;
  };
  const DType wide = Accumulator(dtype);
  const bool adam = settings.HasSecondMoment(), narrow = dtype != wide;
  const auto o = std::make_shared<Operands>(Operands{
      Array(dtype, {n}, 1), Array(wide, {narrow ? n : 0}), Array(dtype, {n}, 1),
      Array(wide, {n}), Array(wide, {adam ? n : 0})});
  constexpr int64_t kChecked = 1021;
  const std::vector<double> initial = o->parameter.doubles(0, kChecked);
  if (narrow && !WidenParameters(Stream::Inline(), dtype, n, o->parameter.raw(),
                                 o->master.raw())
                     .ok()) {
    Die("widen");
  }
  const bool momentum = settings.HasFirstMoment();
  const UpdateTensors tensors = {.n = n,
                                 .dtype = dtype,
                                 .gradient_dtype = dtype,
                                 .parameter = o->parameter.raw(),
                                 .gradient = o->gradient.raw(),
                                 .master = narrow ? o->master.raw() : nullptr,
                                 .first = momentum ? o->first.raw() : nullptr,
                                 .second = adam ? o->second.raw() : nullptr};
  const auto check = [=] {
    OptimizerReference reference(settings, dtype, initial);
    reference.Step(Exactly(o->gradient.doubles(0, kChecked)));
    Expect("parameter", o->parameter, 0, reference.parameters());
    if (momentum) Expect("first", o->first, 0, reference.first());
    if (adam) Expect("second", o->second, 0, reference.second());
  };
  // The gradient is read, a parameter beside its master written, the rest both.
  const auto size = static_cast<double>(SizeOf(dtype)),
             full = static_cast<double>(SizeOf(wide));
  const double bytes =
      static_cast<double>(n) *
      ((narrow ? 2 : 1) * size + 2 * full + 2 * full * (momentum ? 1 : 0) +
       2 * full * (adam ? 1 : 0));
  if (!adam) {
    return {bytes,
            [=] {
              return SgdStep(Stream::Inline(),
                             {.tensors = tensors,
                              .learning_rate = settings.learning_rate,
                              .momentum = settings.momentum});
            },
            check};
  }
  const double rate = settings.learning_rate;
  return {bytes,
          [=] {
            return AdamStep(Stream::Inline(),
                            {.tensors = tensors,
                             .beta1 = settings.beta1,
                             .beta2 = settings.beta2,
                             .epsilon = settings.epsilon,
                             .step_size = rate / (1 - settings.beta1),
                             .second_scale = 1 / std::sqrt(1 - settings.beta2),
                             .shrink = 1 - rate * settings.weight_decay});
          },
          check};
}

// --- What is measured ---

class Suite {
 public:
  explicit Suite(bool smoke) : smoke_(smoke) {}

  void RegisterAll() {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      RegisterNorms(dtype);
      RegisterSoftmax(dtype);
      RegisterEmbedding(dtype);
      RegisterCrossEntropy(dtype);
      RegisterOptimizers(dtype);
    }
  }

 private:
  // `full`, or little of it in a smoke test.
  int64_t Size(int64_t full, int64_t little) const {
    return smoke_ ? little : full;
  }
  template <class Make>
  void Register(const std::string& name, Make make) const {
    benchmark::RegisterBenchmark(
        name.c_str(),
        [smoke = smoke_, make](benchmark::State& state) {
          Measure(state, smoke, make());
        })
        ->Iterations(1)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }

  void RegisterNorms(DType dtype) const {
    const int64_t rows = Size(512, 6), columns = Size(4096, 131);
    for (const NormKind kind : {NormKind::kLayerNorm, NormKind::kRmsNorm}) {
      for (const bool backward : {false, true}) {
        for (const bool full : {false, true}) {
          Register(
              fmt::format("{}/{}{}/{}/{}x{}", Name(kind),
                          backward ? "backward" : "forward",
                          full ? "_residual" : "", Name(dtype), rows, columns),
              [=] {
                return NormWork(dtype, rows, columns, {kind, backward, full});
              });
        }
      }
    }
  }
  void RegisterSoftmax(DType dtype) const {
    const int64_t rows = Size(2048, 6), columns = Size(2048, 131);
    for (const bool backward : {false, true}) {
      Register(
          fmt::format("softmax/{}/{}/{}x{}", backward ? "backward" : "forward",
                      Name(dtype), rows, columns),
          [=] { return SoftmaxWork(dtype, rows, columns, backward); });
    }
  }
  void RegisterEmbedding(DType dtype) const {
    const int64_t vocabulary = Size(32000, 19), hidden = Size(4096, 131);
    const int64_t tokens = Size(2048, 37);
    for (const auto& [pass, name] :
         {std::pair(EmbeddingPass::kLookup, "lookup"),
          std::pair(EmbeddingPass::kGradient, "gradient"),
          std::pair(EmbeddingPass::kAccumulate, "accumulate")}) {
      Register(fmt::format("embedding/{}/{}/{}of{}x{}", name, Name(dtype),
                           tokens, vocabulary, hidden),
               [=, pass = pass] {
                 return EmbeddingWork(dtype, vocabulary, tokens, hidden, pass);
               });
    }
  }
  void RegisterCrossEntropy(DType dtype) const {
    for (const auto& [tokens, vocabulary] :
         {std::pair(Size(256, 3), Size(32000, 31)),
          std::pair(Size(64, 3), Size(128256, 131))}) {
      for (const bool gradient : {false, true}) {
        Register(fmt::format("cross_entropy/{}/{}/{}x{}",
                             gradient ? "gradient" : "local", Name(dtype),
                             tokens, vocabulary),
                 [=, t = tokens, v = vocabulary] {
                   return CrossEntropyWork(dtype, t, v, gradient);
                 });
      }
    }
  }
  void RegisterOptimizers(DType dtype) const {
    const int64_t n = Size(int64_t{4} << 20, 1027);
    const auto add = [&](const char* name, const OptimizerSettings& settings) {
      Register(fmt::format("{}/{}/{}", name, Name(dtype), n),
               [=] { return OptimizerWork(dtype, n, settings); });
    };
    add("sgd", {.rule = OptimizerRule::kSgd});
    add("sgd_momentum", {.rule = OptimizerRule::kSgd, .momentum = 0.9});
    add("adamw", {.rule = OptimizerRule::kAdamW, .weight_decay = 0.1});
  }

  bool smoke_;
};

}  // namespace
}  // namespace shardproof

int main(int argc, char** argv) {
  const auto is_smoke = [](std::string_view a) { return a == "--smoke"; };
  char** const end = std::remove_if(argv + 1, argv + argc, is_smoke);
  const bool smoke = end != argv + argc;
  argc = static_cast<int>(end - argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  shardproof::Suite(smoke).RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
}
