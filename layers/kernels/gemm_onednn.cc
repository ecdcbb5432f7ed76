#include "layers/kernels/gemm_f32.h"

#include <omp.h>

#include <array>
#include <dnnl.hpp>
#include <map>
#include <unordered_map>

namespace shardproof::kernels {
namespace {

using dnnl::memory;

// Everything that a compiled product depends on.
using Key = std::array<int64_t, 11>;

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
  std::map<Key, dnnl::matmul> products;
};

Context& ThreadContext() {
  thread_local Context context;
  return context;
}

memory::desc Describe(int64_t rows, int64_t columns, int64_t row,
                      int64_t column) {
  return memory::desc({rows, columns}, memory::data_type::f32,
                      memory::dims{row, column});
}

}  // namespace

Status GemmF32(int64_t m, int64_t n, int64_t k, Strided<const float> a,
               Strided<const float> b, Strided<float> c, bool accumulate,
               const float* bias) {
  // oneDNN reports errors by exceptions; they end here.
  try {
    Context& context = ThreadContext();
    const memory::desc a_desc = Describe(m, k, a.row, a.column);
    const memory::desc b_desc = Describe(k, n, b.row, b.column);
    const memory::desc c_desc = Describe(m, n, c.row, c.column);
    const memory::desc bias_desc = Describe(1, n, n, 1);
    const Key key = {
        m,        n,     k,        a.row,      a.column,       b.row,
        b.column, c.row, c.column, accumulate, bias != nullptr};
    auto found = context.products.find(key);
    if (found == context.products.end()) {
      dnnl::primitive_attr attributes;
      if (accumulate) {
        dnnl::post_ops sum;
        sum.append_sum(1.0f);
        attributes.set_post_ops(sum);
      }
      const dnnl::matmul::desc desc =
          bias != nullptr
              ? dnnl::matmul::desc(a_desc, b_desc, bias_desc, c_desc)
              : dnnl::matmul::desc(a_desc, b_desc, c_desc);
      found = context.products
                  .emplace(key, dnnl::matmul(dnnl::matmul::primitive_desc(
                                    desc, attributes, context.engine)))
                  .first;
    }
    // The library's interface is not const-correct; inputs are only read.
    std::unordered_map<int, memory> arguments = {
        {DNNL_ARG_SRC,
         memory(a_desc, context.engine, const_cast<float*>(a.data))},
        {DNNL_ARG_WEIGHTS,
         memory(b_desc, context.engine, const_cast<float*>(b.data))},
        {DNNL_ARG_DST, memory(c_desc, context.engine, c.data)}};
    if (bias != nullptr) {
      arguments.emplace(DNNL_ARG_BIAS, memory(bias_desc, context.engine,
                                              const_cast<float*>(bias)));
    }
    found->second.execute(context.stream, arguments);
    context.stream.wait();
  } catch (const dnnl::error& error) {
    return Internal("oneDNN could not multiply [{}, {}] by [{}, {}]: {}", m, k,
                    k, n, error.what());
  }
  return Status();
}

}  // namespace shardproof::kernels
