#include "layers/tensor_parallel/mesh_linear.h"

#include <algorithm>
#include <cstring>

#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {

void CutBlock(const MeshBlock& block, int64_t columns, DType dtype,
              const void* whole, void* part) {
  const int64_t row = block.columns.count;
  if (row == 0) return;
  for (int64_t i = 0; i < block.rows.count; ++i) {
    const int64_t from = (block.rows.begin + i) * columns + block.columns.begin;
    std::memcpy(At(part, dtype, i * row), At(whole, dtype, from),
                static_cast<size_t>(row * SizeOf(dtype)));
  }
}

int SquareSide(int ranks) {
  int q = 1;
  while (q < ranks / q) ++q;
  return q * q == ranks ? q : 0;
}

int CubeSide(int ranks) {
  int q = 1;
  while (q * q < ranks / q) ++q;
  return q * q * q == ranks ? q : 0;
}

std::string MeshLinearText(const MeshLinearConfig& config,
                           const std::string& kind) {
  return fmt::format("{} linear layer of {} tokens, {} to {}{}, {}",
                     Name(config.dtype), config.tokens, config.in, config.out,
                     config.bias ? ", bias" : "", kind);
}

Status CheckMeshLinear(const Communicator& comm, const MeshLinearConfig& config,
                       const std::string& kind) {
  const std::string text = MeshLinearText(config, kind);
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  if (config.tokens < 0 || config.in < 0 || config.out < 0) {
    return InvalidArgument("{}: a size is negative", text);
  }
  return CheckLayerType(config.dtype).WithContext(text);
}

void AddBeside(Cost& all, const Cost& group) {
  all.alpha_count = std::max(all.alpha_count, group.alpha_count);
  all.beta_bytes = std::max(all.beta_bytes, group.beta_bytes);
  all.gamma_bytes = std::max(all.gamma_bytes, group.gamma_bytes);
  all.total += group.total;
}

Arithmetic AccumulatedInSteps(DType dtype, int steps, int64_t terms) {
  if (steps <= 1 || Accumulator(dtype) == dtype) return Arithmetic::For(dtype);
  Arithmetic a = Arithmetic::For(dtype, steps);
  a.wire_roundings = steps - 1;
  a.depth = static_cast<int>(std::max<int64_t>(steps - 1, terms));
  return a;
}

Arithmetic SummedTwice(const Arithmetic& inner, int outer) {
  Arithmetic a = inner;
  a.partials = std::max(1, inner.partials) * outer;
  a.wire_roundings = inner.WireRoundings() + outer - 1;
  a.depth = inner.Depth() + outer - 1;
  return a;
}

}  // namespace shardproof
