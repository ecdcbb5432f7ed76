// The variants of a case: one algorithm each, and the planted bugs.
#ifndef SHARDPROOF_TOOLS_HARNESS_VARIANT_H_
#define SHARDPROOF_TOOLS_HARNESS_VARIANT_H_

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "reference/bounded.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

// What a variant works with on one rank. Views live as long as the operation
// that Bind returns. A rank that holds nothing of a tensor gets a view without
// elements; its data may be null.
class RankContext {
 public:
  virtual ~RankContext() = default;
  virtual const Communicator& comm() const = 0;
  // The stream to launch on; the harness synchronises it.
  virtual const Stream& stream() const = 0;
  // The local block. Asking for a tensor that the case does not have ends the
  // process.
  virtual ConstTensorView in(std::string_view tensor) const = 0;
  virtual TensorView out(std::string_view tensor) const = 0;
};

// One execution, called many times; must leave the same outputs each time.
using Operation = std::function<Status()>;

// What a variant needs from the world; it is `unsupported` elsewhere, with the
// reason.
enum Needs : unsigned {
  kAnywhere = 0,
  kSharedMemory = 1,
  kPowerOfTwoRanks = 2,
  kSeveralRanks = 4
};

namespace internal {
// Asked for inside a template, it settles the exception specifications of the
// implicit destructors of F. Without, GCC 12 stops with an internal error
// (nothrow_spec_p) at the default initialisers of such members, where a brace
// list initialises a vector of the template.
template <class... F>
inline constexpr bool kDestructible = (std::is_nothrow_destructible_v<F> &&
                                       ...);
}  // namespace internal

template <class P>
struct Variant {
  std::string name;
  // Collective. Sets up (weights, sub-communicators, scratch) outside the timed
  // region and returns the operation. An error must be the same on all ranks,
  // or come before any communication.
  std::function<StatusOr<Operation>(const P&, RankContext&)> bind;
  unsigned needs = kAnywhere;
  // A reason why not, beyond `needs`.
  std::function<std::optional<std::string>(const P&)> refuses = {};
  // Unset: traffic is not compared.
  std::function<Cost(const P&)> cost = {};
  // Unset: Arithmetic::For(dtype of the first output, ranks).
  std::function<Arithmetic(const P&)> arithmetic = {};
  bool native = false;        // The library under test: a baseline, not ours.
  bool deterministic = true;  // Run to run bitwise equal; checked.
  std::string note = {};      // For `explain`: the algorithm and its source.

  static_assert(internal::kDestructible<decltype(bind), decltype(refuses),
                                        decltype(cost), decltype(arithmetic)>);
};

// A planted bug that the checks must find.
template <class P>
struct Mutant {
  std::string name;
  std::function<StatusOr<Operation>(const P&, RankContext&)> bind;
  // Where the bug can show at all (unset: from 2 ranks up with a non-empty
  // problem).
  std::function<bool(const P&)> applies = {};
  unsigned needs = kAnywhere;
  // What it would send if it were right: for bugs that only traffic shows.
  // Unset: traffic is not compared.
  std::function<Cost(const P&)> cost = {};

  static_assert(internal::kDestructible<decltype(bind), decltype(applies),
                                        decltype(cost)>);
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_VARIANT_H_
