// One dimension along which a case varies: a name, a member of its parameter
// struct, the values to verify and to measure.
//
//     Axis("count", &P::count, {0, 1, 7, 1024})
//         .Bench({1 << 14, 1 << 20})
//         .Smoke({64})
#ifndef SHARDPROOF_TOOLS_HARNESS_AXIS_H_
#define SHARDPROOF_TOOLS_HARNESS_AXIS_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "reference/dtype.h"
#include "reference/reduce_op.h"
#include "reference/status.h"

namespace shardproof {

// Axis values as people write them: 1048576, 1Mi, true, bf16, sum, text.
// Overloads parse and print each type; a new type of axis adds its pair beside
// the type, found by argument-dependent lookup. Errors name what was expected.
//
// Integers accept the suffixes K M G (decimal) and Ki Mi Gi.
Status ParseAxisValue(std::string_view text, int64_t* value);
Status ParseAxisValue(std::string_view text, int* value);
Status ParseAxisValue(std::string_view text, bool* value);
Status ParseAxisValue(std::string_view text, double* value);
Status ParseAxisValue(std::string_view text, std::string* value);
Status ParseAxisValue(std::string_view text, DType* value);
Status ParseAxisValue(std::string_view text, ReduceOp* value);
std::string FormatAxisValue(int64_t value);
std::string FormatAxisValue(int value);
std::string FormatAxisValue(bool value);
std::string FormatAxisValue(double value);  // The shortest that reads back.
std::string FormatAxisValue(const std::string& value);
std::string FormatAxisValue(DType value);
std::string FormatAxisValue(ReduceOp value);

// --axis name=v1,v2: replaces the values of that axis.
using AxisOverrides =
    std::map<std::string, std::vector<std::string>, std::less<>>;

// For `list` and `explain`.
struct AxisInfo {
  std::string name;
  std::vector<std::string> verify, bench, smoke;
};

template <class P>
struct AxisOf {
  AxisInfo info;
  std::function<Status(P&, std::string_view)> set;
  std::function<std::string(const P&)> get;

  template <class V>
  AxisOf& Bench(std::initializer_list<V> values) {
    info.bench = Format(values);
    return *this;
  }
  template <class V>
  AxisOf& Smoke(std::initializer_list<V> values) {
    info.smoke = Format(values);
    return *this;
  }
  template <class V>
  static std::vector<std::string> Format(std::initializer_list<V> values) {
    std::vector<std::string> out;
    for (const V& v : values) {
      if constexpr (std::is_convertible_v<V, std::string_view>) {
        out.emplace_back(v);
      } else {
        out.push_back(FormatAxisValue(v));
      }
    }
    return out;
  }
};

// `values` are what verification covers; measuring uses the same until Bench
// says otherwise, smoke runs the first.
template <class P, class T>
AxisOf<P> Axis(std::string_view name, T P::*member,
               std::initializer_list<std::type_identity_t<T>> values) {
  AxisOf<P> axis;
  axis.info.name = name;
  axis.info.verify = axis.info.bench = AxisOf<P>::Format(values);
  if (!axis.info.verify.empty()) axis.info.smoke = {axis.info.verify.front()};
  axis.set = [member](P& p, std::string_view text) {
    return ParseAxisValue(text, &(p.*member));
  };
  axis.get = [member](const P& p) { return FormatAxisValue(p.*member); };
  return axis;
}

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_AXIS_H_
