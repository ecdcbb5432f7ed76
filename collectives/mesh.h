// Named dimensions over the ranks of a communicator, and a sub-communicator along each.
//
//     SP_ASSIGN_OR_RETURN(Mesh mesh, Mesh::Create(world, {{"tp", 2}, {"pp", 2}, {"dp", 2}}));
//     AllReduce(mesh.Along("tp"), ...);
//
// The first dimension is innermost: ranks 0 and 1 above are neighbours in "tp". Sizes multiply to world.size().
#ifndef SHARDPROOF_COLLECTIVES_MESH_H_
#define SHARDPROOF_COLLECTIVES_MESH_H_

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "collectives/communicator.h"

namespace shardproof {

struct MeshDimension {
  std::string name;
  int size = 1;
};

class Mesh {
 public:
  // Collective. kInvalidArgument, the same on every rank, when a size is not positive, a name repeats, or the product is
  // not world.size(): the check is local and precedes any communication, so nobody hangs.
  static StatusOr<Mesh> Create(const Communicator& world,
                               std::vector<MeshDimension> dimensions);

  const Communicator& world() const { return world_; }
  const std::vector<MeshDimension>& dimensions() const { return dimensions_; }
  // The ranks that differ from this one in dimension `name` only. `name` must exist.
  const Communicator& Along(std::string_view name) const;
  // The ranks that differ in any of `names`: e.g. {"dp", "cp"} for a gradient reduction. Collective at its first use.
  StatusOr<Communicator> Along(const std::vector<std::string>& names) const;
  // Along({"dp", "cp"}), which would else be taken for the two ends of a string_view.
  StatusOr<Communicator> Along(
      std::initializer_list<std::string_view> names) const {
    return Along(std::vector<std::string>(names.begin(), names.end()));
  }
  // This rank's (or `rank`'s) coordinate in dimension `name`.
  int Coordinate(std::string_view name) const;
  int Coordinate(std::string_view name, int rank) const;
  // The world rank at `coordinates`, in the order of dimensions().
  int RankAt(const std::vector<int>& coordinates) const;

 private:
  Communicator world_;
  std::vector<MeshDimension> dimensions_;
  std::vector<Communicator> along_;
};

// Parses "tp=2,pp=2,dp=2".
StatusOr<std::vector<MeshDimension>> ParseMesh(std::string_view text);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_MESH_H_
