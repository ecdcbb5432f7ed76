#include "tools/harness/registry.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "tools/harness/case_erase.h"

namespace shardproof {
namespace {

constexpr std::string_view kMutantPrefix = "mutant/";

Status Validate(const CaseInfo& info) {
  if (info.name.empty()) return InvalidArgument("a case without a name");
  const auto wrong = [&](std::string_view what) {
    return InvalidArgument("the case {} {}", info.name, what);
  };
  if (info.variants.empty()) return wrong("has no variant");
  if (!info.tensors) return wrong("has no tensors");
  if (!info.block && !info.dense) return wrong("has no reference");
  if (info.block && info.dense) return wrong("has two references");
  if (!info.exact && !info.bounded) return wrong("has no tier of checks");
  std::set<std::string> names;
  for (const AxisInfo& axis : info.axes) {
    if (axis.name.empty() || !names.insert(axis.name).second) {
      return wrong(fmt::format("has two axes \"{}\"", axis.name));
    }
    if (axis.verify.empty()) {
      return wrong(fmt::format("has no values for axis {}", axis.name));
    }
  }
  names.clear();
  for (const auto* list : {&info.variants, &info.mutants}) {
    for (const ErasedVariant& v : *list) {
      const std::string name =
          v.mutant ? std::string(kMutantPrefix) + v.name : v.name;
      if (v.name.empty() || !names.insert(name).second) {
        return wrong(fmt::format("has two variants \"{}\"", name));
      }
      if (!v.bind) return wrong(fmt::format("cannot bind \"{}\"", name));
    }
  }
  return OkStatus();
}

}  // namespace

const ErasedVariant* CaseInfo::FindVariant(std::string_view name) const {
  const bool mutant = name.starts_with(kMutantPrefix);
  if (mutant) name.remove_prefix(kMutantPrefix.size());
  for (const ErasedVariant& v : mutant ? mutants : variants) {
    if (v.name == name) return &v;
  }
  return nullptr;
}

Registry& Registry::Get() {
  static Registry registry;
  return registry;
}

Status Registry::TryAdd(CaseInfo info) {
  SP_RETURN_IF_ERROR(Validate(info));
  const auto at = std::lower_bound(
      cases_.begin(), cases_.end(), info.name,
      [](const CaseInfo& c, const std::string& name) { return c.name < name; });
  if (at != cases_.end() && at->name == info.name) {
    return InvalidArgument("two cases are called {}", info.name);
  }
  cases_.insert(at, std::move(info));
  return OkStatus();
}

void Registry::Add(CaseInfo info) {
  const Status status = TryAdd(std::move(info));
  if (status.ok()) return;
  fmt::print(stderr, "shardproof: {}\n", status.message());
  std::exit(2);
}

const CaseInfo* Registry::Find(std::string_view name) const {
  for (const CaseInfo& c : cases_) {
    if (c.name == name) return &c;
  }
  return nullptr;
}

namespace internal {

std::optional<std::string> MissingNeed(unsigned needs, int ranks,
                                       const Communicator* comm) {
  if ((needs & kSeveralRanks) != 0 && ranks < 2) {
    return "needs at least two ranks";
  }
  if ((needs & kPowerOfTwoRanks) != 0 && (ranks & (ranks - 1)) != 0) {
    return fmt::format("needs a power of two of ranks, not {}", ranks);
  }
  if ((needs & kSharedMemory) != 0 && comm != nullptr &&
      !comm->SharesMemory()) {
    return "needs ranks that share memory";
  }
  return std::nullopt;
}

StatusOr<std::vector<std::vector<std::string>>> AxisValues(
    const std::vector<AxisInfo>& axes, Purpose purpose,
    const AxisOverrides& overrides) {
  for (const auto& [name, values] : overrides) {
    const auto known = [&name = name](const AxisInfo& a) {
      return a.name == name;
    };
    if (std::any_of(axes.begin(), axes.end(), known)) continue;
    std::vector<std::string_view> names;
    for (const AxisInfo& axis : axes) names.push_back(axis.name);
    return InvalidArgument("there is no axis \"{}\"; there is {}", name,
                           fmt::join(names, ", "));
  }
  std::vector<std::vector<std::string>> out;
  for (const AxisInfo& axis : axes) {
    if (const auto found = overrides.find(axis.name);
        found != overrides.end()) {
      out.push_back(found->second);
    } else {
      out.push_back(purpose == Purpose::kVerify  ? axis.verify
                    : purpose == Purpose::kBench ? axis.bench
                                                 : axis.smoke);
    }
  }
  return out;
}

bool NextPoint(const std::vector<size_t>& sizes, std::vector<size_t>& at) {
  for (size_t i = sizes.size(); i-- > 0;) {
    if (++at[i] < sizes[i]) return true;
    at[i] = 0;
  }
  return false;
}

}  // namespace internal
}  // namespace shardproof
