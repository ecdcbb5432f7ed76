#include "pipeline/schedule_csv.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace shardproof {
namespace {

// More would be a mistake, and memory for nothing.
constexpr int kMost = 1 << 20;

struct Cell {
  int stage = 0;
  ActionKind kind = ActionKind::kForward;
  int micro_batch = 0;
  bool with_next = false;
};

std::optional<int> Number(std::string_view& text) {
  int value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0 || value > kMost) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// What follows "(0F0;7B1)", in torch.distributed.pipelining.
constexpr std::string_view kPair = "OVERLAP_F_B";

std::optional<Cell> ParseAction(std::string_view text) {
  constexpr std::string_view kLetters = "FBIW";
  Cell cell;
  const std::optional<int> stage = Number(text);
  if (!stage || text.empty()) return std::nullopt;
  const size_t kind = kLetters.find(text[0]);
  if (kind == std::string_view::npos) return std::nullopt;
  text.remove_prefix(1);
  const std::optional<int> micro_batch = Number(text);
  if (!micro_batch || !text.empty()) return std::nullopt;
  return Cell{*stage, static_cast<ActionKind>(kind), *micro_batch};
}

// One action, or the two of a pair; none: not a cell.
std::vector<Cell> ParseCell(std::string_view text) {
  if (!text.starts_with('(')) {
    const std::optional<Cell> action = ParseAction(text);
    return action ? std::vector<Cell>{*action} : std::vector<Cell>{};
  }
  const size_t middle = text.find(';'), end = text.find(')');
  if (middle == std::string_view::npos || end == std::string_view::npos ||
      middle > end || Trimmed(text.substr(end + 1)) != kPair) {
    return {};
  }
  std::optional<Cell> first = ParseAction(Trimmed(text.substr(1, middle - 1)));
  const std::optional<Cell> second =
      ParseAction(Trimmed(text.substr(middle + 1, end - middle - 1)));
  if (!first || !second) return {};
  first->with_next = true;
  return {*first, *second};
}

// What comes before the next `separator`, which is taken away with it.
std::string_view Next(std::string_view& text, char separator) {
  const size_t end = std::min(text.find(separator), text.size());
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return part;
}

StatusOr<std::vector<std::vector<Cell>>> ParseRows(std::string_view text) {
  std::vector<std::vector<Cell>> rows;
  for (int line = 1; !text.empty(); ++line) {
    std::string_view row = Trimmed(Next(text, '\n'));
    // Blank lines behind the last row are none.
    if (row.empty() && text.find_first_not_of(" \t\r\n") == text.npos) break;
    std::vector<Cell>& cells = rows.emplace_back();
    for (int number = 1; !row.empty(); ++number) {
      const std::string_view cell = Trimmed(Next(row, ','));
      if (cell.empty()) continue;
      const std::vector<Cell> parsed = ParseCell(cell);
      if (parsed.empty()) {
        return DataLoss("line {}, cell {}: \"{}\" is no {}", line, number,
                        cell.substr(0, 40),
                        cell.starts_with('(')
                            ? "pair of actions, (0F1;1B0)OVERLAP_F_B"
                            : "stage, one of F, B, I, W, and micro-batch");
      }
      cells.insert(cells.end(), parsed.begin(), parsed.end());
    }
  }
  return rows;
}

}  // namespace

StatusOr<std::string> ToCsv(const Schedule& schedule) {
  if (schedule.pipelines.size() != 1) {
    return InvalidArgument("{} has {} pipelines; such a table has one",
                           schedule.name, schedule.pipelines.size());
  }
  std::string out;
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    const std::vector<Action>& actions =
        schedule.actions[static_cast<size_t>(rank)];
    const auto text = [&](const Action& a) {
      const int stage = schedule.StageAt(a.micro_batch, {rank, a.chunk});
      return fmt::format("{}{}{}", stage, Letter(a.kind), a.micro_batch);
    };
    const char* separator = "";
    for (size_t i = 0; i < actions.size(); ++i) {
      out += separator;
      separator = ",";
      if (schedule.IsPair(rank, i)) {
        out += fmt::format("({};{}){}", text(actions[i]), text(actions[i + 1]),
                           kPair);
        ++i;
      } else {
        out += text(actions[i]);
      }
    }
    // An empty cell: a blank line at the end would be no row.
    if (actions.empty()) out += ',';
    out += '\n';
  }
  return out;
}

StatusOr<Schedule> FromCsv(std::string_view text, std::string name) {
  SP_ASSIGN_OR_RETURN(const std::vector<std::vector<Cell>> rows,
                      ParseRows(text));
  std::map<int, int> rank_of;  // Of each stage.
  int micro_batches = 0;
  for (size_t rank = 0; rank < rows.size(); ++rank) {
    for (const Cell& cell : rows[rank]) {
      const auto [at, fresh] =
          rank_of.try_emplace(cell.stage, static_cast<int>(rank));
      if (at->second != static_cast<int>(rank)) {
        return DataLoss("line {}: stage {} is on line {} already", rank + 1,
                        cell.stage, at->second + 1);
      }
      micro_batches = std::max(micro_batches, cell.micro_batch + 1);
    }
  }
  if (rank_of.empty()) return DataLoss("there is no action");
  Schedule schedule;
  schedule.name = std::move(name);
  schedule.micro_batches = micro_batches;
  schedule.actions.resize(rows.size());
  std::vector<Place>& stages = schedule.pipelines.emplace_back();
  std::vector<int> chunks(rows.size());
  for (const auto& [stage, rank] : rank_of) {
    if (stage != std::ssize(stages)) {
      return DataLoss("stage {} is on no line", stages.size());
    }
    stages.push_back({rank, chunks[static_cast<size_t>(rank)]++});
  }
  for (size_t rank = 0; rank < rows.size(); ++rank) {
    for (const Cell& cell : rows[rank]) {
      schedule.actions[rank].push_back(
          {cell.kind, cell.micro_batch,
           stages[static_cast<size_t>(cell.stage)].chunk, cell.with_next});
    }
  }
  return schedule;
}

}  // namespace shardproof
