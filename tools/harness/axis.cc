#include "tools/harness/axis.h"

#include <array>
#include <charconv>
#include <limits>

namespace shardproof {
namespace {

struct Suffix {
  std::string_view text;
  int64_t factor;
};
constexpr std::array<Suffix, 6> kSuffixes = {{{"Ki", int64_t{1} << 10},
                                              {"Mi", int64_t{1} << 20},
                                              {"Gi", int64_t{1} << 30},
                                              {"K", 1'000},
                                              {"M", 1'000'000},
                                              {"G", 1'000'000'000}}};

}  // namespace

Status ParseAxisValue(std::string_view text, int64_t* value) {
  std::string_view digits = text;
  int64_t factor = 1;
  for (const Suffix& suffix : kSuffixes) {
    if (digits.ends_with(suffix.text)) {
      digits.remove_suffix(suffix.text.size());
      factor = suffix.factor;
      break;
    }
  }
  int64_t number = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, number);
  if (error == std::errc::result_out_of_range ||
      (error == std::errc() && __builtin_mul_overflow(number, factor, value))) {
    return InvalidArgument("\"{}\" does not fit in 64 bits", text);
  }
  if (error != std::errc() || stop != end) {
    return InvalidArgument(
        "\"{}\" is not an integer (1000, 4K, 1Mi are understood)", text);
  }
  return OkStatus();
}

Status ParseAxisValue(std::string_view text, int* value) {
  int64_t wide = 0;
  SP_RETURN_IF_ERROR(ParseAxisValue(text, &wide));
  if (wide < std::numeric_limits<int>::min() ||
      wide > std::numeric_limits<int>::max()) {
    return InvalidArgument("\"{}\" does not fit in 32 bits", text);
  }
  *value = static_cast<int>(wide);
  return OkStatus();
}

Status ParseAxisValue(std::string_view text, bool* value) {
  if (text != "true" && text != "false") {
    return InvalidArgument("\"{}\" is neither true nor false", text);
  }
  *value = text == "true";
  return OkStatus();
}

Status ParseAxisValue(std::string_view text, double* value) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *value);
  if (error != std::errc() || stop != end) {
    return InvalidArgument("\"{}\" is not a number", text);
  }
  return OkStatus();
}

Status ParseAxisValue(std::string_view text, std::string* value) {
  *value = std::string(text);
  return OkStatus();
}

Status ParseAxisValue(std::string_view text, DType* value) {
  SP_ASSIGN_OR_RETURN(*value, ParseDType(text));
  return OkStatus();
}

Status ParseAxisValue(std::string_view text, ReduceOp* value) {
  SP_ASSIGN_OR_RETURN(*value, ParseReduceOp(text));
  return OkStatus();
}

std::string FormatAxisValue(int64_t value) { return fmt::format("{}", value); }
std::string FormatAxisValue(int value) { return fmt::format("{}", value); }
std::string FormatAxisValue(bool value) { return value ? "true" : "false"; }
std::string FormatAxisValue(double value) { return fmt::format("{}", value); }
std::string FormatAxisValue(const std::string& value) { return value; }
std::string FormatAxisValue(DType value) { return std::string(Name(value)); }
std::string FormatAxisValue(ReduceOp value) { return std::string(Name(value)); }

}  // namespace shardproof
