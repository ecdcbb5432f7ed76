// The pairing of barrier: how a barrier is observed, variants, planted bugs.
//
// A barrier has no data, so it is given some. Where it is observed, every rank
// stores its input in memory that all can address, enters, and behind the
// barrier loads what the others have stored:
//
//     y_r[s] = x_s                                        for all ranks r, s
//
// which fails where some rank leaves before another entered. Measured, it is
// not observed: the loads would cost as much as the barrier.
#include "tools/harness/case.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "collectives/barrier/barrier.h"

namespace shardproof {
namespace {

struct P {
  bool observed = true;
  int ranks = 1;
};

// One slot in the memory of each rank. The stores of one execution cannot
// overtake the loads of the one before, since the harness brings the ranks
// together before it changes inputs.
class Slots {
 public:
  // Collective.
  static StatusOr<std::shared_ptr<Slots>> Make(const Communicator& comm) {
    auto slots = std::make_shared<Slots>();
    SP_ASSIGN_OR_RETURN(slots->memory_, comm.Allocate(sizeof(int32_t)));
    SP_ASSIGN_OR_RETURN(const Peers peers,
                        comm.Meet({.recv = slots->memory_.data(),
                                   .recv_bytes = sizeof(int32_t)}));
    for (int r = 0; r < comm.size(); ++r) {
      slots->all_.push_back(
          reinterpret_cast<int32_t*>(peers.Write(r, 0, sizeof(int32_t))));
    }
    SP_RETURN_IF_ERROR(comm.Depart(peers));
    return slots;
  }
  void Store(int rank, int32_t value) {
    std::atomic_ref(*all_[static_cast<size_t>(rank)])
        .store(value, std::memory_order_relaxed);
  }
  int32_t Load(int rank) {
    return std::atomic_ref(*all_[static_cast<size_t>(rank)])
        .load(std::memory_order_relaxed);
  }

 private:
  Buffer memory_;
  std::vector<int32_t*> all_;
};

template <class Run>
StatusOr<Operation> Observed(const P& p, RankContext& context, Run run) {
  const auto* x = context.in("x").as<int32_t>();
  auto* y = context.out("y").as<int32_t>();
  if (!p.observed) {
    return Operation([&context, run, x, y] {
      *y = *x;
      return run(context);
    });
  }
  SP_ASSIGN_OR_RETURN(std::shared_ptr<Slots> slots,
                      Slots::Make(context.comm()));
  return Operation([&context, run, x, y, slots]() -> Status {
    const Communicator& comm = context.comm();
    slots->Store(comm.rank(), *x);
    SP_RETURN_IF_ERROR(run(context));
    // Behind the barrier, which may be in a queue.
    return context.stream().Run([&comm, y, slots] {
      for (int r = 0; r < comm.size(); ++r) y[r] = slots->Load(r);
      return OkStatus();
    });
  });
}

template <Status (*kRun)(const Communicator&)>
StatusOr<Operation> Bind(const P& p, RankContext& context) {
  return Observed(p, context, [](RankContext& c) { return kRun(c.comm()); });
}

StatusOr<Operation> BindAuto(const P& p, RankContext& context) {
  return Observed(p, context,
                  [](RankContext& c) { return Barrier(c.comm(), c.stream()); });
}

// --- Planted bugs ------------------------------------------------------------

// Each planted barrier is slow to start on the last rank, as any may be: the
// others see that rank's slot as it was.
template <Status (*kRun)(const Communicator&)>
StatusOr<Operation> BindLate(const P& p, RankContext& context) {
  SP_ASSIGN_OR_RETURN(Operation operation, Bind<kRun>(p, context));
  return Operation([&context, operation = std::move(operation)]() -> Status {
    if (context.comm().rank() == context.comm().size() - 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return operation();
  });
}

Status Nothing(const Communicator&) { return OkStatus(); }

// Dissemination whose loop ends a round early.
Status WithoutLastRound(const Communicator& comm) {
  const int p = comm.size(), r = comm.rank();
  for (int distance = 1; 2 * distance < p; distance *= 2) {
    const std::byte token{1};
    std::byte heard{0};
    SP_RETURN_IF_ERROR(comm.SendRecv(&token, 1, (r + distance) % p, &heard, 1,
                                     (r + p - distance) % p));
  }
  return OkStatus();
}

const RegisterCase kBarrier(Case<P>{
    .name = "collectives/barrier",
    .what = "no rank returns before every rank has entered",
    .axes = {Axis("observed", &P::observed, {true}).Bench({false})},
    .tensors = [](const P& p) -> Tensors {
      Tensors tensors = {Input("x", DType::kI32, {1}, PerRank())};
      tensors.push_back(p.observed
                            ? Output("y", DType::kI32, {p.ranks}, Replicated())
                            : Output("y", DType::kI32, {1}, PerRank()));
      return tensors;
    },
    .reference = BlockReference<P>([](const P& p, const Arithmetic&,
                                      const Inputs& in, const BlockQuery& query,
                                      std::span<Bounded> out) {
      for (size_t i = 0; i < out.size(); ++i) {
        double x = 0;
        in.Read("x",
                p.observed ? static_cast<int>(query.begin) + static_cast<int>(i)
                           : query.rank,
                0, {&x, 1});
        out[i] = {x};
      }
    }),
    .variants =
        {{.name = "auto",
          .bind = BindAuto,
          .needs = kSharedMemory,
          .note = "the fastest of the others here"},
         {.name = "direct",
          .bind = Bind<BarrierDirect>,
          .needs = kSharedMemory,
          .cost = [](const P& p) { return BarrierDirectCost(p.ranks); },
          .note = "one flag round"},
         {.name = "dissemination",
          .bind = Bind<BarrierDissemination>,
          .needs = kSharedMemory,
          .cost = [](const P& p) { return BarrierDisseminationCost(p.ranks); },
          .note = "Hensgen, Finkel and Manber, IJPP 17(1), 1988"},
         {.name = "native",
          .bind = Bind<BarrierNative>,
          .needs = kSharedMemory,
          .native = true,
          .note = "MPI_Barrier"}},
    .mutants = {
        {.name = "nothing", .bind = BindLate<Nothing>, .needs = kSharedMemory},
        {.name = "without_last_round",
         .bind = BindLate<WithoutLastRound>,
         .needs = kSharedMemory}}});

}  // namespace
}  // namespace shardproof
