// Which rank holds which block of every tensor, and what moves, step by step.
#include <algorithm>
#include <utility>

#include "reports/html/pages.h"
#include "reports/html/table.h"

namespace shardproof::html {
namespace {

constexpr size_t kMostDiagrams = 60;
constexpr size_t kMostTransfers = 400;

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t extent : shape) {
    text += fmt::format("{}{}", text.size() > 1 ? ", " : "", extent);
  }
  return text + "]";
}

// "0..4, 8..12"; "nothing".
std::string RangesText(const std::vector<std::pair<int64_t, int64_t>>& ranges) {
  std::string text;
  for (const auto& [begin, end] : ranges) {
    text += fmt::format("{}{}..{}", text.empty() ? "" : "+", begin, end);
  }
  return text.empty() ? "nothing" : text;
}

std::string BlockText(const ShardDiagram::Tensor& tensor, size_t rank) {
  if (rank >= tensor.blocks.size()) return "nothing";
  std::string text;
  for (const auto& ranges : tensor.blocks[rank]) {
    text += fmt::format("{}{}", text.empty() ? "" : ", ", RangesText(ranges));
  }
  return "[" + text + "]";
}

void Blocks(Writer& w, const ShardDiagram& d) {
  std::vector<Column> columns = {{"rank", Column::kWhole}};
  for (const auto& t : d.tensors) columns.push_back({t.name});
  Table table("Which elements each rank holds", columns, Table::kPlain);
  for (int r = 0; r < d.ranks; ++r) {
    std::vector<Cell> row = {static_cast<double>(r)};
    for (const auto& t : d.tensors) {
      row.emplace_back(BlockText(t, static_cast<size_t>(r)));
    }
    table.Add(std::move(row));
  }
  w.Write("<details><summary>As a table</summary>\n");
  table.Write(w);
}

void Transfers(Writer& w, const ShardDiagram& d) {
  Table table("What moves",
              {{"step", Column::kWhole},
               {"operation"},
               {"by"},
               {"from", Column::kWhole},
               {"to", Column::kWhole},
               {"size", Column::kBytes},
               {"messages", Column::kWhole}},
              Table::kPlain);
  size_t all = 0;
  for (const auto& step : d.steps) {
    for (const auto& t : step.transfers) {
      if (++all > kMostTransfers) continue;
      table.Add({static_cast<double>(step.number), step.operation, step.kind,
                 static_cast<double>(t.from), static_cast<double>(t.to),
                 static_cast<double>(t.bytes),
                 static_cast<double>(t.messages)});
    }
  }
  if (all > kMostTransfers) {
    table.Note(fmt::format("the first {} of {}", kMostTransfers, all));
  }
  table.Write(w);
  w.Write("</details>\n");
}

void Diagram(Writer& w, const ShardDiagram& d) {
  w.Write("<article class=\"diagram\">\n<h3>{}</h3>\n<p>{}{}{}, {}, {}</p>\n",
          d.case_name, d.what, d.what.empty() ? "" : ". ", d.variant,
          Counted(static_cast<size_t>(std::max(d.ranks, 0)), "rank"), d.params);
  for (const bool input : {true, false}) {
    const bool any =
        std::any_of(d.tensors.begin(), d.tensors.end(),
                    [&](const auto& t) { return t.input == input; });
    if (!any) continue;
    w.Write("<h4>{}</h4>\n<div class=\"tensors\">\n",
            input ? "Goes in" : "Comes out");
    for (const auto& t : d.tensors) {
      if (t.input != input) continue;
      w.Write(
          "<figure><figcaption><strong>{}</strong> {}{}<br>"
          "<span class=\"note\">{}</span></figcaption>{}</figure>\n",
          t.name, t.dtype, ShapeText(t.shape), t.sharding,
          TensorPicture(t, d.ranks));
    }
    w.Write("</div>\n");
  }
  if (d.steps.empty()) {
    if (d.note.empty()) w.Write("<p>Nothing moves between ranks.</p>\n");
  } else {
    int64_t bytes = 0;
    for (const auto& s : d.steps) {
      for (const auto& t : s.transfers) bytes += t.bytes;
    }
    w.Write(
        "<h4>What moves, {} in all</h4>\n"
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" "
        "aria-label=\"What moves\">{}</div>\n",
        BytesAsText(static_cast<double>(bytes)), StepsPicture(d));
  }
  if (!d.note.empty()) w.Write("<p>{}</p>\n", d.note);
  Blocks(w, d);
  Transfers(w, d);
  w.Write("</article>\n");
}

}  // namespace

void LayersPage(Page page) {
  const auto& diagrams = page.report.diagrams;
  if (diagrams.empty()) {
    Missing(page.w, "There are no pictures of layers here. One layer, as text:",
            "shardproof explain CASE");
    return;
  }
  page.w.Write(
      "<p>Each small frame is the whole tensor; filled is what that "
      "rank holds. Below, time runs downwards: an arrow is what goes "
      "from one rank to another in a step.</p>\n");
  for (size_t i = 0; i < std::min(diagrams.size(), kMostDiagrams); ++i) {
    Diagram(page.w, diagrams[i]);
  }
}

}  // namespace shardproof::html
