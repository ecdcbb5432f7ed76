#include "tools/harness/testing/toy_case.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "reference/collectives.h"

namespace shardproof::testing {
namespace {

template <class T>
void Fold(const Peers& peers, int ranks, int64_t count, bool reverse,
          std::vector<std::byte>& out) {
  using Wide = std::conditional_t<std::is_same_v<T, BFloat16>, float, T>;
  auto* sum = reinterpret_cast<T*>(out.data());
  const size_t bytes = static_cast<size_t>(count) * sizeof(T);
  std::vector<const T*> in;
  for (int r = 0; r < ranks; ++r) {
    const int from = reverse ? ranks - 1 - r : r;
    in.push_back(reinterpret_cast<const T*>(peers.Read(from, 0, bytes)));
  }
  for (int64_t i = 0; i < count; ++i) {
    Wide total{};
    for (const T* x : in) total += static_cast<Wide>(x[i]);
    sum[i] = static_cast<T>(total);
  }
}

}  // namespace

Status ToySum(const Toy& toy, RankContext& context, bool reverse) {
  const ConstTensorView x = context.in("x");
  const TensorView y = context.out("y");
  const auto bytes = static_cast<size_t>(x.num_bytes());
  OpScope scope(context.comm(),
                {.label = "toy/sum", .dtype = toy.dtype, .count = toy.count});
  SP_RETURN_IF_ERROR(scope.status());
  SP_ASSIGN_OR_RETURN(const Peers peers,
                      context.comm().Meet({.send = x.data,
                                           .send_bytes = bytes,
                                           .recv = nullptr,
                                           .recv_bytes = 0}));
  std::vector<std::byte> sum(bytes);
  if (bytes > 0) {
    switch (toy.dtype) {
      case DType::kF32:
        Fold<float>(peers, toy.ranks, toy.count, reverse, sum);
        break;
      case DType::kBF16:
        Fold<BFloat16>(peers, toy.ranks, toy.count, reverse, sum);
        break;
      case DType::kI32:
        Fold<int32_t>(peers, toy.ranks, toy.count, reverse, sum);
        break;
      default:
        return Unsupported("the toy adds no {}", Name(toy.dtype));
    }
  }
  // Only now, since in place the output is what peers read.
  SP_RETURN_IF_ERROR(context.comm().Depart(peers));
  if (bytes > 0) std::memcpy(y.data, sum.data(), bytes);
  return OkStatus();
}

Cost ToyCost(const Toy& toy) {
  const int64_t pairs = int64_t{toy.ranks} * (toy.ranks - 1);
  const int64_t bytes = toy.count * SizeOf(toy.dtype);
  Cost cost;
  cost.total = {.bytes = pairs * bytes, .messages = bytes > 0 ? pairs : 0};
  return cost;
}

Variant<Toy> ToyVariant(std::string name, Spoil spoil) {
  Variant<Toy> v;
  v.name = std::move(name);
  v.bind = [spoil = std::move(spoil)](
               const Toy& toy, RankContext& context) -> StatusOr<Operation> {
    auto calls = std::make_shared<int>(0);
    return Operation([=, &context]() -> Status {
      SP_RETURN_IF_ERROR(ToySum(toy, context));
      return spoil ? spoil(toy, context, ++*calls) : OkStatus();
    });
  };
  v.needs = kSharedMemory;
  v.cost = ToyCost;
  return v;
}

Case<Toy> ToyCase(std::vector<Variant<Toy>> variants) {
  Case<Toy> c;
  c.name = "toy/all_reduce";
  c.what = "every rank gets the sum over all ranks";
  c.axes = {
      Axis("dtype", &Toy::dtype, {DType::kF32, DType::kBF16, DType::kI32}),
      Axis("count", &Toy::count, {0, 1, 7, 100, 1000}),
      Axis("in_place", &Toy::in_place, {false, true})};
  c.tensors = [](const Toy& p) -> Tensors {
    return {Input("x", p.dtype, {p.count}, PerRank())
                .Terms(ReduceOp::kSum, p.ranks),
            Output("y", p.dtype, {p.count}, Replicated())
                .InPlaceOf(p.in_place ? "x" : "")};
  };
  c.reference = BlockReference<Toy>([](const Toy& p, const Arithmetic& a,
                                       const Inputs& in, const BlockQuery& q,
                                       std::span<Bounded> out) {
    const Reduction sum{.op = ReduceOp::kSum,
                        .dtype = p.dtype,
                        .ranks = p.ranks,
                        .arithmetic = a,
                        .factors = {}};
    AllReduceExpected(
        sum,
        [&in](int rank, int64_t begin, std::span<double> x) {
          in.Read("x", rank, begin, x);
        },
        q.rank, q.begin, out);
  });
  c.variants = std::move(variants);
  c.bytes = [](const Toy& p) { return p.count * SizeOf(p.dtype); };
  c.busbw_factor = [](const Toy& p) { return 2.0 * (p.ranks - 1) / p.ranks; };
  return c;
}

World& ToyWorld() {
  static const std::unique_ptr<World> world = *CreateWorld("thread");
  return *world;
}

Record RunToy(const CaseInfo& info, std::string_view variant, const Toy& toy,
              const RunOptions& options) {
  const ErasedVariant* v = info.FindVariant(variant);
  if (v == nullptr) std::abort();
  const Instance instance{
      .params = toy,
      .values = {{"dtype", FormatAxisValue(toy.dtype)},
                 {"count", FormatAxisValue(toy.count)},
                 {"in_place", FormatAxisValue(toy.in_place)}},
      .ranks = toy.ranks};
  return RunOnWorld(ToyWorld(), info, *v, instance, options);
}

}  // namespace shardproof::testing
