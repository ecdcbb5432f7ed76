#include "layers/kernels/gemm.h"

#include <cblas.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "layers/kernels/convert.h"
#include "layers/kernels/gemm_onednn.h"
#include "layers/kernels/layer_kernels.h"

namespace shardproof {
namespace {

using kernels::GemmOneDnn;
using kernels::HasNativeProduct;
using kernels::Narrow;
using kernels::Strided;
using kernels::Widen;

struct Problem {
  int64_t m, n, k;
};

StatusOr<Problem> Check(const GemmArgs& args) {
  const auto matrix = [](const Shape& s) { return s.rank() == 2; };
  if (!matrix(args.a.shape) || !matrix(args.b.shape) || !matrix(args.c.shape)) {
    return InvalidArgument("a product takes matrices, not {}, {} and {}",
                           args.a.shape.ToString(), args.b.shape.ToString(),
                           args.c.shape.ToString());
  }
  const int ta = args.transpose_a ? 1 : 0;
  const int tb = args.transpose_b ? 1 : 0;
  const Problem p{args.a.shape[ta], args.b.shape[1 - tb], args.a.shape[1 - ta]};
  if (args.b.shape[tb] != p.k || args.c.shape[0] != p.m ||
      args.c.shape[1] != p.n) {
    return InvalidArgument("the product of {}{} and {}{} does not fit into {}",
                           args.a.shape.ToString(), ta ? " transposed" : "",
                           args.b.shape.ToString(), tb ? " transposed" : "",
                           args.c.shape.ToString());
  }
  if (args.a.dtype != args.c.dtype || args.b.dtype != args.c.dtype) {
    return InvalidArgument("a product of {} and {} cannot be stored as {}",
                           Name(args.a.dtype), Name(args.b.dtype),
                           Name(args.c.dtype));
  }
  if (args.accumulate && args.bias != nullptr) {
    return InvalidArgument("a product is accumulated or biased, not both");
  }
  return p;
}

// Without terms: C stays, or is the bias, or 0.
void Empty(const GemmArgs& args, const Problem& p) {
  if (args.accumulate || args.c.data == nullptr) return;
  const size_t row = static_cast<size_t>(p.n) * SizeOf(args.c.dtype);
  for (int64_t i = 0; i < p.m; ++i) {
    std::byte* out = static_cast<std::byte*>(args.c.data) + i * row;
    if (args.bias != nullptr) {
      std::memcpy(out, args.bias, row);
    } else {
      std::memset(out, 0, row);
    }
  }
}

// A serial OpenBLAS (Debian's) is built without locks: of two calls at a time
// both may get the same scratch memory, and then results are wrong. Ranks as
// threads therefore take turns in f64, which is for conformance and not for
// speed. Other builds lock for themselves, and must not start threads.
std::unique_lock<std::mutex> BlasTurn() {
  static std::mutex mutex;
  static const bool serial = [] {
    openblas_set_num_threads(1);
    return openblas_get_parallel() == OPENBLAS_SEQUENTIAL;
  }();
  return serial ? std::unique_lock(mutex) : std::unique_lock<std::mutex>();
}

Status GemmF64(const GemmArgs& args, const Problem& p) {
  double* c = args.c.as<double>();
  if (args.bias != nullptr) Empty(args, p);
  const std::unique_lock<std::mutex> turn = BlasTurn();
  cblas_dgemm(CblasRowMajor, args.transpose_a ? CblasTrans : CblasNoTrans,
              args.transpose_b ? CblasTrans : CblasNoTrans,
              static_cast<int>(p.m), static_cast<int>(p.n),
              static_cast<int>(p.k), 1.0, args.a.as<double>(),
              static_cast<int>(args.a.shape[1]), args.b.as<double>(),
              static_cast<int>(args.b.shape[1]),
              args.accumulate || args.bias != nullptr ? 1.0 : 0.0, c,
              static_cast<int>(p.n));
  return Status();
}

Strided<const void*> Oriented(const void* data, const Shape& shape,
                              bool transposed) {
  return transposed ? Strided<const void*>{data, 1, shape[1]}
                    : Strided<const void*>{data, shape[1], 1};
}

// Where the CPU cannot multiply them, 16-bit operands are widened to f32, B and
// C in panels of columns, so that scratch stays in the second-level cache's
// neighbourhood and the product runs at the rate of f32. Rejected: doing so
// everywhere, so that all machines compute the same bits. They do not anyway,
// since the order of f32 sums depends on the instruction set, and AMX is 3.5
// times as fast.
Status GemmWidened(const GemmArgs& args, const Problem& p) {
  constexpr int64_t kPanel = 512;
  const DType dtype = args.c.dtype;
  const int64_t size = SizeOf(dtype);
  thread_local std::vector<float> scratch;
  const int64_t panel = std::min(p.n, kPanel);
  const size_t needed =
      static_cast<size_t>(p.m * p.k + panel * p.k + p.m * panel);
  if (scratch.size() < needed) scratch.resize(needed);
  float* a = scratch.data();
  float* b = a + p.m * p.k;
  float* c = b + panel * p.k;
  Widen(dtype, args.a.data, p.m * p.k, a);
  const auto* b_source = static_cast<const std::byte*>(args.b.data);
  auto* out = static_cast<std::byte*>(args.c.data);
  const auto* bias = static_cast<const std::byte*>(args.bias);
  for (int64_t j = 0; j < p.n; j += panel) {
    const int64_t w = std::min(panel, p.n - j);
    Strided<const void*> b_panel{b, w, 1};
    if (args.transpose_b) {
      Widen(dtype, b_source + j * p.k * size, w * p.k, b);
      b_panel = {b, 1, p.k};
    } else {
      for (int64_t i = 0; i < p.k; ++i) {
        Widen(dtype, b_source + (i * p.n + j) * size, w, b + i * w);
      }
    }
    SP_RETURN_IF_ERROR(GemmOneDnn(DType::kF32, p.m, w, p.k,
                                  Oriented(a, args.a.shape, args.transpose_a),
                                  b_panel, {c, w, 1}, false, nullptr));
    for (int64_t i = 0; i < p.m; ++i) {
      std::byte* row = out + (i * p.n + j) * size;
      const void* addend = args.accumulate   ? row
                           : bias != nullptr ? bias + j * size
                                             : nullptr;
      Narrow(dtype, c + i * w, addend, w, row);
    }
  }
  return Status();
}

Status Run(const GemmArgs& args, const Problem& p) {
  if (p.m == 0 || p.n == 0) return Status();
  if (p.k == 0) {
    Empty(args, p);
    return Status();
  }
  if (HasNativeProduct(args.c.dtype)) {
    return GemmOneDnn(args.c.dtype, p.m, p.n, p.k,
                      Oriented(args.a.data, args.a.shape, args.transpose_a),
                      Oriented(args.b.data, args.b.shape, args.transpose_b),
                      {args.c.data, p.n, 1}, args.accumulate, args.bias);
  }
  switch (args.c.dtype) {
    case DType::kF64:
      return GemmF64(args, p);
    case DType::kBF16:
    case DType::kF16:
      return GemmWidened(args, p);
    default:
      return Unsupported("products are of f64, f32, bf16 or f16, not {}",
                         Name(args.c.dtype));
  }
}

}  // namespace

Status Gemm(const Stream& stream, const GemmArgs& args) {
  SP_ASSIGN_OR_RETURN(const Problem p, Check(args));
  return RunKernel(
      stream, [args](LayerKernels& device) { return device.Gemm(args); },
      [args, p] { return Run(args, p); });
}

}  // namespace shardproof
