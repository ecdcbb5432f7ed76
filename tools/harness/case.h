// A case: one value from which conformance test, benchmark, cost model, mutants
// and report line follow.
//
//     struct P {
//       DType dtype; int64_t count; ReduceOp op; bool in_place; int ranks;
//     };
//
//     const RegisterCase kAllReduce(Case<P>{
//         .name = "collectives/all_reduce",
//         .what = "every rank gets the reduction over all ranks",
//         .axes = {Axis("dtype", &P::dtype,
//                       {DType::kF32, DType::kBF16, DType::kI32}),
//                  Axis("count", &P::count, {0, 1, 7, 1024, 100003})
//                      .Bench({4096, 1 << 20}),
//                  Axis("op", &P::op, {ReduceOp::kSum, ReduceOp::kMax})
//                      .Bench({ReduceOp::kSum}),
//                  Axis("in_place", &P::in_place, {false, true})
//                      .Bench({false})},
//         .tensors = [](const P& p) -> Tensors {
//           return {Input("x", p.dtype, {p.count}, PerRank())
//                       .Terms(p.op, p.ranks),
//                   Output("y", p.dtype, {p.count}, Replicated())
//                       .InPlaceOf(p.in_place ? "x" : "")};
//         },
//         .reference = BlockReference<P>(
//             [](const P& p, const Arithmetic& a, const Inputs& in,
//                const BlockQuery& q, std::span<Bounded> out) { ... }),
//         .variants = {{.name = "ring", .bind = BindRing,
//                       .cost = RingCost, .arithmetic = RingArithmetic},
//                      {.name = "native", .bind = BindNative,
//                       .native = true}},
//         .mutants = {{.name = "forgets the last step",
//                      .bind = BindShortRing}},
//         .bytes = [](const P& p) { return Bytes(p); },  // the n of algbw
//         .busbw_factor = [](const P& p) {
//           return 2.0 * (p.ranks - 1) / p.ranks;
//         },
//         .floor = [](const P& p) {
//           return Floor{.copy_bytes = 2.0 * Bytes(p)};
//         }});
//
// P is an aggregate with an `int ranks`, set by the harness; every other member
// that an axis names is set from the axes; the rest keeps its default or is set
// by `.workload`. Where costs depend on it, P also has a `Memory memory`, which
// is set before the cost is asked for.
#ifndef SHARDPROOF_TOOLS_HARNESS_CASE_H_
#define SHARDPROOF_TOOLS_HARNESS_CASE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/harness/axis.h"            // IWYU pragma: export
#include "tools/harness/case_reference.h"  // IWYU pragma: export
#include "tools/harness/registry.h"        // IWYU pragma: export
#include "tools/harness/sharding.h"        // IWYU pragma: export
#include "tools/harness/tensor_spec.h"     // IWYU pragma: export
#include "tools/harness/variant.h"         // IWYU pragma: export

namespace shardproof {

template <class P>
struct Case {
  std::string name;  // "collectives/all_reduce"
  std::string what;  // One line.
  std::vector<AxisOf<P>> axes = {};
  // A reason why these parameters make no instance.
  std::function<std::optional<std::string>(const P&)> skip = {};
  std::function<Tensors(const P&)> tensors = {};
  Reference<P> reference = {};
  std::vector<Variant<P>> variants = {};
  std::vector<Mutant<P>> mutants = {};
  // How often the reference is probed in the bounded tier (reference/probe.h);
  // unset or 0: not at all. For chains, whose bounds would see nothing; each
  // probe evaluates the reference, which must be dense, once more.
  std::function<int(const P&)> probes = {};
  // Run the exact tier (the mathematics is linear, or integer, or selects).
  bool exact = true;
  bool bounded = true;  // Run the bounded tier on float dtypes.
  // The n of algbw = n / time.
  std::function<int64_t(const P&)> bytes = {};
  std::function<double(const P&)> busbw_factor = {};
  std::function<double(const P&)> flops = {};  // Over all ranks.
  std::function<Floor(const P&)> floor = {};
  // The instances to measure for a workload; empty: this case has nothing to do
  // with it.
  std::function<std::vector<P>(const Workload&, int ranks)> workload = {};

  static_assert(
      internal::kDestructible<
          decltype(skip), decltype(tensors), decltype(probes), decltype(bytes),
          decltype(busbw_factor), decltype(floor), decltype(workload)>);
};

// The same without its type; every function of the result can be called.
template <class P>
CaseInfo Erase(Case<P> value);  // case_erase.h

class RegisterCase {
 public:
  template <class P>
  explicit RegisterCase(Case<P> c) {
    Registry::Get().Add(Erase(std::move(c)));
  }
};

}  // namespace shardproof

#include "tools/harness/case_erase.h"  // IWYU pragma: export

#endif  // SHARDPROOF_TOOLS_HARNESS_CASE_H_
