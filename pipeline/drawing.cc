#include "pipeline/drawing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

namespace shardproof {
namespace {

// What is & or < in a name would be markup.
std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

const char* Colour(ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward:
      return "#4e79a7";
    case ActionKind::kBackward:
      return "#59a14f";
    case ActionKind::kInput:
      return "#76b7b2";
    case ActionKind::kWeight:
      return "#edc948";
  }
  return "#000000";
}

}  // namespace

namespace {

// Number i of a rank's actions and the next one, at the same time.
bool IsDrawnTogether(const Schedule& schedule, const Simulation& simulation,
                     int rank, size_t i) {
  const std::vector<TimeSpan>& times =
      simulation.times[static_cast<size_t>(rank)];
  return schedule.IsPair(rank, i) && times[i + 1].start < times[i].end;
}

}  // namespace

std::string DrawText(const Schedule& schedule, const Simulation& simulation,
                     double unit) {
  const auto column = [&](double time) {
    return static_cast<size_t>(std::llround(time / unit));
  };
  struct Box {
    size_t begin = 0, end = 0;
    std::string text;
  };
  std::vector<std::vector<Box>> rows;
  size_t width = 1;
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    const std::vector<Action>& actions =
        schedule.actions[static_cast<size_t>(rank)];
    std::vector<Box>& boxes = rows.emplace_back();
    for (size_t i = 0; i < actions.size(); ++i) {
      const TimeSpan& time = simulation.times[static_cast<size_t>(rank)][i];
      Box box = {column(time.start), column(time.end),
                 schedule.Text(actions[i])};
      if (schedule.IsPair(rank, i)) box.text += '&';
      if (IsDrawnTogether(schedule, simulation, rank, i)) {
        box.text += schedule.Text(actions[++i]);
      }
      if (box.begin >= box.end) continue;  // Shorter than a column.
      const size_t columns = box.end - box.begin;
      width = std::max(width, (box.text.size() + columns) / columns);
      boxes.push_back(std::move(box));
    }
  }
  std::string out;
  for (size_t rank = 0; rank < rows.size(); ++rank) {
    std::string row;
    for (size_t i = 0; i < column(simulation.makespan); ++i) {
      row += "." + std::string(width - 1, ' ');
    }
    for (Box& box : rows[rank]) {
      box.text.resize((box.end - box.begin) * width, ' ');
      row.replace(box.begin * width, box.text.size(), box.text);
    }
    row.erase(row.find_last_not_of(' ') + 1);
    out += fmt::format("rank {:<3} {}\n", rank, row);
  }
  return out;
}

std::string DrawSvg(const Schedule& schedule, const Simulation& simulation) {
  constexpr double kUnit = 30, kRow = 30, kLeft = 70, kTop = 34;
  const double width = kLeft + kUnit * simulation.makespan + 10;
  const double height = kTop + kRow * schedule.ranks() + 10;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0f}\" "
      "height=\"{:.0f}\" viewBox=\"0 0 {:.0f} {:.0f}\" "
      "font-family=\"sans-serif\" font-size=\"11\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
      "<text x=\"8\" y=\"20\" font-size=\"13\">{}: {} ranks, {} micro-batches, "
      "{:.4g} long</text>\n",
      width, height, width, height, Escaped(schedule.name), schedule.ranks(),
      schedule.micro_batches, simulation.makespan);
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    const auto r = static_cast<size_t>(rank);
    const double top = kTop + kRow * rank;
    out += fmt::format("<text x=\"8\" y=\"{:.1f}\">rank {}</text>\n", top + 19,
                       rank);
    for (size_t i = 0; i < schedule.actions[r].size(); ++i) {
      const Action& action = schedule.actions[r][i];
      const TimeSpan& time = simulation.times[r][i];
      const double x = kLeft + kUnit * time.start;
      const double w = kUnit * (time.end - time.start);
      // Of a pair, one above the other.
      const bool first = IsDrawnTogether(schedule, simulation, rank, i);
      const bool second =
          i > 0 && IsDrawnTogether(schedule, simulation, rank, i - 1);
      const double h = (first || second ? 0.5 : 1) * (kRow - 4);
      const double y = top + 2 + (second ? h : 0);
      // Chunks in shades.
      const double shade = 1 - 0.25 * (action.chunk % 4);
      out += fmt::format(
          "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\" "
          "fill=\"{}\" fill-opacity=\"{:.2f}\" stroke=\"#333333\" "
          "stroke-width=\"0.5\"><title>{} {:.4g} to {:.4g}</title></rect>\n",
          x, y, w, h, Colour(action.kind), shade, schedule.Text(action),
          time.start, time.end);
      out += fmt::format(
          "<text x=\"{:.2f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
          x + w / 2, y + h / 2 + 4, action.micro_batch);
    }
  }
  return out + "</svg>\n";
}

}  // namespace shardproof
