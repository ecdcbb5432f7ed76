#include "collectives/mesh.h"

#include <algorithm>
#include <cassert>
#include <charconv>
#include <cstdint>
#include <limits>

namespace shardproof {
namespace {

Status Check(const std::vector<MeshDimension>& dimensions, int ranks) {
  int64_t product = 1;
  std::string shown;
  for (size_t i = 0; i < dimensions.size(); ++i) {
    const MeshDimension& dimension = dimensions[i];
    if (dimension.name.empty()) {
      return InvalidArgument("dimension {} of the mesh has no name", i);
    }
    if (dimension.size < 1) {
      return InvalidArgument(
          "mesh dimension {} has size {}; it must be at least 1",
          dimension.name, dimension.size);
    }
    for (size_t j = 0; j < i; ++j) {
      if (dimensions[j].name == dimension.name) {
        return InvalidArgument("the mesh has two dimensions named {}",
                               dimension.name);
      }
    }
    // Both factors are below 2^31, so the product cannot wrap around before it
    // is cut.
    product = std::min<int64_t>(product * dimension.size,
                                std::numeric_limits<int>::max());
    shown += fmt::format("{}{}={}", i == 0 ? "" : ",", dimension.name,
                         dimension.size);
  }
  if (product != ranks) {
    return InvalidArgument("the mesh {} has {} ranks and the world {}",
                           shown.empty() ? "without dimensions" : shown,
                           product, ranks);
  }
  return OkStatus();
}

}  // namespace

StatusOr<Mesh> Mesh::Create(const Communicator& world,
                            std::vector<MeshDimension> dimensions) {
  SP_RETURN_IF_ERROR(Check(dimensions, world.size()));
  Mesh mesh;
  mesh.world_ = world;
  mesh.dimensions_ = std::move(dimensions);
  for (const MeshDimension& dimension : mesh.dimensions_) {
    SP_ASSIGN_OR_RETURN(Communicator along,
                        mesh.Along(std::vector<std::string>{dimension.name}));
    mesh.along_.push_back(std::move(along));
  }
  return mesh;
}

const Communicator& Mesh::Along(std::string_view name) const {
  for (size_t i = 0; i < dimensions_.size(); ++i) {
    if (dimensions_[i].name == name) return along_[i];
  }
  internal::DieOnBadValue(
      InvalidArgument("the mesh has no dimension named {}", name));
}

StatusOr<Communicator> Mesh::Along(
    const std::vector<std::string>& names) const {
  for (const std::string& name : names) {
    if (std::none_of(dimensions_.begin(), dimensions_.end(),
                     [&](const MeshDimension& d) { return d.name == name; })) {
      return InvalidArgument("the mesh has no dimension named {}", name);
    }
  }
  // Ranks that agree in every other dimension form a group: its colour is what
  // is left of the rank without the coordinates in `names`.
  int color = world_.rank();
  int stride = 1;
  for (const MeshDimension& dimension : dimensions_) {
    if (std::find(names.begin(), names.end(), dimension.name) != names.end()) {
      color -= Coordinate(dimension.name) * stride;
    }
    stride *= dimension.size;
  }
  return world_.Split(color, world_.rank());
}

int Mesh::Coordinate(std::string_view name) const {
  return Coordinate(name, world_.rank());
}

int Mesh::Coordinate(std::string_view name, int rank) const {
  int stride = 1;
  for (const MeshDimension& dimension : dimensions_) {
    if (dimension.name == name) return rank / stride % dimension.size;
    stride *= dimension.size;
  }
  internal::DieOnBadValue(
      InvalidArgument("the mesh has no dimension named {}", name));
}

int Mesh::RankAt(const std::vector<int>& coordinates) const {
  assert(coordinates.size() == dimensions_.size());
  int rank = 0;
  for (size_t i = dimensions_.size(); i-- > 0;) {
    assert(coordinates[i] >= 0 && coordinates[i] < dimensions_[i].size);
    rank = rank * dimensions_[i].size + coordinates[i];
  }
  return rank;
}

StatusOr<std::vector<MeshDimension>> ParseMesh(std::string_view text) {
  std::vector<MeshDimension> dimensions;
  std::string_view rest = text;
  while (true) {
    const size_t comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    const size_t equals = item.find('=');
    int size = 0;
    const char* const end = item.data() + item.size();
    const char* const digits =
        equals == std::string_view::npos ? end : item.data() + equals + 1;
    const auto [at, error] = std::from_chars(digits, end, size);
    if (equals == 0 || error != std::errc() || at != end || size < 1) {
      return InvalidArgument(
          "\"{}\" in the mesh \"{}\" is not name=size with a size of at least "
          "1, as in tp=2,dp=4",
          item, text);
    }
    dimensions.push_back({std::string(item.substr(0, equals)), size});
    if (comma == std::string_view::npos) return dimensions;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace shardproof
