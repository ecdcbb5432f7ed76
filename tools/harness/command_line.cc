#include "tools/harness/command_line.h"

#include <charconv>
#include <optional>

namespace shardproof {
namespace {

void Remove(int* argc, char** argv, int at, int count) {
  for (int i = at; i + count <= *argc; ++i) argv[i] = argv[i + count];
  *argc -= count;
}

StatusOr<std::optional<std::string>> Take(int* argc, char** argv,
                                          std::string_view name) {
  const std::string flag = fmt::format("--{}", name);
  for (int i = 1; i < *argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with(flag + "=")) {
      std::string value(argument.substr(flag.size() + 1));
      Remove(argc, argv, i, 1);
      return std::optional<std::string>(std::move(value));
    }
    if (argument != flag) continue;
    if (i + 1 >= *argc) return InvalidArgument("{} needs a value", flag);
    std::string value = argv[i + 1];
    Remove(argc, argv, i, 2);
    return std::optional<std::string>(std::move(value));
  }
  return std::optional<std::string>();
}

template <class T>
Status Read(std::string_view name, std::string_view text, T* value) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *value);
  if (error == std::errc() && stop == end) return OkStatus();
  return InvalidArgument("--{}: \"{}\" is not a number", name, text);
}

template <class T>
Status TakeNumber(int* argc, char** argv, std::string_view name, T* value) {
  SP_ASSIGN_OR_RETURN(const auto text, Take(argc, argv, name));
  return text.has_value() ? Read(name, *text, value) : OkStatus();
}

}  // namespace

Status TakeFlag(int* argc, char** argv, std::string_view name,
                std::string* value) {
  SP_ASSIGN_OR_RETURN(auto text, Take(argc, argv, name));
  if (text.has_value()) *value = *std::move(text);
  return OkStatus();
}

Status TakeFlag(int* argc, char** argv, std::string_view name,
                std::vector<int>* value) {
  SP_ASSIGN_OR_RETURN(const auto text, Take(argc, argv, name));
  if (!text.has_value()) return OkStatus();
  value->clear();
  std::string_view rest = *text;
  for (;;) {
    const size_t comma = rest.find(',');
    int number = 0;
    SP_RETURN_IF_ERROR(Read(name, rest.substr(0, comma), &number));
    if (number < 1) {
      return InvalidArgument("--{}: {} is not positive", name, number);
    }
    value->push_back(number);
    if (comma == std::string_view::npos) return OkStatus();
    rest.remove_prefix(comma + 1);
  }
}

Status TakeFlag(int* argc, char** argv, std::string_view name,
                uint64_t* value) {
  return TakeNumber(argc, argv, name, value);
}

Status TakeFlag(int* argc, char** argv, std::string_view name, double* value) {
  return TakeNumber(argc, argv, name, value);
}

bool TakeSwitch(int* argc, char** argv, std::string_view name) {
  for (int i = 1; i < *argc; ++i) {
    if (std::string_view(argv[i]) == fmt::format("--{}", name)) {
      Remove(argc, argv, i, 1);
      return true;
    }
  }
  return false;
}

}  // namespace shardproof
