// Points of ../cross_entropy.h: the part of one of several ranks that the vocabulary is cut over.
#include "layers/kernels/cross_entropy.h"

#include "layers/kernels/cuda/benchmark/families.h"

namespace shardproof::cuda {
namespace {

KernelPoint PointOf(const CrossEntropyShape& shape, const char* name) {
  return {.name = name,
          .dtype = shape.dtype,
          .params = RowParams(shape.dtype, shape.tokens, shape.columns)};
}
Operand Logits(const CrossEntropyShape& shape) {
  return Random("logits", shape.dtype, shape.tokens * shape.columns, 8);
}
Operand Targets(const CrossEntropyShape& shape) {
  return RandomIndices("targets", shape.tokens, shape.vocabulary);
}

KernelPoint Local(const CrossEntropyShape& shape) {
  KernelPoint point = PointOf(shape, "cross_entropy_local");
  const int64_t tokens = shape.tokens, logits = tokens * shape.columns;
  // The second half is of smoothing, which there is none of.
  Operand sums = Output("sums", DType::kF32, 2 * tokens, 64,
                        static_cast<double>(shape.columns) / 8);
  sums.ranges = {{0, tokens}};
  point.operands = {Logits(shape), Targets(shape),
                    ExactOutput("local_max", DType::kF32, tokens), sums};
  point.run = [shape](void* const* at) {
    return CrossEntropyLocal(shape, at[0], static_cast<int64_t*>(at[1]), at[2],
                             at[3]);
  };
  point.kernels = {{.name = "CrossEntropyLocal",
                    .bytes = Sum(logits * SizeOf(shape.dtype), tokens * kId,
                                 3 * tokens * kWide)}};
  return point;
}

KernelPoint Rescale(const CrossEntropyShape& shape) {
  KernelPoint point = PointOf(shape, "cross_entropy_rescale");
  const int64_t tokens = shape.tokens;
  point.operands = {
      Logits(shape), Targets(shape),
      RandomBetween("local_max", DType::kF32, tokens, 7, 8),
      RandomBetween("max", DType::kF32, tokens, 8, 9),
      InPlace(RandomBetween("sums", DType::kF32, 2 * tokens, 1, 100),
              Output("", DType::kF32, 0, 64, 100))};
  point.run = [shape](void* const* at) {
    return CrossEntropyRescale(shape, at[0], static_cast<int64_t*>(at[1]),
                               at[2], at[3], at[4]);
  };
  // A token's logit too, out of its row.
  point.kernels = {
      {.name = "CrossEntropyRescale",
       .bytes = Sum(tokens * (kId + SizeOf(shape.dtype)), 6 * tokens * kWide)}};
  return point;
}

KernelPoint Loss(const CrossEntropyShape& shape) {
  KernelPoint point = PointOf(shape, "cross_entropy_loss");
  const int64_t tokens = shape.tokens;
  point.operands = {
      Targets(shape),
      InPlace(RandomBetween("sums", DType::kF32, 2 * tokens, 1, 100),
              Output("", DType::kF32, 0, 64, 100)),
      Output("loss", DType::kF32, tokens, 64, 100)};
  point.run = [shape](void* const* at) {
    return CrossEntropyLoss(shape, static_cast<int64_t*>(at[0]), at[1], at[2])
        .status();
  };
  point.kernels = {{.name = "CrossEntropyLoss",
                    .bytes = Sum(tokens * kId, 4 * tokens * kWide)}};
  return point;
}

KernelPoint Gradient(const CrossEntropyShape& shape) {
  KernelPoint point = PointOf(shape, "cross_entropy_gradient");
  const int64_t tokens = shape.tokens, logits = tokens * shape.columns;
  point.operands = {Logits(shape),
                    Targets(shape),
                    RandomBetween("max", DType::kF32, tokens, 8, 9),
                    RandomBetween("inverse_sums", DType::kF32, tokens, 0, 1),
                    RandomBetween("upstream", DType::kF32, 1, 1, 2),
                    Output("dlogits", shape.dtype, logits, 64, 2)};
  point.run = [shape](void* const* at) {
    return CrossEntropyGradient(shape, at[0], static_cast<int64_t*>(at[1]),
                                at[2], at[3], {.upstream = at[4]}, at[5]);
  };
  point.kernels = {{.name = "CrossEntropyGradient",
                    .bytes = Sum(2 * logits * SizeOf(shape.dtype), tokens * kId,
                                 2 * tokens * kWide)}};
  return point;
}

const KernelPoints kPoints([](const ModelShape& m,
                              std::vector<KernelPoint>& points) {
  for (const DType dtype : kMeasuredTypes) {
    const CrossEntropyShape shape = {.dtype = dtype,
                                     .tokens = m.tokens,
                                     .columns = m.vocabulary,
                                     .valid = m.vocabulary,
                                     .vocabulary = m.vocabulary};
    points.push_back(Local(shape));
    points.push_back(Rescale(shape));
    points.push_back(Gradient(shape));
  }
  // Of one type.
  points.push_back(Loss({.dtype = DType::kF32,
                         .tokens = m.tokens,
                         .columns = m.vocabulary,
                         .valid = m.vocabulary,
                         .vocabulary = m.vocabulary}));
});

}  // namespace
}  // namespace shardproof::cuda
