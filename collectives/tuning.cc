#include "collectives/tuning.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>
#include <tuple>
#include <utility>

namespace shardproof {
namespace {

constexpr std::string_view kTitle = "# shardproof tuning 1";
constexpr std::string_view kExample = "all_reduce messages 4 16384 ring";

auto Key(const TuningTable::Row& row) {
  return std::tie(row.primitive, row.shared, row.ranks, row.from_bytes);
}

template <class T>
bool Read(const std::string& text, T least, T& value) {
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && at == end && value >= least;
}

bool IsName(const std::string& text) {
  return std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

std::string TextOf(const TuningTable::Row& row) {
  return fmt::format("{} {} {} {} {}", row.primitive,
                     row.shared ? "shared" : "messages", row.ranks,
                     row.from_bytes, row.variant);
}

StatusOr<TuningTable::Row> ReadRow(const std::string& line) {
  std::istringstream in(line);
  const std::vector<std::string> words{std::istream_iterator<std::string>(in),
                                       std::istream_iterator<std::string>()};
  TuningTable::Row row;
  if (words.size() != 5 || !IsName(words[0]) || !IsName(words[4]) ||
      (words[1] != "shared" && words[1] != "messages") ||
      !Read(words[2], 1, row.ranks) ||
      !Read<int64_t>(words[3], 0, row.from_bytes)) {
    return InvalidArgument(
        "\"{}\" is not primitive, shared or messages, ranks, bytes and "
        "variant, such as \"{}\"",
        line.substr(0, 80), kExample);
  }
  row.primitive = words[0];
  row.shared = words[1] == "shared";
  row.variant = words[4];
  return row;
}

}  // namespace

TuningTable::TuningTable(std::vector<Row> rows) : rows_(std::move(rows)) {
  std::ranges::stable_sort(
      rows_, [](const Row& a, const Row& b) { return Key(a) < Key(b); });
}

StatusOr<TuningTable> TuningTable::Parse(std::string_view text,
                                         std::string_view name) {
  std::istringstream in{std::string(text)};
  std::vector<Row> rows;
  int number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (number == 1 && line != kTitle) break;
    if (line.empty() || line.front() == '#') continue;
    StatusOr<Row> row = ReadRow(line);
    if (!row.ok()) {
      return row.status().WithContext(fmt::format("{}, line {}", name, number));
    }
    for (const Row& other : rows) {
      if (Key(other) != Key(*row)) continue;
      return InvalidArgument("{}, line {}: \"{}\" and \"{}\" are for the same",
                             name, number, TextOf(other), TextOf(*row));
    }
    rows.push_back(*std::move(row));
  }
  if (number <= 1 && rows.empty() && text.substr(0, kTitle.size()) != kTitle) {
    return InvalidArgument(
        "{} is not a tuning table: its first line is not \"{}\"", name, kTitle);
  }
  return TuningTable(std::move(rows));
}

StatusOr<TuningTable> TuningTable::Load(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)),
                         std::istreambuf_iterator<char>());
  if (!in.is_open() || in.bad()) {
    return InvalidArgument("cannot read the tuning table {}", path);
  }
  return Parse(text, path);
}

std::string TuningTable::Text() const {
  std::string text(kTitle);
  text += '\n';
  for (const Row& row : rows_) text += TextOf(row) + '\n';
  return text;
}

uint64_t TuningTable::Hash() const {
  if (rows_.empty()) return 0;
  // FNV-1a.
  uint64_t hash = 14695981039346656037ULL;
  for (const char c : Text()) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  }
  return hash;
}

const StatusOr<TuningTable>& ActiveTuning() {
  static const StatusOr<TuningTable> table = []() -> StatusOr<TuningTable> {
    const char* path = std::getenv("SHARDPROOF_TUNING");
    if (path == nullptr || *path == '\0') return TuningTable();
    return TuningTable::Load(path);
  }();
  return table;
}

const TuningTable& ActiveTuningOrNone() {
  static const TuningTable none;
  return ActiveTuning().ok() ? *ActiveTuning() : none;
}

}  // namespace shardproof
