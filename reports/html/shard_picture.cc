// Shards as SVG: presentation attributes and classes only, since the policy of
// the page forbids styles in attributes.
#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "reports/html/pages.h"

namespace shardproof::html {
namespace {

using Ranges = std::vector<std::pair<int64_t, int64_t>>;

constexpr int kMostRanks = 16;
constexpr size_t kMostSteps = 40;

// The two dimensions to draw: those that are cut, then the last ones. -1: none.
std::pair<int, int> DrawnDimensions(const ShardDiagram::Tensor& t) {
  const int n = static_cast<int>(t.shape.size());
  std::vector<int> chosen;
  for (const bool want_cut : {true, false}) {
    for (int d = n - 1; d >= 0 && chosen.size() < 2; --d) {
      const auto i = static_cast<size_t>(d);
      const bool cut =
          std::any_of(t.blocks.begin(), t.blocks.end(), [&](const auto& block) {
            return i < block.size() && block[i] != Ranges{{0, t.shape[i]}};
          });
      const bool used =
          std::find(chosen.begin(), chosen.end(), d) != chosen.end();
      if (cut == want_cut && !used) chosen.push_back(d);
    }
  }
  std::sort(chosen.begin(), chosen.end());
  if (chosen.empty()) return {-1, -1};
  if (chosen.size() == 1) return {-1, chosen[0]};
  return {chosen[0], chosen[1]};
}

Ranges RangesOf(const ShardDiagram::Tensor& t, size_t rank, int dimension) {
  if (dimension < 0) return {{0, 1}};
  const auto d = static_cast<size_t>(dimension);
  if (d >= t.blocks[rank].size()) return {};
  return t.blocks[rank][d];
}

int64_t Extent(const ShardDiagram::Tensor& t, int dimension) {
  return dimension < 0
             ? 1
             : std::max<int64_t>(1, t.shape[static_cast<size_t>(dimension)]);
}

bool Empty(const ShardDiagram::Tensor& t, size_t rank) {
  return rank >= t.blocks.size() ||
         std::any_of(t.blocks[rank].begin(), t.blocks[rank].end(),
                     [](const Ranges& r) { return r.empty(); });
}

}  // namespace

Markup TensorPicture(const ShardDiagram::Tensor& t, int ranks) {
  constexpr double kGap = 10, kText = 14;
  const auto [down, across] = DrawnDimensions(t);
  const int shown = std::clamp(ranks, 0, kMostRanks);
  const double rows = static_cast<double>(Extent(t, down));
  const double columns = static_cast<double>(Extent(t, across));
  // The shape is told by the frame, within what can be seen.
  const double aspect = std::clamp(columns / rows, 0.5, 2.5);
  const double width = aspect >= 1 ? 64 : 64 * std::max(aspect, 0.5);
  const double height = down < 0 ? 20 : std::clamp(width / aspect, 24.0, 64.0);
  Writer w;
  w.Write(
      "<svg viewBox=\"0 0 {:.0f} {:.0f}\" width=\"{:.0f}\" "
      "height=\"{:.0f}\" role=\"img\" aria-label=\"Which part of {} each "
      "rank holds\">",
      shown * (width + kGap), height + kText + 2, shown * (width + kGap),
      height + kText + 2, t.name);
  for (int r = 0; r < shown; ++r) {
    const auto rank = static_cast<size_t>(r);
    const double left = r * (width + kGap) + 1;
    w.Write(
        "<text x=\"{:.1f}\" y=\"10\" class=\"label\">{}</text>"
        "<rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{:.1f}\" "
        "class=\"frame\"/>",
        left, r, left, kText, width, height);
    if (Empty(t, rank)) continue;
    for (const auto& [top, bottom] : RangesOf(t, rank, down)) {
      for (const auto& [begin, end] : RangesOf(t, rank, across)) {
        if (end <= begin || bottom <= top) continue;
        w.Write(
            "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" "
            "height=\"{:.1f}\" class=\"held\"/>",
            left + width * static_cast<double>(begin) / columns,
            kText + height * static_cast<double>(top) / rows,
            std::max(1.0, width * static_cast<double>(end - begin) / columns),
            std::max(1.0, height * static_cast<double>(bottom - top) / rows));
      }
    }
  }
  w.Write("</svg>");
  if (shown < ranks) {
    w.Write("<p class=\"note\">the first {} of {} ranks</p>", shown, ranks);
  }
  return w.Take();
}

Markup StepsPicture(const ShardDiagram& d) {
  constexpr double kLane = 92, kLeft = 170, kTop = 26, kStep = 54;
  const int shown = std::clamp(d.ranks, 0, kMostRanks);
  const size_t steps = std::min(d.steps.size(), kMostSteps);
  const double width = kLeft + kLane * std::max(shown, 1);
  const double height = kTop + kStep * static_cast<double>(steps) + 8;
  const auto lane = [&](int rank) { return kLeft + kLane * (rank + 0.5); };
  Writer w;
  w.Write(
      "<svg class=\"steps\" viewBox=\"0 0 {:.0f} {:.0f}\" "
      "width=\"{:.0f}\" height=\"{:.0f}\" role=\"img\" "
      "aria-label=\"What moves between the ranks of {}\">",
      width, height, width, height, d.case_name);
  for (int r = 0; r < shown; ++r) {
    w.Write(
        "<text x=\"{:.1f}\" y=\"14\" class=\"label middle\">rank {}</text>"
        "<line x1=\"{:.1f}\" y1=\"20\" x2=\"{:.1f}\" y2=\"{:.0f}\" "
        "class=\"lane\"/>",
        lane(r), r, lane(r), lane(r), height);
  }
  for (size_t i = 0; i < steps; ++i) {
    const auto& step = d.steps[i];
    const double top = kTop + kStep * static_cast<double>(i);
    int64_t least = 0, most = 0;
    for (const auto& t : step.transfers) {
      least = least == 0 ? t.bytes : std::min(least, t.bytes);
      most = std::max(most, t.bytes);
    }
    std::string size;
    if (least != most) size = BytesAsText(static_cast<double>(least)) + " to ";
    size += BytesAsText(static_cast<double>(most));
    if (step.transfers.size() > 1) size += " each";
    w.Write(
        "<line x1=\"0\" y1=\"{:.1f}\" x2=\"{:.0f}\" y2=\"{:.1f}\" "
        "class=\"rule\"/><text x=\"0\" y=\"{:.1f}\" class=\"label\">{}. {}"
        "</text><text x=\"0\" y=\"{:.1f}\" class=\"label quiet\">{}s, {}"
        "</text>",
        top, width, top, top + 20, step.number, Clean(step.operation, 22),
        top + 36, Clean(step.kind, 12), size);
    for (const auto& t : step.transfers) {
      if (t.from < 0 || t.to < 0 || t.from >= shown || t.to >= shown ||
          t.from == t.to) {
        continue;
      }
      // Left to right in the upper half, right to left in the lower one.
      const bool right = t.to > t.from;
      const double y = top + (right ? 10 : 32);
      const double x1 = lane(t.from), x2 = lane(t.to) + (right ? -4 : 4);
      const double y2 = y + 12;
      const double length = std::hypot(x2 - x1, y2 - y);
      const double dx = (x2 - x1) / length, dy = (y2 - y) / length;
      w.Write(
          "<path d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\" class=\"arrow\"/>"
          "<path d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}L{:.1f} {:.1f}Z\" "
          "class=\"tip\"/>",
          x1, y, x2, y2, x2 + 2 * dx, y2 + 2 * dy, x2 - 6 * dx - 3.5 * dy,
          y2 - 6 * dy + 3.5 * dx, x2 - 6 * dx + 3.5 * dy,
          y2 - 6 * dy - 3.5 * dx);
    }
  }
  w.Write("</svg>");
  if (steps < d.steps.size() || shown < d.ranks) {
    w.Write(
        "<p class=\"note\">the first {} of {} steps, the first {} of {} "
        "ranks; the table has more</p>",
        steps, d.steps.size(), shown, d.ranks);
  }
  return w.Take();
}

}  // namespace shardproof::html
