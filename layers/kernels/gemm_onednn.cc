#include "layers/kernels/gemm_onednn.h"

#include <omp.h>

#include <array>
#include <dnnl.hpp>
#include <map>

namespace shardproof::kernels {
namespace {

using dnnl::memory;

// Everything that a compiled product depends on.
using Key = std::array<int64_t, 12>;

// A compiled product, and handles of its operands that are pointed at the
// caller's memory in each call.
struct Product {
  dnnl::matmul primitive;
  memory a, b, c, bias;
};

// oneDNN's objects belong to one thread: ranks are threads, and a stream that
// several share would serialise them. Compiled products are kept, so that the
// steady state compiles nothing.
struct Context {
  Context() : engine(dnnl::engine::kind::cpu, 0), stream(engine) {
    // The ranks are the parallelism.
    omp_set_num_threads(1);
  }
  dnnl::engine engine;
  dnnl::stream stream;
  std::map<Key, Product> products;
};

Context& ThreadContext() {
  thread_local Context context;
  return context;
}

memory::data_type TypeOf(DType dtype) {
  return dtype == DType::kBF16 ? memory::data_type::bf16
                               : memory::data_type::f32;
}

memory::desc Describe(DType dtype, int64_t rows, int64_t columns, int64_t row,
                      int64_t column) {
  return memory::desc({rows, columns}, TypeOf(dtype),
                      memory::dims{row, column});
}

Product Compile(const dnnl::engine& engine, const memory::desc& a,
                const memory::desc& b, const memory::desc& c, bool accumulate,
                const memory::desc* bias) {
  dnnl::primitive_attr attributes;
  if (accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  const dnnl::matmul::desc desc = bias != nullptr
                                      ? dnnl::matmul::desc(a, b, *bias, c)
                                      : dnnl::matmul::desc(a, b, c);
  const auto unset = [&](const memory::desc& d) {
    return memory(d, engine, DNNL_MEMORY_NONE);
  };
  return {dnnl::matmul(dnnl::matmul::primitive_desc(desc, attributes, engine)),
          unset(a), unset(b), unset(c),
          bias != nullptr ? unset(*bias) : memory()};
}

}  // namespace

bool HasNativeProduct(DType dtype) {
  if (dtype != DType::kBF16) return dtype == DType::kF32;
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  return isa == dnnl::cpu_isa::avx512_core_bf16 ||
         isa == dnnl::cpu_isa::avx512_core_amx;
}

Status GemmOneDnn(DType dtype, int64_t m, int64_t n, int64_t k,
                  Strided<const void*> a, Strided<const void*> b,
                  Strided<void*> c, bool accumulate, const void* bias) {
  // oneDNN reports errors by exceptions; they end here.
  try {
    Context& context = ThreadContext();
    const Key key = {static_cast<int64_t>(dtype),
                     m,
                     n,
                     k,
                     a.row,
                     a.column,
                     b.row,
                     b.column,
                     c.row,
                     c.column,
                     accumulate,
                     bias != nullptr};
    auto found = context.products.find(key);
    if (found == context.products.end()) {
      const memory::desc bias_desc = Describe(dtype, 1, n, n, 1);
      found = context.products
                  .emplace(key, Compile(context.engine,
                                        Describe(dtype, m, k, a.row, a.column),
                                        Describe(dtype, k, n, b.row, b.column),
                                        Describe(dtype, m, n, c.row, c.column),
                                        accumulate,
                                        bias != nullptr ? &bias_desc : nullptr))
                  .first;
    }
    Product& product = found->second;
    // The library's interface is not const-correct; inputs are only read.
    product.a.set_data_handle(const_cast<void*>(a.data));
    product.b.set_data_handle(const_cast<void*>(b.data));
    product.c.set_data_handle(c.data);
    std::array<dnnl_exec_arg_t, 4> arguments = {
        {{DNNL_ARG_SRC, product.a.get()},
         {DNNL_ARG_WEIGHTS, product.b.get()},
         {DNNL_ARG_DST, product.c.get()},
         {DNNL_ARG_BIAS, nullptr}}};
    if (bias != nullptr) {
      product.bias.set_data_handle(const_cast<void*>(bias));
      arguments[3].memory = product.bias.get();
    }
    dnnl::error::wrap_c_api(
        dnnl_primitive_execute(product.primitive.get(), context.stream.get(),
                               bias != nullptr ? 4 : 3, arguments.data()),
        "execution failed");
    context.stream.wait();
  } catch (const dnnl::error& error) {
    return Internal("oneDNN could not multiply [{}, {}] by [{}, {}]: {}", m, k,
                    k, n, error.what());
  }
  return Status();
}

}  // namespace shardproof::kernels
