// The pairing of data_parallel_inference: a linear layer on rows that are
// cut over the ranks.
#include "tools/harness/case.h"

#include <cstring>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/data_parallel_inference/data_parallel_inference.h"
#include "layers/kernels/gemm.h"
#include "layers/pairing/layer_case.h"
#include "reference/linear.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t in = 0;
  int64_t out = 0;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

DataParallelInferenceConfig ConfigOf(const P& p) {
  return {.rows = p.rows, .in = p.in, .out = p.out, .dtype = p.dtype};
}

Tensors TensorsOf(const P& p) {
  const ExactLinearInputs exact =
      *ExactLinear(p.dtype, p.dtype, p.rows, p.in, p.out);
  return {
      Input("x", p.dtype, {p.rows, p.in}, Replicated())
          .Data({.exact = exact.x}),
      Input("w", p.dtype, {p.out, p.in}, Replicated()).Data({.exact = exact.w}),
      Input("b", p.dtype, {p.out}, Replicated()).Data({.exact = exact.b}),
      Output("y", p.dtype, {p.rows, p.out}, Replicated()).SampleDimension(0)};
}

StatusOr<DenseOutputs> Expected(const P&, const Arithmetic& a, const Inputs& in,
                                const Sample& sample) {
  DenseOutputs out;
  out["y"] = LinearForward({in.Global("x"), in.Global("w"), in.Global("b")}, a,
                           RowsOf(sample, "y"))
                 .values;
  return out;
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  SP_ASSIGN_OR_RETURN(
      DataParallelInference made,
      DataParallelInference::Create(context.comm(), ConfigOf(p), collectives));
  return Operation([inference = std::move(made), p, &context] {
    const RankContext& c = context;
    return inference.Run(
        c.in("x").data, c.out("y").data,
        [&](int64_t rows, const void* x, void* y) {
          return Gemm(c.stream(), {.a = {p.dtype, {rows, p.in}, x},
                                   .b = c.in("w"),
                                   .transpose_b = true,
                                   .c = {p.dtype, {rows, p.out}, y},
                                   .bias = c.in("b").data});
        },
        c.stream());
  });
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  return DataParallelInferenceCost(p.ranks, ConfigOf(p), collectives);
}

// Rows are computed by one rank and sent by nobody: nothing is summed.
Arithmetic LocalArithmetic(const P& p) { return Arithmetic::For(p.dtype); }

std::vector<Variant<P>> Variants() {
  std::vector<Variant<P>> variants = OverCollectives<P>(Bind, CostOf);
  for (Variant<P>& v : variants) v.arithmetic = LocalArithmetic;
  return variants;
}

// --- Planted bugs ------------------------------------------------------------

// Every rank is given rows / ranks rows; what is left over is lost.
Status DropTheRest(const P& p, const RankContext& c) {
  const TensorView y = c.out("y");
  const int64_t kept = p.rows / p.ranks * p.ranks * p.out;
  std::memset(At(y.data, p.dtype, kept), 0,
              static_cast<size_t>((p.rows * p.out - kept) * SizeOf(p.dtype)));
  return OkStatus();
}

// Rank r takes rows r, r + d, ... and the results are concatenated as if they
// had been contiguous.
StatusOr<Operation> BindStrided(const P& p, RankContext& context) {
  SP_ASSIGN_OR_RETURN(DataParallelInference made,
                      DataParallelInference::Create(context.comm(), ConfigOf(p),
                                                    kAutoCollectives));
  return Operation([inference = std::move(made), p, &context] {
    const RankContext& c = context;
    return inference.Run(
        c.in("x").data, c.out("y").data,
        [&](int64_t rows, const void*, void* y) -> Status {
          for (int64_t i = 0; i < rows; ++i) {
            const int64_t row = c.comm().rank() + i * p.ranks;
            SP_RETURN_IF_ERROR(
                Gemm(c.stream(),
                     {.a = {p.dtype,
                            {1, p.in},
                            At(c.in("x").data, p.dtype, row * p.in)},
                      .b = c.in("w"),
                      .transpose_b = true,
                      .c = {p.dtype, {1, p.out}, At(y, p.dtype, i * p.out)},
                      .bias = c.in("b").data}));
          }
          return OkStatus();
        },
        c.stream());
  });
}

bool Several(const P& p) { return p.ranks >= 2 && p.rows > 1; }
bool Uneven(const P& p) { return Several(p) && p.rows % p.ranks != 0; }

double Flops(const P& p) {
  return 2.0 * static_cast<double>(p.rows) * static_cast<double>(p.in) *
         static_cast<double>(p.out);
}

const RegisterCase kDataParallelInference(Case<P>{
    .name = "layers/data_parallel_inference",
    .what =
        "a model on a batch that is cut over the ranks: gathers the results",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32, DType::kBF16}),
             Axis("rows", &P::rows, {33, 3, 0}).Bench({512}),
             Axis("in", &P::in, {40}).Bench({1024}),
             Axis("out", &P::out, {26}).Bench({1024})},
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = Variants(),
    .mutants =
        {Planted<P>("results_not_gathered", Bind, kGatheringNothing, Several),
         Planted<P>("results_gathered_backwards", Bind, kGatheringBackwards,
                    Several),
         Spoiled<P>("uneven_rest_dropped", Bind, DropTheRest, Uneven),
         {.name = "strided_rows_concatenated",
          .bind = BindStrided,
          // With a row for each rank, they are the right ones.
          .applies =
              [](const P& p) { return Several(p) && p.rows > p.ranks; }}},
    .flops = Flops,
    .floor = [](const P& p) {
      return Floor{
          .wire_bytes = (1.0 - 1.0 / p.ranks) *
                        static_cast<double>(p.rows * p.out * SizeOf(p.dtype)),
          .flops = Flops(p) / p.ranks};
    }});

}  // namespace
}  // namespace shardproof
