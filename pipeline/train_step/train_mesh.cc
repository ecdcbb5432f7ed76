#include "pipeline/train_step/train_mesh.h"

#include <algorithm>

namespace shardproof {
namespace {

MeshDimension* Find(std::vector<MeshDimension>& dimensions,
                    std::string_view name) {
  const auto it =
      std::find_if(dimensions.begin(), dimensions.end(),
                   [&](const MeshDimension& d) { return d.name == name; });
  return it == dimensions.end() ? nullptr : &*it;
}

}  // namespace

int TrainMesh::Size(std::string_view name) const {
  for (const MeshDimension& d : dimensions) {
    if (d.name == name) return d.size;
  }
  return 1;
}

int TrainMesh::ranks() const {
  int product = 1;
  for (const MeshDimension& d : dimensions) product *= d.size;
  return product;
}

bool TrainMesh::InUsualOrder() const {
  const TrainMesh usual;
  // Dimensions of one rank are anywhere.
  std::vector<std::string> mine, theirs;
  for (const MeshDimension& d : dimensions) {
    if (d.size > 1) mine.push_back(d.name);
  }
  for (const MeshDimension& d : usual.dimensions) {
    if (Size(d.name) > 1) theirs.push_back(d.name);
  }
  return mine == theirs;
}

bool TrainMesh::operator==(const TrainMesh& other) const {
  return Describe(*this) == Describe(other);
}

// As many as --ranks takes: products with micro-batches stay far below 2^31.
constexpr int64_t kMostRanks = 4096;

StatusOr<TrainMesh> ParseTrainMesh(std::string_view text) {
  SP_ASSIGN_OR_RETURN(const std::vector<MeshDimension> named, ParseMesh(text));
  TrainMesh mesh;
  std::vector<MeshDimension> rest = mesh.dimensions;
  mesh.dimensions.clear();
  for (const MeshDimension& d : named) {
    if (Find(mesh.dimensions, d.name) != nullptr) {
      return InvalidArgument("mesh {}: {} comes twice", text, d.name);
    }
    MeshDimension* const known = Find(rest, d.name);
    if (known == nullptr) {
      return InvalidArgument(
          "mesh {}: no dimension \"{}\"; there are tp, cp, ep, pp and dp", text,
          d.name);
    }
    if (d.size < 1) {
      return InvalidArgument("mesh {}: {} ranks along {}", text, d.size,
                             d.name);
    }
    mesh.dimensions.push_back(d);
    rest.erase(rest.begin() + (known - rest.data()));
  }
  mesh.dimensions.insert(mesh.dimensions.end(), rest.begin(), rest.end());
  // Each product is of two numbers below 2^31.
  int64_t ranks = 1;
  for (const MeshDimension& d : mesh.dimensions) {
    ranks *= d.size;
    if (ranks > kMostRanks) {
      return InvalidArgument("mesh {}: more than {} ranks", text, kMostRanks);
    }
  }
  return mesh;
}

std::string Describe(const TrainMesh& mesh) {
  std::string text;
  for (const MeshDimension& d : mesh.dimensions) {
    if (d.size == 1) continue;
    text += fmt::format("{}{}={}", text.empty() ? "" : ",", d.name, d.size);
  }
  return text.empty() ? "tp=1" : text;
}

std::vector<TrainMesh> Factorisations(int ranks,
                                      const std::vector<std::string>& names) {
  std::vector<TrainMesh> all = {TrainMesh{}};
  for (size_t i = 0; i < names.size(); ++i) {
    std::vector<TrainMesh> next;
    for (const TrainMesh& mesh : all) {
      const int left = ranks / mesh.ranks();
      for (int size = 1; size <= left; ++size) {
        if (left % size != 0) continue;
        if (i + 1 == names.size() && size != left) continue;
        TrainMesh longer = mesh;
        Find(longer.dimensions, names[i])->size = size;
        next.push_back(longer);
      }
    }
    all = std::move(next);
  }
  return all;
}

}  // namespace shardproof
