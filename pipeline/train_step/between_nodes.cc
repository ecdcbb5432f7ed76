#include <cstddef>

#include "pipeline/train_step/mesh_cost.h"

namespace shardproof {

double BytesBetweenNodes(const DimensionCost& cost, int ranks_per_node) {
  double bytes = 0;
  for (const GroupTraffic& group : cost.groups) {
    const size_t n = group.ranks.size();
    size_t edges = 0, crossing = 0;
    const auto add = [&](size_t a, size_t b) {
      ++edges;
      const bool same =
          group.ranks[a] / ranks_per_node == group.ranks[b] / ranks_per_node;
      crossing += same ? 0 : 1;
    };
    for (size_t a = 0; a < n; ++a) {
      if (group.around) add(a, (a + 1) % n);
      for (size_t b = 0; !group.around && b < n; ++b) {
        if (a != b) add(a, b);
      }
    }
    bytes += static_cast<double>(group.sent.bytes) *
             static_cast<double>(crossing) / static_cast<double>(edges);
  }
  return bytes;
}

double BytesBetweenNodes(const MeshCost& cost, int ranks_per_node) {
  double bytes = 0;
  for (const DimensionCost& row : cost.dimensions) {
    bytes += BytesBetweenNodes(row, ranks_per_node);
  }
  return bytes;
}

}  // namespace shardproof
