// Checks one call of a collective against the serial reference, on integers, so
// that the comparison is exact in every type: for the unit tests of the
// primitives, which know no harness.
//
//     ForEachWorld({1, 2, 3}, [](const Communicator& comm) {
//       return Check(comm, {.name = "ring", .dtype = DType::kF32,
//                           .send_count = 7, .recv_count = 7,
//                           .input = ..., .run = ..., .expected = ...});
//     });
#ifndef SHARDPROOF_COLLECTIVES_TESTING_CHECK_H_
#define SHARDPROOF_COLLECTIVES_TESTING_CHECK_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>

#include "collectives/communicator.h"
#include "collectives/traffic.h"
#include "reference/bounded.h"
#include "reference/collectives.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"
#include "reference/status.h"

namespace shardproof::testing {

// What one rank brings to a call. Counts are in elements of this rank's own
// buffers; a buffer of no elements is passed as null.
struct CollectiveCheck {
  std::string name;
  DType dtype = DType::kF32;
  int64_t send_count = 0;
  int64_t recv_count = 0;
  // In place: both lie in one buffer, which starts with the longer of them, and
  // the shorter starts at this element of it.
  std::optional<int64_t> in_place_at = std::nullopt;
  // Element `begin` and on of any rank's `send`.
  InputFn input;
  std::function<Status(const void* send, void* recv)> run;
  // Fills what this rank must have in `recv`; elements left alone must not be
  // written.
  std::function<void(std::span<Bounded> out)> expected;
  // The traffic of all ranks; unset: not compared.
  std::optional<Traffic> traffic = std::nullopt;
  // Buffers are the communicator's, and not ordinary memory.
  bool allocated = false;
};

// SPMD. Runs the call twice and checks the result, the bytes around it, that
// the input is unchanged, and the traffic. The error says what differed first.
Status Check(const Communicator& comm, const CollectiveCheck& check);

// Runs `body` on every rank of a fresh world of threads of each size, and again
// on the even and the odd ranks of 3 to 8, in reverse order, as
// sub-communicators. Reports errors to GoogleTest.
void ForEachWorld(std::initializer_list<int> sizes,
                  const std::function<Status(const Communicator&)>& body);

// The sizes that unit tests cover.
inline constexpr std::initializer_list<int> kWorldSizes = {1, 2, 3, 4,
                                                           5, 7, 8, 16};

// Aperiodic integers that differ between ranks; every sum of `ranks` of them,
// each times at most 2, is exact in every order, in `dtype`.
InputFn SmallIntegers(DType dtype, int ranks);
// The same for `op`: powers of two for products, multiples of `ranks` for
// averages.
InputFn ExactInput(DType dtype, ReduceOp op, int ranks);
// The factor of `rank` where op is kPremulSum: 1, 2 or -1.
double ExactScale(int rank);

// What the reference needs to know of a reduction of exact inputs.
Reduction ExactReduction(DType dtype, ReduceOp op, int ranks);

// Calls `body` for the counts, types and operations worth trying: every type
// with every operation at small counts, a few of them at all counts.
Status ForEachReduction(
    const std::function<Status(int64_t count, DType dtype, ReduceOp op)>& body);
// The same without operations.
Status ForEachCount(
    const std::function<Status(int64_t count, DType dtype)>& body);

}  // namespace shardproof::testing

#endif  // SHARDPROOF_COLLECTIVES_TESTING_CHECK_H_
