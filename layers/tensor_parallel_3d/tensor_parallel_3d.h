// A linear layer on a q x q x q cube of ranks: x, the weight and y each lie on
// a face of the cube and are cut over the third direction.
//
// Contract, for the rank at (i, j, l) of the directions tokens, in and out
// (rank = q^2 i + q j + l), with t_i, k_j, n_l the BalancedChunks of tokens,
// inputs and outputs, and t_il chunk l of t_i, and so on:
//
//     holds     x [t_il, k_j]    w [n_li, k_j]    y [t_ij, n_l]
//               b [n_li], the same for every j
//
//     forward   x[t_i, k_j]          all_gather along out
//               w[n_l, k_j]          all_gather along tokens
//               y[t_ij, n_l]         reduce_scatter along in of x w^T
//               b[n_l]               all_gather along tokens; y += b
//     backward  dy[t_i, n_l]         all_gather along in
//               dx[t_il, k_j]        reduce_scatter along out of dy w
//               dw[n_li, k_j]        reduce_scatter along tokens of dy^T x
//               db[n_li]             reduce_scatter along tokens of sums of dy
//
// Blocks are cut over the third direction by rows, so that what is gathered
// lies as it is multiplied. y lies as x does with the directions in and out
// exchanged: the next layer is made `swapped` (rank = q^2 i + q l + j), the one
// after it not.
//
// What is sent, with T tokens, K inputs, N outputs of e bytes, all ranks
// together (a rank sends 1/q^3 of it on average; each all_gather and
// reduce_scatter sends (q - 1) times the matrix):
//
//     forward   (q - 1) (T K + K N + T N) e    + q (q - 1) N e for the bias
//     backward  (q - 1) (T N + T K + K N) e    + q (q - 1) N e
//
// One dimension with p = q^3 ranks sends 2 (p - 1) T N e or 2 (p - 1) T K e in
// both passes together. With K = N = h, this sends less where
//
//     2 (2 T + h) < 2 (q^2 + q + 1) T,     h < (q^2 + q - 1) T
//
// on 8 ranks for h < 5 T. A rank sends 6 (q - 1)/q^3 of a matrix where all
// three are of one size, O(p^(-2/3)) as the papers have it, and what
// Colossal-AI's documentation gives. That is with x and w as forward gathered
// them; gathered again, which would keep 1/p of them from pass to pass instead
// of 1/q^2, backward sends (q - 1) (T K + K N) e more.
//
//     SP_ASSIGN_OR_RETURN(
//         TensorParallel3dLinear layer,
//         TensorParallel3dLinear::Create(
//             comm, {.linear = {.tokens = 512, .in = 1024, .out = 4096}}));
//
// Sources: Agarwal et al., A three-dimensional approach to parallel matrix
// multiplication, IBM J. Research and Development 39(5), 1995; Bian et al.,
// arXiv:2105.14450. A bias lies as the weight does: a rank
// needs the same rows of both.
#ifndef SHARDPROOF_LAYERS_TENSOR_PARALLEL_3D_TENSOR_PARALLEL_3D_H_
#define SHARDPROOF_LAYERS_TENSOR_PARALLEL_3D_TENSOR_PARALLEL_3D_H_

#include <cstdint>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/tensor_parallel/mesh_linear.h"
#include "reference/status.h"

namespace shardproof {

struct TensorParallel3dConfig {
  MeshLinearConfig linear = {};
  bool swapped = false;  // The directions in and out exchanged.
};

// What `rank` of side^3 holds.
MeshLinearBlocks BlocksIn3d(const TensorParallel3dConfig& config, int side,
                            int rank);

class TensorParallel3dLinear {
 public:
  // Collective; the same error on every rank: kInvalidArgument for a negative
  // size, where ranks differ, or where their number is no cube; kUnsupported
  // for the type; kOutOfMemory. Asks for x[t_i, k_j], twice w[n_l, k_j], y[t_i,
  // n_l] and b[n_l]; for nothing on one rank.
  static StatusOr<TensorParallel3dLinear> Create(
      const Communicator& comm, const TensorParallel3dConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Collective. Errors are those of the transport.
  Status Forward(const MeshLinearForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  // Of the last Forward, once: the gathered x is used up. kInvalidArgument for
  // another, on one rank too.
  Status Backward(const MeshLinearBackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  const MeshLinearBlocks& blocks() const { return blocks_; }
  // The ranks that differ from this one in one direction, in its order.
  const Communicator& along_tokens() const { return along_tokens_; }
  const Communicator& along_in() const { return along_in_; }
  const Communicator& along_out() const { return along_out_; }

 private:
  TensorParallel3dLinear() = default;
  Status AllocateWorkspaces(const Communicator& comm);
  Status RunForward(const MeshLinearForwardArgs& args,
                    const Stream& stream) const;
  // Elements of the parts of each rank of the direction in which it is cut.
  struct Counts {
    std::vector<int64_t> x, w, y, b;
  };

  TensorParallel3dConfig config_;
  int side_ = 1;
  MeshLinearBlocks blocks_;
  Counts counts_;
  int64_t tokens_ = 0, in_ = 0, out_ = 0;  // |t_i|, |k_j|, |n_l|.
  Communicator along_tokens_, along_in_, along_out_;
  CollectiveFamily collectives_;
  // x, then this rank's term of dx; w; its term of dw; its term of y, then dy;
  // b, then its term of db.
  Buffer x_, w_, w_term_, y_, bias_;
  // There is what a Backward needs, as in x_ and w_.
  mutable bool forward_done_ = false;
};

// What one pass sends on `ranks` ranks, a cube. The family must have costs.
Cost TensorParallel3dForwardCost(int ranks,
                                 const TensorParallel3dConfig& config,
                                 const CollectiveFamily& collectives);
Cost TensorParallel3dBackwardCost(int ranks,
                                  const TensorParallel3dConfig& config,
                                  const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TENSOR_PARALLEL_3D_TENSOR_PARALLEL_3D_H_
