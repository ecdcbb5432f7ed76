#include "layers/pairing/mesh_linear_case.h"

#include <cstring>
#include <optional>

#include "collectives/chunks.h"
#include "reference/linear.h"
#include "reference/random.h"

namespace shardproof {
namespace {

Interval Range(const Chunk& chunk) {
  return {chunk.begin, chunk.begin + chunk.count};
}

Sharding ByBlock(const std::string& name,
                 std::function<MeshBlock(int rank)> block) {
  return ShardBy(name, [block = std::move(block)](const Shape&, int rank, int) {
    const MeshBlock own = block(rank);
    return MakeBlock({{Range(own.rows)}, {Range(own.columns)}});
  });
}

// The group in which a sum of `count` elements over `group` takes place.
Communicator GroupOf(const Communicator& group, int64_t count,
                     const Misdirection& misdirection) {
  const bool meant = misdirection.count == 0 || misdirection.count == count;
  return meant && misdirection.instead.valid() ? misdirection.instead : group;
}

Status ReduceElsewhere(const Communicator& comm, const ReduceArgs& args) {
  SP_ASSIGN_OR_RETURN(const Misdirection* const misdirection,
                      MisdirectionOf(comm));
  if (misdirection->keeps_own_term) {
    const auto bytes = static_cast<size_t>(args.count * SizeOf(args.dtype));
    if (comm.rank() == args.root && bytes > 0) {
      std::memcpy(args.recv, args.send, bytes);
    }
    return OkStatus();
  }
  return Reduce(GroupOf(comm, args.count, *misdirection), args);
}

Status AllReduceElsewhere(const Communicator& comm, const AllReduceArgs& args) {
  SP_ASSIGN_OR_RETURN(const Misdirection* const misdirection,
                      MisdirectionOf(comm));
  if (misdirection->keeps_own_term) {
    return kWithoutReduction.all_reduce(comm, args);
  }
  return AllReduce(GroupOf(comm, args.count, *misdirection), args);
}

Status ReduceScatterElsewhere(const Communicator& comm,
                              const ReduceScatterVArgs& args) {
  SP_ASSIGN_OR_RETURN(const Misdirection* const misdirection,
                      MisdirectionOf(comm));
  if (misdirection->keeps_own_term) {
    return kWithoutReduction.reduce_scatter(comm, args);
  }
  return ReduceScatterV(
      GroupOf(comm, Blocks::Listed(args.counts).Total(), *misdirection), args);
}

Status NotFromTheLast(const Communicator& comm, const BroadcastArgs& args) {
  if (comm.size() > 1 && args.root == comm.size() - 1) return OkStatus();
  return Broadcast(comm, args);
}

constexpr CollectiveFamily Misdirected() {
  CollectiveFamily family = kAutoCollectives;
  family.name = "misdirected";
  family.all_reduce = AllReduceElsewhere;
  family.reduce_scatter = ReduceScatterElsewhere;
  family.reduce = ReduceElsewhere;
  return family;
}

constexpr CollectiveFamily MissingTheLastBroadcast() {
  CollectiveFamily family = kAutoCollectives;
  family.name = "missing the last broadcast";
  family.broadcast = NotFromTheLast;
  return family;
}

}  // namespace

constinit const CollectiveFamily kMisdirected = Misdirected();
constinit const CollectiveFamily kMissingTheLastBroadcast =
    MissingTheLastBroadcast();

StatusOr<Misdirection*> MisdirectionOf(const Communicator& group) {
  return group.Attribute<Misdirection>(
      "misdirection",
      []() -> StatusOr<Misdirection> { return Misdirection(); });
}

MeshLinearConfig MeshLinearConfigOf(const MeshLinearPoint& p) {
  return {.tokens = p.tokens,
          .in = p.in,
          .out = p.out,
          .dtype = p.dtype,
          .bias = p.bias};
}

std::vector<AxisOf<MeshLinearPoint>> MeshLinearAxes() {
  using P = MeshLinearPoint;
  return {
      Axis("dtype", &P::dtype,
           {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
          .Bench({DType::kF32, DType::kBF16}),
      Axis("bias", &P::bias, {true}),
      Axis("tokens", &P::tokens, {32, 3}).Bench({512}),
      Axis("in", &P::in, {52, 1}).Bench({1024}),
      Axis("out", &P::out, {40, 7}).Bench({1024}),
  };
}

double MeshLinearFlops(const MeshLinearPoint& p) {
  return 6.0 * static_cast<double>(p.tokens) * static_cast<double>(p.in) *
         static_cast<double>(p.out);
}

std::vector<MeshLinearPoint> MeshLinearWorkload(const Workload& workload,
                                                int ranks) {
  const auto dtype = TypeOf(workload);
  MeshLinearPoint p{
      .bias = FactOf(workload, "bias") == "true",
      .tokens = ShapeOf(workload, "tokens"),
      .in = ShapeOf(workload, "heads") * ShapeOf(workload, "head_dim"),
      .out = ShapeOf(workload, "hidden"),
      .ranks = ranks};
  if (!dtype.ok() || p.tokens * p.in * p.out == 0) return {};
  p.dtype = *dtype;
  return {p};
}

StatusOr<DenseOutputs> MeshLinearExpected(const MeshLinearPoint& p,
                                          const MeshLinearArithmetic& a,
                                          const Inputs& in,
                                          const Sample& sample) {
  const ConstTensorView x = in.Global("x"), w = in.Global("w"),
                        dy = in.Global("dy");
  std::optional<ConstTensorView> b;
  if (p.bias) b = in.Global("b");
  DenseOutputs out;
  out["y"] = LinearForward({x, w, b}, a.y, RowsOf(sample, "y")).values;
  out["dx"] = LinearInputGrad(dy, w, a.dx, RowsOf(sample, "dx")).values;
  out["dw"] = LinearWeightGrad(dy, x, a.dw, RowsOf(sample, "dw")).values;
  if (p.bias) out["db"] = LinearBiasGrad(dy, a.db).values;
  return out;
}

Tensors MeshLinearTensors(const MeshLinearPoint& p,
                          const MeshLinearNames& names,
                          const BlocksOfRank& blocks) {
  const ExactLinearInputs exact =
      *ExactLinear(p.dtype, p.dtype, p.tokens, p.in, p.out);
  const Sharding x = ByBlock(names.x, [=](int r) { return blocks(r).x; });
  const Sharding w = ByBlock(names.w, [=](int r) { return blocks(r).w; });
  const Sharding y = ByBlock(names.y, [=](int r) { return blocks(r).y; });
  const Sharding b = ShardBy(names.b, [=](const Shape&, int rank, int) {
    return MakeBlock({{Range(blocks(rank).b)}});
  });
  Tensors tensors = {
      Input("x", p.dtype, {p.tokens, p.in}, x).Data({.exact = exact.x}),
      Input("w", p.dtype, {p.out, p.in}, w).Data({.exact = exact.w}),
      Input("dy", p.dtype, {p.tokens, p.out}, y).Data({.exact = exact.dy}),
      Output("y", p.dtype, {p.tokens, p.out}, y).SampleDimension(0),
      Output("dx", p.dtype, {p.tokens, p.in}, x).Gradient().SampleDimension(0),
      Output("dw", p.dtype, {p.out, p.in}, w).Gradient().SampleDimension(0)};
  if (!p.bias) return tensors;
  tensors.push_back(Input("b", p.dtype, {p.out}, b).Data({.exact = exact.b}));
  tensors.push_back(Output("db", p.dtype, {p.out}, b).Gradient());
  return tensors;
}

MeshLinearCall MeshLinearCallOf(const MeshLinearPoint& p,
                                const RankContext& c) {
  return {.forward = {.x = c.in("x").data,
                      .w = c.in("w").data,
                      .b = p.bias ? c.in("b").data : nullptr,
                      .y = c.out("y").data},
          .backward = {.x = c.in("x").data,
                       .w = c.in("w").data,
                       .dy = c.in("dy").data,
                       .dx = c.out("dx").data,
                       .dw = c.out("dw").data,
                       .db = p.bias ? c.out("db").data : nullptr}};
}

StatusOr<std::vector<std::byte>> Exchanged(const Communicator& comm,
                                           const ConstTensorView& mine,
                                           int partner) {
  const auto bytes =
      static_cast<size_t>(mine.num_elements() * SizeOf(mine.dtype));
  std::vector<std::byte> theirs(bytes);
  if (partner == comm.rank()) {
    if (bytes > 0) std::memcpy(theirs.data(), mine.data, bytes);
  } else {
    SP_RETURN_IF_ERROR(comm.SendRecv(mine.data, bytes, partner, theirs.data(),
                                     bytes, partner));
  }
  return theirs;
}

Status AddTo(const TensorView& y, const std::vector<std::byte>& bias,
             double times) {
  const int64_t n = y.num_elements();
  std::vector<double> values(static_cast<size_t>(n)), more(values.size());
  ToDouble(y.dtype, y.data, n, values.data());
  ToDouble(y.dtype, bias.data(), n, more.data());
  for (size_t i = 0; i < values.size(); ++i) values[i] += times * more[i];
  FromDouble(y.dtype, values.data(), n, y.data);
  return OkStatus();
}

}  // namespace shardproof
