// A small case for tests of the harness: an all_reduce by loads from the peers,
// and what is needed to spoil it.
//
//     CaseInfo info = Erase(ToyCase({ToyVariant("good")}));
//     Record r = RunToy(info, "good", {.count = 7}, 3);
#ifndef SHARDPROOF_TOOLS_HARNESS_TESTING_TOY_CASE_H_
#define SHARDPROOF_TOOLS_HARNESS_TESTING_TOY_CASE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/harness/case.h"
#include "tools/harness/runner.h"
#include "tools/harness/world.h"

namespace shardproof::testing {

struct Toy {
  DType dtype = DType::kF32;
  int64_t count = 100;
  bool in_place = false;
  int ranks = 1;
};

// Runs after the sum, on every call of the operation; `call` counts from 1.
using Spoil = std::function<Status(const Toy&, RankContext&, int call)>;

// Adds the inputs of all ranks in rank order, or in reverse order on the calls
// for which `reverse` says so, in the accumulator of the type.
Status ToySum(const Toy& toy, RankContext& context, bool reverse = false);
// Bytes and messages that ToySum counts, over all ranks.
Cost ToyCost(const Toy& toy);

Variant<Toy> ToyVariant(std::string name, Spoil spoil = nullptr);
// The case "toy/all_reduce" with exact and bounded tier.
Case<Toy> ToyCase(std::vector<Variant<Toy>> variants);

// The same world of threads for all tests of a program.
World& ToyWorld();
Record RunToy(const CaseInfo& info, std::string_view variant, const Toy& toy,
              const RunOptions& options = {});

}  // namespace shardproof::testing

#endif  // SHARDPROOF_TOOLS_HARNESS_TESTING_TOY_CASE_H_
