// Variants whose verdicts are known, for the tests of the mains: what a main
// does not report, nobody sees.
#include "tools/harness/testing/toy_case.h"

namespace shardproof::testing {
namespace {

Status Wrong(const Toy&, RankContext& context, int /*call*/) {
  context.out("y").as<float>()[99] += 1;
  return OkStatus();
}

Case<Toy> Planted() {
  Variant<Toy> refused = ToyVariant("refused");
  refused.refuses = [](const Toy&) -> std::optional<std::string> {
    return "the moon is full";
  };
  Case<Toy> c =
      ToyCase({ToyVariant("right"), ToyVariant("wrong", Wrong), refused});
  c.name = "toy/planted";
  c.axes = {Axis("count", &Toy::count, {100})};
  c.mutants = {{.name = "harmless", .bind = ToyVariant("").bind},
               {.name = "harmful", .bind = ToyVariant("", Wrong).bind}};
  return c;
}

const RegisterCase kPlanted(Planted());

}  // namespace
}  // namespace shardproof::testing
