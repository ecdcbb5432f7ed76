// What linear layers on a mesh of ranks have in common: x, the weight and y are
// all cut both ways, so that no rank holds a whole row or column of any.
//
//     y = x w^T + b      x [tokens, in], w [out, in], b [out], y [tokens, out]
//
// A rank holds a MeshBlock of each: rows times columns of the whole, cut by
// BalancedChunk, so that any size works and a block may be empty. The blocks of
// a rank and how they are multiplied are what the layers differ in; they share
// the description, the arguments, the checks and the arithmetic of sums.
//
//     const MeshLinearBlocks own = layer.blocks();
//     CutBlock(own.w, config.in, config.dtype, whole_w, my_w);
//     layer.Forward({my_x, my_w, my_b, my_y});
#ifndef SHARDPROOF_LAYERS_TENSOR_PARALLEL_MESH_LINEAR_H_
#define SHARDPROOF_LAYERS_TENSOR_PARALLEL_MESH_LINEAR_H_

#include <cstdint>
#include <string>

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/traffic.h"
#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// Sizes of the whole layer, equal on all ranks. Any of them may be smaller than
// a side of the mesh, or 0.
struct MeshLinearConfig {
  int64_t tokens = 0;
  int64_t in = 0;
  int64_t out = 0;
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  bool bias = false;
};

// Rows and columns of a matrix that one rank holds, row-major and packed.
struct MeshBlock {
  Chunk rows, columns;
  int64_t count() const { return rows.count * columns.count; }
};

// What one rank holds. dx, dw and db lie as x, w and b; dy as y.
struct MeshLinearBlocks {
  MeshBlock x, w, y;
  Chunk b;  // Empty on ranks that hold none of it.
};

// This rank's blocks. Empty ones may be null. Nothing may overlap.
struct MeshLinearForwardArgs {
  const void* x = nullptr;
  const void* w = nullptr;
  const void* b = nullptr;
  void* y = nullptr;
};
struct MeshLinearBackwardArgs {
  const void* x = nullptr;
  const void* w = nullptr;
  const void* dy = nullptr;
  void* dx = nullptr;
  void* dw = nullptr;
  void* db = nullptr;
};

// Copies `block` out of a whole matrix of `columns` columns.
void CutBlock(const MeshBlock& block, int64_t columns, DType dtype,
              const void* whole, void* part);

// The q of q x q == ranks, and of q x q x q == ranks; 0 where there is none.
int SquareSide(int ranks);
int CubeSide(int ranks);

// "bf16 linear layer of 33 tokens, 50 to 40, bias, KIND": for messages.
std::string MeshLinearText(const MeshLinearConfig& config,
                           const std::string& kind);
// Collective; the same error on every rank. kInvalidArgument for a negative
// size or where ranks differ in MeshLinearText, kUnsupported for the type.
Status CheckMeshLinear(const Communicator& comm, const MeshLinearConfig& config,
                       const std::string& kind);

// Groups of ranks that do the same thing at the same time: the slowest is on
// the critical path, and all of them send.
void AddBeside(Cost& all, const Cost& group);

// Of a product of `terms` terms that is accumulated in `steps` products, each
// of which adds to what is stored.
//
// f32 and f64 are stored as they are accumulated: in whatever order, it is one
// sum of `terms` products, which Arithmetic::For bounds. bf16 and f16 are
// rounded to after every step, steps - 1 times before the result is; and a
// stored sum may pass through the accumulation of every later term, at most
// `terms` of them.
Arithmetic AccumulatedInSteps(DType dtype, int steps, int64_t terms);
// Of a sum over `outer` groups of sums over the ranks of a group, which are
// rounded as `inner` says and stored. `outer` sums add and round at most as
// often as a ring: between groups, outer - 1 times.
Arithmetic SummedTwice(const Arithmetic& inner, int outer);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TENSOR_PARALLEL_MESH_LINEAR_H_
