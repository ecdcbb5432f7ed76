// The ranks of a training step, as a mesh of the ways in which its model and its
// batch are cut.
//
//     tp   tensor parallelism: features and heads
//     cp   context parallelism: the tokens of a sequence
//     ep   expert parallelism: experts; each of these ranks has sequences of its
//          own, as those of dp
//     pp   pipeline: layers
//     dp   data parallelism: sequences
//
// The first dimension is innermost, whose ranks are next to each other. [tp, cp,
// ep, pp, dp] is the order of Llama 3: the innermost sends most, and most often,
// and needs the fastest links.
//
//     SP_ASSIGN_OR_RETURN(const TrainMesh mesh, ParseTrainMesh("tp=2,pp=4"));
//     mesh.ranks();    // 8
//
// Sources: Grattafiori et al., The Llama 3 herd of models, arXiv:2407.21783,
// section 3.3.2; Narayanan et al., arXiv:2104.04473.
#ifndef SHARDPROOF_PIPELINE_TRAIN_STEP_TRAIN_MESH_H_
#define SHARDPROOF_PIPELINE_TRAIN_STEP_TRAIN_MESH_H_

#include <string>
#include <string_view>
#include <vector>

#include "collectives/mesh.h"
#include "reference/status.h"

namespace shardproof {

struct TrainMesh {
  // All five, in the order of the mesh.
  std::vector<MeshDimension> dimensions = {
      {"tp", 1}, {"cp", 1}, {"ep", 1}, {"pp", 1}, {"dp", 1}};

  int Size(std::string_view name) const;
  int ranks() const;
  int tp() const { return Size("tp"); }
  int cp() const { return Size("cp"); }
  int ep() const { return Size("ep"); }
  int pp() const { return Size("pp"); }
  int dp() const { return Size("dp"); }
  // Ranks with sequences of their own.
  int data_ranks() const { return ep() * dp(); }
  // Whether it is [tp, cp, ep, pp, dp].
  bool InUsualOrder() const;

  bool operator==(const TrainMesh& other) const;
};

// "tp=2,pp=4", in the order of the mesh: dimensions that are not named have one
// rank and come last, in the usual order. kInvalidArgument for what is no such
// list, or another name, a name that comes twice, or a size below 1.
StatusOr<TrainMesh> ParseTrainMesh(std::string_view text);
// "tp=2,pp=4"; of one rank "tp=1".
std::string Describe(const TrainMesh& mesh);

// All ways to write `ranks` as a product of dimensions of these names.
std::vector<TrainMesh> Factorisations(int ranks,
                                      const std::vector<std::string>& names = {
                                          "tp", "cp", "pp", "dp"});

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_TRAIN_STEP_TRAIN_MESH_H_
