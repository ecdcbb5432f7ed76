#include "reports/html/table.h"

#include <algorithm>
#include <cmath>

namespace shardproof::html {
namespace {

// Longer ones scroll in a frame of their own.
constexpr size_t kLongTable = 15;
// Of cells that are no sentences.
constexpr size_t kLongestName = 240;

// Lines are broken at spaces and not after the hyphens of "--flag".
Markup Command(const std::string& text) {
  Writer w;
  w.Write("<code class=\"command\">");
  const std::string clean = Clean(text, kLongestCommand);
  for (size_t at = 0; at < clean.size();) {
    const size_t end = std::min(clean.find(' ', at), clean.size());
    const std::string word = clean.substr(at, end - at);
    if (word.size() < 60 && word.find('-') != word.npos) {
      w.Write("<span class=\"word\">{}</span>", word);
    } else {
      w.Add({Escape(word, kLongestCommand)});
    }
    if (end < clean.size()) w.Write(" ");
    at = end + 1;
  }
  w.Write("</code>");
  return w.Take();
}

}  // namespace

Cell CellOf(const std::optional<double>& value) {
  if (!value.has_value()) return std::monostate{};
  return *value;
}

// By the median of what the column holds, so that one outlier does not choose.
Table::Unit Table::UnitOf(size_t column) const {
  switch (columns_[column].kind) {
    case Column::kShare:
    case Column::kPortion:
      return {1, "%"};
    case Column::kTime:
      break;
    default:
      return {};
  }
  std::vector<double> sizes;
  const auto take = [&](double value) {
    if (std::isfinite(value) && value != 0) sizes.push_back(std::abs(value));
  };
  for (const auto& row : rows_) {
    if (column >= row.size()) continue;
    if (const auto* value = std::get_if<double>(&row[column])) take(*value);
    if (const auto* range = std::get_if<Range>(&row[column])) take(range->high);
  }
  if (sizes.empty()) return {1, "\u00b5s"};
  const auto middle = sizes.begin() + static_cast<long>(sizes.size() / 2);
  std::nth_element(sizes.begin(), middle, sizes.end());
  if (*middle >= 1e6) return {1e-6, "s"};
  if (*middle >= 1e3) return {1e-3, "ms"};
  if (*middle < 0.1) return {1e3, "ns"};
  return {1, "\u00b5s"};
}

Markup Table::HeadClass(size_t column) const {
  switch (columns_[column].kind) {
    case Column::kText:
      return {};
    case Column::kName:
      return Fragment(" class=\"name\"");
    case Column::kKey:
      return Fragment(" class=\"key\"");
    case Column::kProse:
      return Fragment(" class=\"prose\"");
    case Column::kCode:
      return Fragment(" class=\"code\"");
    default:
      return Fragment(" class=\"n\"");
  }
}

std::string Table::NumberText(const Column& column, const Unit& unit,
                              double value) const {
  switch (column.kind) {
    case Column::kShare:
      return Percent(value);
    case Column::kPortion:
      return Percent(value, false);
    case Column::kBytes:
      return BytesAsText(value);
    case Column::kWhole:
      return std::isfinite(value) ? fmt::format("{:.0f}", value)
                                  : Significant(value);
    default:
      return Significant(value * unit.factor);
  }
}

void Table::WriteCell(Writer& w, size_t column, const Unit& unit,
                      const Cell& cell) const {
  const Column& c = columns_[column];
  const bool head = column == 0;
  const auto tag = [&](const Markup& content) {
    if (head) {
      w.Write("<th scope=\"row\">{}</th>", content);
    } else {
      w.Write("<td>{}</td>", content);
    }
  };
  if (std::holds_alternative<std::monostate>(cell)) {
    if (!head && c.kind >= Column::kTime) {
      w.Write("<td class=\"n none\">\u2013</td>");
      return;
    }
    return tag(Fragment("<span class=\"none\">\u2013</span>"));
  }
  if (const auto* markup = std::get_if<Markup>(&cell)) return tag(*markup);
  if (const auto* text = std::get_if<std::string>(&cell)) {
    if (c.kind != Column::kCode) {
      const bool prose = c.kind == Column::kProse;
      return tag({Escape(*text, prose ? kLongestText : kLongestName)});
    }
    return tag(text->empty() ? Markup{} : Command(*text));
  }
  if (const auto* range = std::get_if<Range>(&cell)) {
    w.Write("<td class=\"n\">[{}, {}]</td>", NumberText(c, unit, range->low),
            NumberText(c, unit, range->high));
    return;
  }
  const double value = std::get<double>(cell);
  const std::string text = NumberText(c, unit, value);
  if (head) {
    w.Write("<th scope=\"row\" class=\"n\">{}</th>", text);
  } else if (c.kind == Column::kBytes && std::isfinite(value)) {
    w.Write("<td class=\"n\" data-v=\"{}\">{}</td>", value, text);
  } else {
    w.Write("<td class=\"n\">{}</td>", text);
  }
}

void Table::Write(Writer& w) const {
  if (rows_.empty()) return;
  w.Write(
      "<div class=\"scroll{}\" tabindex=\"0\" role=\"region\" "
      "aria-label=\"{}\">\n<table{}>\n<caption>{}",
      rows_.size() > kLongTable ? Fragment(" long") : Markup{}, caption_,
      tools_ == kFilterable ? Fragment(" class=\"sortable filterable\"")
      : tools_ == kSortable ? Fragment(" class=\"sortable\"")
                            : Markup{},
      caption_);
  if (!note_.empty()) w.Write(" <span class=\"note\">{}</span>", note_);
  w.Write("</caption>\n<thead><tr>");
  std::vector<Unit> units;
  for (size_t i = 0; i < columns_.size(); ++i) {
    units.push_back(UnitOf(i));
    const std::string unit = units.back().name;
    w.Write("<th scope=\"col\"{}>{}{}</th>", HeadClass(i), columns_[i].name,
            unit.empty() ? Markup{}
                         : Fragment(" <span class=\"unit\">{}</span>", unit));
  }
  w.Write("</tr></thead>\n<tbody>\n");
  const Cell nothing;
  for (const auto& row : rows_) {
    w.Write("<tr>");
    for (size_t i = 0; i < columns_.size(); ++i) {
      WriteCell(w, i, units[i], i < row.size() ? row[i] : nothing);
    }
    w.Write("</tr>\n");
  }
  w.Write("</tbody></table></div>\n");
}

}  // namespace shardproof::html
