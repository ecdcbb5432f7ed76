// A table whose columns know what they hold: units are chosen per column and
// stand in the header, numbers are aligned and have three significant digits.
//
//     Table table("Findings", {{"case"}, {"median", Column::kTime}});
//     table.Add({record.case_name, record.time_us->median});
//     table.Write(w);
//
// Contract: the first column names the row. A cell of a column of numbers is a
// double (or nothing); times are in µs, shares and bytes as such.
#ifndef SHARDPROOF_REPORTS_HTML_TABLE_H_
#define SHARDPROOF_REPORTS_HTML_TABLE_H_

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "reports/html/markup.h"

namespace shardproof::html {

struct Column {
  enum Kind {
    kText,     // A word or two.
    kName,     // Of a case.
    kKey,      // A whole key.
    kProse,    // A sentence.
    kCode,     // A command line: copied as it is.
    kTime,     // µs; shown in ns, µs, ms or s.
    kBytes,    // "16 KiB"
    kShare,    // 0.05; shown in percent with its sign.
    kPortion,  // 0.05; shown in percent without one.
    kNumber,
    kWhole  // An integer, all of its digits.
  };
  std::string name = {};
  Kind kind = kText;
};

// Several numbers of one column, as "[1.2, 1.4]".
struct Range {
  double low = 0, high = 0;
};

using Cell = std::variant<std::monostate, double, Range, std::string, Markup>;
// Nothing, or the number.
Cell CellOf(const std::optional<double>& value);

class Table {
 public:
  // What a reader does with it: sort it by any column, and filter its rows.
  enum Tools { kPlain, kSortable, kFilterable };

  Table(std::string caption, std::vector<Column> columns,
        Tools tools = kSortable)
      : caption_(std::move(caption)),
        columns_(std::move(columns)),
        tools_(tools) {}

  // At most as many cells as columns; those that are left out are empty.
  void Add(std::vector<Cell> cells) { rows_.push_back(std::move(cells)); }
  size_t rows() const { return rows_.size(); }
  // "the first 100 of 2000", beside the caption.
  void Note(std::string note) { note_ = std::move(note); }
  // Nothing where there are no rows.
  void Write(Writer& w) const;

 private:
  struct Unit {
    double factor = 1;
    const char* name = "";
  };
  Unit UnitOf(size_t column) const;
  // How wide it has to be, and whether it is of numbers.
  Markup HeadClass(size_t column) const;
  std::string NumberText(const Column& column, const Unit& unit,
                         double value) const;
  void WriteCell(Writer& w, size_t column, const Unit& unit,
                 const Cell& cell) const;

  std::string caption_, note_;
  std::vector<Column> columns_;
  Tools tools_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace shardproof::html

#endif  // SHARDPROOF_REPORTS_HTML_TABLE_H_
