#include "attention/kernels/tile_product.h"

#include <omp.h>

#include <cstring>
#include <dnnl.hpp>
#include <utility>

#include "layers/kernels/gemm.h"
#include "layers/kernels/gemm_onednn.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

using dnnl::memory;

memory::desc Matrix(memory::data_type type, int64_t rows, int64_t columns,
                    bool transposed) {
  return memory::desc(
      {rows, columns}, type,
      transposed ? memory::dims{1, rows} : memory::dims{columns, 1});
}

}  // namespace

DType ProductType(DType dtype) {
  if (dtype == DType::kF64 || kernels::HasNativeProduct(dtype)) return dtype;
  return DType::kF32;
}

// Engine and stream are its own, since products of several threads may run at a
// time.
struct TileProduct::Compiled {
  Options options;
  dnnl::engine engine;
  dnnl::stream stream;
  dnnl::matmul product;
  dnnl::reorder pack, pack_transposed;
  memory a, b, c, scratch;
  memory plain, plain_transposed;
  int64_t packed_bytes = 0;

  void Compile() {
    engine = dnnl::engine(dnnl::engine::kind::cpu, 0);
    stream = dnnl::stream(engine);
    const auto type = options.dtype == DType::kBF16 ? memory::data_type::bf16
                                                    : memory::data_type::f32;
    dnnl::primitive_attr attributes;
    // In its own memory, from the beginning.
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (options.accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    const memory::desc any({options.k, options.n}, type,
                           memory::format_tag::any);
    const dnnl::matmul::primitive_desc desc(
        dnnl::matmul::desc(
            Matrix(type, options.m, options.k, false),
            options.packed ? any : Matrix(type, options.k, options.n, false),
            Matrix(memory::data_type::f32, options.m, options.n, false)),
        attributes, engine);
    product = dnnl::matmul(desc);
    const auto unset = [&](const memory::desc& d) {
      return memory(d, engine, DNNL_MEMORY_NONE);
    };
    a = unset(desc.src_desc());
    b = unset(desc.weights_desc());
    c = unset(desc.dst_desc());
    scratch = memory(desc.scratchpad_desc(), engine);
    if (!options.packed) return;
    packed_bytes =
        static_cast<int64_t>(desc.weights_desc().get_size() + 63) / 64 * 64;
    plain = unset(Matrix(type, options.k, options.n, false));
    plain_transposed = unset(Matrix(type, options.k, options.n, true));
    pack = dnnl::reorder(plain, b);
    pack_transposed = dnnl::reorder(plain_transposed, b);
  }

  // The ranks are the parallelism. OpenMP keeps the number for each thread.
  static void StayOnThisThread() {
    thread_local const bool alone = [] {
      omp_set_num_threads(1);
      return true;
    }();
    static_cast<void>(alone);
  }

  template <size_t n>
  void Execute(const dnnl::primitive& primitive,
               const dnnl_exec_arg_t (&arguments)[n]) {
    dnnl::error::wrap_c_api(
        dnnl_primitive_execute(primitive.get(), stream.get(), n, arguments),
        "execution failed");
    stream.wait();
  }
};

TileProduct::TileProduct(std::unique_ptr<Compiled> compiled)
    : compiled_(std::move(compiled)) {}
TileProduct::TileProduct(TileProduct&&) noexcept = default;
TileProduct& TileProduct::operator=(TileProduct&&) noexcept = default;
TileProduct::~TileProduct() = default;

StatusOr<TileProduct> TileProduct::Create(const Options& options) {
  if (ProductType(options.dtype) != options.dtype) {
    return Unsupported("this machine does not multiply {}",
                       Name(options.dtype));
  }
  auto compiled = std::make_unique<Compiled>();
  compiled->options = options;
  if (options.dtype == DType::kF64) {
    compiled->packed_bytes = (options.k * options.n * 8 + 63) / 64 * 64;
    return TileProduct(std::move(compiled));
  }
  // oneDNN reports errors by exceptions; they end here.
  try {
    compiled->Compile();
  } catch (const dnnl::error& error) {
    return Internal("oneDNN has no product of [{}, {}] and [{}, {}]: {}",
                    options.m, options.k, options.k, options.n, error.what());
  }
  return TileProduct(std::move(compiled));
}

int64_t TileProduct::packed_bytes() const { return compiled_->packed_bytes; }

int64_t TileProduct::working_bytes() const {
  if (compiled_->options.dtype == DType::kF64) return 0;
  return static_cast<int64_t>(compiled_->scratch.get_desc().get_size());
}

Status TileProduct::Pack(const void* b, bool transposed, void* packed) {
  Compiled& x = *compiled_;
  if (x.options.dtype == DType::kF64) {
    const auto* from = static_cast<const double*>(b);
    auto* to = static_cast<double*>(packed);
    for (int64_t i = 0; i < x.options.k; ++i) {
      for (int64_t j = 0; j < x.options.n; ++j) {
        to[i * x.options.n + j] =
            transposed ? from[j * x.options.k + i] : from[i * x.options.n + j];
      }
    }
    return OkStatus();
  }
  Compiled::StayOnThisThread();
  try {
    memory& plain = transposed ? x.plain_transposed : x.plain;
    // The library's interface is not const-correct; inputs are only read.
    plain.set_data_handle(const_cast<void*>(b));
    x.b.set_data_handle(packed);
    x.Execute(transposed ? x.pack_transposed : x.pack,
              {{DNNL_ARG_FROM, plain.get()}, {DNNL_ARG_TO, x.b.get()}});
  } catch (const dnnl::error& error) {
    return Internal("oneDNN could not reorder: {}", error.what());
  }
  return OkStatus();
}

Status TileProduct::Run(const void* a, const void* b, void* c) {
  Compiled& x = *compiled_;
  const Options& o = x.options;
  if (o.dtype == DType::kF64) {
    return Gemm(Stream::Inline(), {.a = {DType::kF64, {o.m, o.k}, a},
                                   .b = {DType::kF64, {o.k, o.n}, b},
                                   .c = {DType::kF64, {o.m, o.n}, c},
                                   .accumulate = o.accumulate});
  }
  Compiled::StayOnThisThread();
  try {
    x.a.set_data_handle(const_cast<void*>(a));
    x.b.set_data_handle(const_cast<void*>(b));
    x.c.set_data_handle(c);
    x.Execute(x.product, {{DNNL_ARG_SRC, x.a.get()},
                          {DNNL_ARG_WEIGHTS, x.b.get()},
                          {DNNL_ARG_DST, x.c.get()},
                          {DNNL_ARG_SCRATCHPAD, x.scratch.get()}});
  } catch (const dnnl::error& error) {
    return Internal("oneDNN could not multiply [{}, {}] by [{}, {}]: {}", o.m,
                    o.k, o.k, o.n, error.what());
  }
  return OkStatus();
}

}  // namespace shardproof
