// A linear layer on a q x q mesh of ranks, x, the weight and y all cut both
// ways, multiplied by SUMMA (scalable universal matrix multiplication).
//
// Contract, for the rank in row i and column j of the mesh (rank = q i + j),
// with t_i, k_j, n_j the BalancedChunks of tokens, inputs and outputs:
//
//     holds     x [t_i, k_j]   w [n_j, k_i]   y [t_i, n_j]   b [n_j] in row 0
//
//     forward   y  = sum over l of x[t_i, k_l] w[n_j, k_l]^T
//                    x from column l, broadcast along its row
//                    w from row l, broadcast along its column
//               y += b, broadcast along its column from row 0
//     backward  dx[t_i, k_l] = sum over j of dy[t_i, n_j] w[n_j, k_l]
//                    w broadcast as before, reduced along the row to column l
//               dw[n_j, k_l] = sum over i of dy[t_i, n_j]^T x[t_i, k_l]
//                    x broadcast as before, reduced along the column to row l
//               db[n_j] = sum over i of dy[t_i, n_j], reduced to row 0
//
// The weight lies as w^T does in y = x w^T: its inputs go with the row of the
// mesh. y lies as x does, so that layers follow one another as they are.
//
// What is sent, with T tokens, K inputs, N outputs of e bytes, all ranks
// together (a rank sends 1/q^2 of it on average; a broadcast to q ranks or a
// reduction of n bytes sends (q - 1) n, or direct up to q n - n/q to reduce):
//
//     forward   (q - 1) (T K + K N) e          + (q - 1) N e for the bias
//     backward  (q - 1) (2 T K + 2 K N) e      + (q - 1) N e
//
// One dimension, p = q^2 ranks (row_parallel_linear, column_parallel_linear),
// sends 2 (p - 1) T N e in one pass and nothing in the other, or 2 (p - 1) T K
// e in one: no weight travels there. With K = N = h, both passes, two
// dimensions send less where
//
//     3 (T + h) < 2 (q + 1) T,     h < (2 q - 1) T / 3
//
// so on 4 ranks only where tokens outnumber features. What two dimensions save
// for certain is memory: x and y too are 1/p on every rank, against all of x or
// y.
//
// Xu et al. give log(p) / (2 sqrt(p)) (7 b s h + 12 h^2) for the forward pass
// of a transformer block: the time of q broadcasts of blocks of 1/q^2, each of
// them log2(q) transfers deep, log2(q)/q (T K + K N). Colossal-AI's
// documentation gives 6 (q - 1)/q of a matrix for both passes: blocks that go
// around a ring whole, one link after the other. Both are times along a path. A
// rank sends (q - 1)/q^2 (T K + K N) on average, six times (q - 1)/q^2 of a
// matrix for both passes. Theirs is 3 times the forward pass for the backward,
// which makes the forward again; here it is twice.
//
// A panel is multiplied when it has arrived: sending and multiplying do not
// overlap. bf16 and f16 are rounded after each of the q steps, as they are
// where torch.matmul is added to a tensor. Rejected: f32 sums, which would take
// a y of twice the size, and panels of f32 beside those that arrive.
//
//     SP_ASSIGN_OR_RETURN(
//         TensorParallel2dLinear layer,
//         TensorParallel2dLinear::Create(comm, {.tokens = 512, .in = 1024,
//                                               .out = 4096}));
//
// Sources: van de Geijn and Watts, SUMMA, Concurrency: Practice and Experience
// 9(4), 1997; Xu et al., Optimus, arXiv:2104.05343, section 3.
#ifndef SHARDPROOF_LAYERS_TENSOR_PARALLEL_2D_TENSOR_PARALLEL_2D_H_
#define SHARDPROOF_LAYERS_TENSOR_PARALLEL_2D_TENSOR_PARALLEL_2D_H_

#include <cstdint>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/tensor_parallel/mesh_linear.h"
#include "reference/status.h"

namespace shardproof {

// What `rank` of side^2 holds.
MeshLinearBlocks BlocksIn2d(const MeshLinearConfig& config, int side, int rank);

class TensorParallel2dLinear {
 public:
  // Collective; the same error on every rank: kInvalidArgument for a negative
  // size, where ranks differ, or where their number is no square; kUnsupported
  // for the type; kOutOfMemory. Asks for one panel of x and one of w, each as
  // large as this rank's block or a neighbour's, and n_j elements for the bias;
  // for nothing on one rank.
  static StatusOr<TensorParallel2dLinear> Create(
      const Communicator& comm, const MeshLinearConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Collective. Errors are those of the transport.
  Status Forward(const MeshLinearForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  // Reads x and w again: nothing is kept from Forward.
  Status Backward(const MeshLinearBackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  const MeshLinearBlocks& blocks() const { return blocks_; }
  // The ranks of this rank's row, in order of their columns, and those of its
  // column, in order of their rows.
  const Communicator& row() const { return row_; }
  const Communicator& column() const { return column_; }

 private:
  TensorParallel2dLinear() = default;
  int64_t InputsOf(int step) const {
    return BalancedChunk(config_.in, side_, step).count;
  }
  Status InputGrad(const MeshLinearBackwardArgs& args,
                   const Stream& stream) const;
  Status WeightGrad(const MeshLinearBackwardArgs& args,
                    const Stream& stream) const;

  MeshLinearConfig config_;
  int side_ = 1;
  MeshLinearBlocks blocks_;
  Communicator row_, column_;
  CollectiveFamily collectives_;
  // A panel of x or a term of dx; a panel of w or a term of dw; b or a term of
  // db.
  Buffer x_panel_, w_panel_, bias_;
};

// What one pass sends on `ranks` ranks, a square. The family must have costs.
Cost TensorParallel2dForwardCost(int ranks, const MeshLinearConfig& config,
                                 const CollectiveFamily& collectives);
Cost TensorParallel2dBackwardCost(int ranks, const MeshLinearConfig& config,
                                  const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TENSOR_PARALLEL_2D_TENSOR_PARALLEL_2D_H_
