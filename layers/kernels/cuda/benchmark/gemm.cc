// Points of ../blas: the products of a block, with the epilogues that a library has.
#include "layers/kernels/cuda/benchmark/gemm.h"

#include <algorithm>
#include <cstddef>

#include "layers/kernels/activation.h"
#include "layers/kernels/cuda/benchmark/families.h"
#include "layers/kernels/gemm.h"

namespace shardproof::cuda {
namespace {

// The host multiplies for so many rows at either end: a product of a model takes a CPU seconds.
constexpr int64_t kCheckedRows = 8;

std::vector<std::pair<int64_t, int64_t>> CheckedRows(int64_t rows) {
  if (rows <= 2 * kCheckedRows) return {{0, rows}};
  return {{0, kCheckedRows}, {rows - kCheckedRows, rows}};
}

GemmArgs Product(DType dtype, const ProductShape& s, void* const* at) {
  return {.a = ConstTensorView(dtype, {s.m, s.k}, at[0]),
          .b = ConstTensorView(dtype, {s.n, s.k}, at[1]),
          .transpose_b = true,
          .c = {dtype, {s.m, s.n}, at[2]}};
}

// The same for rows [begin, end).
GemmArgs RowsOf(GemmArgs args, int64_t begin, int64_t end) {
  const int64_t e = SizeOf(args.c.dtype);
  const int64_t k = args.a.shape[1], n = args.c.shape[1];
  args.a.data = static_cast<const std::byte*>(args.a.data) + begin * k * e;
  args.a.shape = {end - begin, k};
  args.c.data = static_cast<std::byte*>(args.c.data) + begin * n * e;
  args.c.shape = {end - begin, n};
  return args;
}

// f(begin, end) of the rows that are checked.
template <class F>
Status ForCheckedRows(int64_t rows, const F& f) {
  for (const auto& [begin, end] : CheckedRows(rows)) {
    SP_RETURN_IF_ERROR(f(begin, end));
  }
  return OkStatus();
}

Status Queued(const std::optional<Status>& done) {
  return done.has_value() ? *done
                          : Unsupported("the library has no such product");
}

// Sums of k products of about a quarter, in any order, in an accumulator that may cut off.
Operand Sums(const std::string& name, DType dtype, const ProductShape& s) {
  Operand sums = Output(name, dtype, s.m * s.n, 16,
                        std::max(static_cast<double>(s.k) / 4, 1.0));
  for (const auto& [begin, end] : CheckedRows(s.m)) {
    sums.ranges.emplace_back(begin * s.n, end * s.n);
  }
  return sums;
}

// A, B, C, and so many operands more for the caller to add.
KernelPoint PointOf(DType dtype, const ProductShape& s,
                    const std::string& epilogue) {
  KernelPoint point = {.name = "gemm", .variant = "cublaslt", .dtype = dtype};
  point.params = {{"dtype", std::string(Name(dtype))},
                  Param("m", s.m),
                  Param("n", s.n),
                  Param("k", s.k),
                  {"epilogue", epilogue}};
  point.operands = {Random("a", dtype, s.m * s.k),
                    Random("b", dtype, s.n * s.k), Sums("c", dtype, s)};
  point.kernels = {
      {.name = "Gemm",
       .bytes = Sum((s.m * s.k + s.n * s.k + s.m * s.n) * SizeOf(dtype)),
       .flops = 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) *
                static_cast<double>(s.k)}};
  return point;
}

KernelPoint WithBias(DType dtype, const ProductShape& s) {
  KernelPoint point = PointOf(dtype, s, "bias");
  point.operands.push_back(Random("bias", dtype, s.n));
  const auto args = [dtype, s](void* const* at) {
    GemmArgs all = Product(dtype, s, at);
    all.bias = at[3];
    return all;
  };
  point.product = [args](CublasLtGemm& gemm, GpuStream& stream,
                         void* const* at) {
    return Queued(gemm.Gemm(stream, args(at)));
  };
  point.host = [args, s](void* const* at) {
    return ForCheckedRows(s.m, [&](int64_t begin, int64_t end) {
      return shardproof::Gemm(Stream::Inline(), RowsOf(args(at), begin, end));
    });
  };
  return point;
}

KernelPoint WithGelu(DType dtype, const ProductShape& s) {
  KernelPoint point = PointOf(dtype, s, "gelu");
  point.operands.push_back(Random("bias", dtype, s.n));
  point.operands.push_back(Sums("z", dtype, s));
  // GELU is taken before or after z is rounded.
  for (const size_t i : {size_t{2}, size_t{4}}) {
    point.operands[i].relative = 8 * UnitRoundoff(dtype);
  }
  const auto args = [dtype, s](void* const* at) {
    GemmArgs all = Product(dtype, s, at);
    all.bias = at[3];
    return all;
  };
  point.product = [args](CublasLtGemm& gemm, GpuStream& stream,
                         void* const* at) {
    return Queued(gemm.GemmGelu(stream, args(at), at[4]));
  };
  point.host = [args, dtype, s](void* const* at) {
    return ForCheckedRows(s.m, [&](int64_t begin, int64_t end) -> Status {
      GemmArgs rows = RowsOf(args(at), begin, end);
      const int64_t offset = begin * s.n * SizeOf(dtype);
      void* const c = rows.c.data;
      rows.c.data = static_cast<std::byte*>(at[4]) + offset;
      SP_RETURN_IF_ERROR(shardproof::Gemm(Stream::Inline(), rows));
      return Gelu(Stream::Inline(), dtype, (end - begin) * s.n, rows.c.data, c);
    });
  };
  return point;
}

// The gradient of the bias is a sum over all rows: all of them are the host's too, and take it a while.
KernelPoint WithGeluBackward(DType dtype, const ProductShape& s) {
  KernelPoint point = PointOf(dtype, s, "gelu_backward");
  Operand& c = point.operands[2];
  c.ranges.clear();
  c.relative = 8 * UnitRoundoff(dtype);
  c.of_rms = 4 * UnitRoundoff(dtype);
  point.operands.push_back(Random("z", dtype, s.m * s.n, 2));
  Operand bias = Output("bias_gradient", dtype, s.n);
  // Of C before or after it is rounded.
  bias.relative = bias.of_rms = 16 * UnitRoundoff(dtype);
  point.operands.push_back(bias);
  point.product = [dtype, s](CublasLtGemm& gemm, GpuStream& stream,
                             void* const* at) {
    return Queued(
        gemm.GemmGeluBackward(stream, Product(dtype, s, at), at[3], at[4]));
  };
  point.host = [dtype, s](void* const* at) -> Status {
    const Stream here = Stream::Inline();
    SP_RETURN_IF_ERROR(shardproof::Gemm(here, Product(dtype, s, at)));
    SP_RETURN_IF_ERROR(
        GeluBackward(here, dtype, s.m * s.n, at[3], at[2], at[2]));
    return ColumnSum(here, dtype, s.m, s.n, at[2], at[4]);
  };
  return point;
}

}  // namespace

KernelPoint ProductPoint(DType dtype, const ProductShape& shape) {
  KernelPoint point = PointOf(dtype, shape, "none");
  point.product = [=](CublasLtGemm& gemm, GpuStream& stream, void* const* at) {
    return Queued(gemm.Gemm(stream, Product(dtype, shape, at)));
  };
  point.host = [=](void* const* at) {
    return ForCheckedRows(shape.m, [&](int64_t begin, int64_t end) {
      return shardproof::Gemm(Stream::Inline(),
                              RowsOf(Product(dtype, shape, at), begin, end));
    });
  };
  return point;
}

namespace {

const KernelPoints kPoints([](const ModelShape& m,
                              std::vector<KernelPoint>& points) {
  const int64_t heads = (m.heads + 2 * m.kv_heads) * m.head_dim;
  for (const DType dtype : kMeasuredTypes) {
    points.push_back(ProductPoint(dtype, {m.tokens, heads, m.hidden}));
    points.push_back(
        ProductPoint(dtype, {m.tokens, m.hidden, m.heads * m.head_dim}));
    points.push_back(
        ProductPoint(dtype, {m.tokens, 2 * m.intermediate, m.hidden}));
    points.push_back(ProductPoint(dtype, {m.tokens, m.hidden, m.intermediate}));
  }
  points.push_back(WithBias(DType::kBF16, {m.tokens, heads, m.hidden}));
  points.push_back(
      WithGelu(DType::kBF16, {m.tokens, m.intermediate, m.hidden}));
  points.push_back(
      WithGeluBackward(DType::kBF16, {m.tokens, m.intermediate, m.hidden}));
});

}  // namespace
}  // namespace shardproof::cuda
