// A linear layer on a q x q x d mesh of ranks: tensor_parallel_2d on each of d
// depths, which have tokens of their own and the same weight (Tesseract).
//
// Contract, for the rank in row i and column j at depth k (rank = q^2 k + q i +
// j), with t_h BalancedChunk(tokens, d q, h), h = q k + i, and k_j, n_j those
// of inputs and outputs over q:
//
//     holds     x [t_h, k_j]   y [t_h, n_j]   w [n_j, k_i]   b [n_j] in row 0
//               the weight and the bias are the same at every depth
//
//     forward   tensor_parallel_2d on each depth; nothing between depths
//     backward  the same, and dw and db summed over depths (all_reduce)
//
// d = 1 is tensor_parallel_2d; q = 1 is data parallelism. The paper has d <= q;
// any d works.
//
// What is sent, with T tokens, K inputs, N outputs of e bytes, all ranks
// together (a rank sends 1/(d q^2) of it on average; direct reductions as in
// tensor_parallel_2d):
//
//     forward   (q - 1) (T K + d K N) e        + (q - 1) d N e for the bias
//     backward  (q - 1) (2 T K + 2 d K N) e    + (q - 1) d N e
//               + 2 (d - 1) (K N + N) e        between depths
//
// One dimension with p = d q^2 ranks sends 2 (p - 1) T N e or 2 (p - 1) T K e
// in both passes together. With K = N = h, this sends less where
//
//     (3 (q - 1) d + 2 (d - 1)) h < (2 (d q^2 - 1) - 3 (q - 1)) T
//
// on 2 x 2 x 2 ranks for 8 h < 11 T, where 2 x 2 ranks want h < T. Two
// dimensions of the same q send as much for x and dx, and 1/d of it for the
// weight: depth buys memory and time for tokens with copies of the weight.
//
// The paper compares numbers of transmissions, 2 p^(2/3) at d = q: the
// broadcasts of one depth (q rows and q columns in q steps), of whatever size.
// Colossal-AI's documentation gives 3 (q - 1) (d + 1) / (d q) of a matrix for
// both passes: blocks that go around a ring whole, one link after the other. A
// rank sends 1/q of that on average, and 2 (d - 1)/(d q^2) of the weight
// between depths, which both leave out.
//
//     SP_ASSIGN_OR_RETURN(
//         TensorParallel2p5dLinear layer,
//         TensorParallel2p5dLinear::Create(
//             comm, {.linear = {.tokens = 512, .in = 1024, .out = 4096},
//                    .depth = 2}));
//
// Source: Wang et al., Tesseract, arXiv:2105.14500.
#ifndef SHARDPROOF_LAYERS_TENSOR_PARALLEL_2_5D_TENSOR_PARALLEL_2_5D_H_
#define SHARDPROOF_LAYERS_TENSOR_PARALLEL_2_5D_TENSOR_PARALLEL_2_5D_H_

#include <utility>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/tensor_parallel/mesh_linear.h"
#include "layers/tensor_parallel_2d/tensor_parallel_2d.h"
#include "reference/status.h"

namespace shardproof {

struct TensorParallel2p5dConfig {
  MeshLinearConfig linear = {};
  int depth = 1;  // d.
};

// What `rank` of side^2 depth holds.
MeshLinearBlocks BlocksIn2p5d(const TensorParallel2p5dConfig& config, int side,
                              int rank);

class TensorParallel2p5dLinear {
 public:
  // Collective; the same error on every rank: kInvalidArgument for a negative
  // size, a depth below 1, where ranks differ, or where their number is no
  // depth times a square; kUnsupported for the type; kOutOfMemory. Memory as
  // tensor_parallel_2d.
  static StatusOr<TensorParallel2p5dLinear> Create(
      const Communicator& comm, const TensorParallel2p5dConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Collective. Errors are those of the transport.
  Status Forward(const MeshLinearForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  // Reads x and w again: nothing is kept from Forward.
  Status Backward(const MeshLinearBackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  const MeshLinearBlocks& blocks() const { return blocks_; }
  // The layer of this rank's depth, whose tokens count from 0.
  const TensorParallel2dLinear& plane() const { return plane_; }
  // The ranks with the same blocks of the weight, in order of their depths.
  const Communicator& depth() const { return depth_; }

 private:
  explicit TensorParallel2p5dLinear(TensorParallel2dLinear plane)
      : plane_(std::move(plane)) {}

  TensorParallel2p5dConfig config_;
  TensorParallel2dLinear plane_;
  MeshLinearBlocks blocks_;
  Communicator depth_;
  CollectiveFamily collectives_;
};

// What one pass sends on `ranks` ranks, depth times a square. The family must
// have costs.
Cost TensorParallel2p5dForwardCost(int ranks,
                                   const TensorParallel2p5dConfig& config,
                                   const CollectiveFamily& collectives);
Cost TensorParallel2p5dBackwardCost(int ranks,
                                    const TensorParallel2p5dConfig& config,
                                    const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TENSOR_PARALLEL_2_5D_TENSOR_PARALLEL_2_5D_H_
