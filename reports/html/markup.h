// Text that becomes HTML, and numbers as people read them.
//
//     Writer w;
//     w.Write("<p>{} in {} µs</p>", name, Significant(time));
//
// Contract: the pattern of Write is a literal (checked when this is compiled),
// and every text among its arguments is escaped by Escape, so that nothing
// which came from a file or the environment can be markup. What a Writer has
// written is Markup, and goes into another one as it is.
#ifndef SHARDPROOF_REPORTS_HTML_MARKUP_H_
#define SHARDPROOF_REPORTS_HTML_MARKUP_H_

#include <fmt/format.h>

#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace shardproof::html {

// Longer texts are cut, with a note of how much is missing.
inline constexpr size_t kLongestText = 1000;
// Of what is copied and run.
inline constexpr size_t kLongestCommand = 8000;

// Valid UTF-8 without control characters and without those that change the
// direction of writing (a name could be shown as another one): U+FFFD stands
// where they were. At most `longest` bytes and the note.
std::string Clean(std::string_view text, size_t longest = kLongestText);
// Clean, with & < > " ' as character references: for content and for
// attributes in quotes.
std::string Escape(std::string_view text, size_t longest = kLongestText);

struct Markup {
  std::string html = {};
};

class Writer {
 public:
  template <class T>
  static auto Prepare(const T& value) {
    if constexpr (std::is_same_v<T, Markup>) {
      return value.html;
    } else if constexpr (std::is_arithmetic_v<T>) {
      return value;
    } else {
      return Escape(value);
    }
  }
  template <class T>
  using Prepared = decltype(Prepare(std::declval<const T&>()));

  template <class... T>
  Writer& Write(fmt::format_string<Prepared<T>...> pattern, const T&... value) {
    fmt::format_to(std::back_inserter(html_), pattern, Prepare(value)...);
    return *this;
  }
  Writer& Add(const Markup& markup) {
    html_ += markup.html;
    return *this;
  }
  Markup Take() { return {std::move(html_)}; }
  size_t size() const { return html_.size(); }

 private:
  std::string html_;
};

template <class... T>
Markup Fragment(fmt::format_string<Writer::Prepared<T>...> pattern,
                const T&... value) {
  Writer writer;
  writer.Write(pattern, value...);
  return writer.Take();
}

// Three significant digits: "0", "0.0123", "12.3", "12300", "1.23e+20"; "NaN",
// "∞".
std::string Significant(double value);
// A share in percent, without the sign of percent: "+5.20", "-0.31"; the plus
// where `sign`.
std::string Percent(double share, bool sign = true);
// "7 B", "1.00 KiB", "16.0 MiB".
std::string BytesAsText(double bytes);
// "850 ns", "12.3 µs", "4.56 ms": where there is no column to have the unit.
std::string TimeAsText(double us);
// "1 case", "2 cases".
std::string Counted(size_t n, std::string_view one);

}  // namespace shardproof::html

#endif  // SHARDPROOF_REPORTS_HTML_MARKUP_H_
