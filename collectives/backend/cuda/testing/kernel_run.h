// Runs the calls of an instance one after the other in fibers, and says what is wrong with what they leave.
//
//     const std::string wrong = RunInstance<StandardProtocol, StandardOrders, true>(scheduler, instance);   // "" if nothing
//
// Around each kernel the threads of a rank do, as a stream would, what comes before and after it: they fill the rank's
// own memory, and take it away. No rank waits for another to do so; only the kernels make them wait.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_TESTING_KERNEL_RUN_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_TESTING_KERNEL_RUN_H_

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "collectives/backend/cuda/fiber/fiber_context.h"
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"
#include "collectives/backend/cuda/kernels/moving.h"
#include "collectives/backend/cuda/kernels/reducing.h"
#include "collectives/backend/cuda/kernels/rounds.h"
#include "collectives/backend/cuda/testing/kernel_call.h"

namespace shardproof::cuda::testing {

template <ReduceOp kOp>
using OpTag = std::integral_constant<ReduceOp, kOp>;

// f(TypeTag<T>, OpTag<op>) with the types and operations that instances have.
template <class T, class F>
bool VisitOp(const Call& call, const F& f) {
  switch (call.op) {
    case ReduceOp::kMax:
      return f(TypeTag<T>{}, OpTag<ReduceOp::kMax>{});
    case ReduceOp::kAvg:
      return f(TypeTag<T>{}, OpTag<ReduceOp::kAvg>{});
    case ReduceOp::kPremulSum:
      return f(TypeTag<T>{}, OpTag<ReduceOp::kPremulSum>{});
    default:
      return f(TypeTag<T>{}, OpTag<ReduceOp::kSum>{});
  }
}
template <bool kAllTypes, class F>
bool VisitReduction(const Call& call, const F& f) {
  if constexpr (!kAllTypes) {
    return f(TypeTag<float>{}, OpTag<ReduceOp::kSum>{});
  } else {
    switch (call.dtype) {
      case DType::kBF16:
        return VisitOp<BFloat16>(call, f);
      case DType::kF16:
        return VisitOp<Float16>(call, f);
      case DType::kE4M3:
        return VisitOp<Float8E4M3>(call, f);
      case DType::kE5M2:
        return VisitOp<Float8E5M2>(call, f);
      case DType::kI32:
        return VisitOp<int32_t>(call, f);
      default:
        return VisitOp<float>(call, f);
    }
  }
}

template <bool kAllTypes, class Rounds>
bool RunKernel(Rounds& rounds, const Call& call, const CollectiveArgs& args) {
  const auto reduction = [&](const auto& kernel) {
    return VisitReduction<kAllTypes>(call, kernel);
  };
  switch (call.primitive) {
    case Primitive::kAllReduceOneShot:
      return reduction([&]<class T, class Op>(TypeTag<T> /*type*/, Op /*op*/) {
        return AllReduceOneShot<T, Op::value>(rounds, args);
      });
    case Primitive::kAllReduceTwoShot:
      return reduction([&]<class T, class Op>(TypeTag<T> /*type*/, Op /*op*/) {
        return AllReduceTwoShot<T, Op::value>(rounds, args);
      });
    case Primitive::kReduceScatter:
      return reduction([&]<class T, class Op>(TypeTag<T> /*type*/, Op /*op*/) {
        return ReduceScatter<T, Op::value>(rounds, args);
      });
    case Primitive::kReduce:
      return reduction([&]<class T, class Op>(TypeTag<T> /*type*/, Op /*op*/) {
        return Reduce<T, Op::value>(rounds, args);
      });
    case Primitive::kAllGather:
      return AllGather(rounds, args);
    case Primitive::kBroadcast:
      return Broadcast(rounds, args);
    case Primitive::kAllToAll:
      return AllToAll(rounds, args);
    case Primitive::kSendRecv:
      return SendRecv(rounds, args);
    case Primitive::kBarrier:
      return Barrier(rounds);
  }
  return false;
}

// What the ranks of an instance hold.
class KernelMemory {
 public:
  explicit KernelMemory(const Instance& instance)
      : pages_(instance.grid.ranks),
        arenas_(instance.grid.ranks),
        staging_(instance.grid.ranks) {
    world_.ranks = instance.grid.ranks;
    world_.slot_bytes = instance.slot_bytes;
    world_.patience = instance.patience;
    const auto vectors = [](int64_t bytes) {
      return std::vector<Vector>(static_cast<size_t>(bytes / kVectorBytes) + 1);
    };
    for (int rank = 0; rank < world_.ranks; ++rank) {
      pages_[rank] = std::make_unique<SignalPage>();
      InitializeSignals(*pages_[rank], instance.first_round);
      world_.pages[rank] = pages_[rank].get();
      staging_[rank] = vectors(2 * world_.ranks * world_.slot_bytes);
      world_.staging[rank] =
          reinterpret_cast<std::byte*>(staging_[rank].data());
      for (auto& arena : arenas_[rank]) {
        arena = vectors(static_cast<int64_t>(CallData::ArenaBytes(instance)));
      }
    }
  }

  const World& world() const { return world_; }
  std::byte* arena(int rank, Arena arena) {
    return reinterpret_cast<std::byte*>(arenas_[rank][arena].data());
  }
  CollectiveArgs Args(const Call& call, const CallData& data) {
    CollectiveArgs args;
    args.count = call.count;
    args.element_bytes = SizeOf(call.dtype);
    args.root = call.root;
    for (int rank = 0; rank < world_.ranks; ++rank) {
      args.send[rank] = arena(rank, data.SendArena()) + data.SendOffset(rank);
      args.recv[rank] = arena(rank, kRecv) + data.RecvOffset(rank);
      args.scales[rank] = data.Scale(rank);
      const int to = rank + call.shift;
      args.destination[rank] =
          to < world_.ranks || call.wraps ? to % world_.ranks : -1;
    }
    return args;
  }

 private:
  World world_;
  std::vector<std::unique_ptr<SignalPage>> pages_;
  std::vector<std::array<std::vector<Vector>, 2>> arenas_;
  std::vector<std::vector<Vector>> staging_;
};

// This thread's share of a copy by its rank.
inline void CopyShare(const FiberThread& thread, std::byte* to,
                      const std::byte* from, size_t bytes) {
  const int threads = thread.grid().blocks * thread.grid().threads;
  const int number = thread.block() * thread.grid().threads + thread.thread();
  const size_t begin = bytes * number / threads;
  const size_t end = bytes * (number + 1) / threads;
  std::memcpy(to + begin, from + begin, end - begin);
}

// The first difference between what a call left and what it should have.
inline std::string Compare(const Bytes& got, const Bytes& want) {
  for (size_t i = 0; got != want && i < want.size(); ++i) {
    if (got[i] == want[i]) continue;
    return fmt::format("byte {} is {:02x}, not {:02x}", i,
                       static_cast<int>(got[i]), static_cast<int>(want[i]));
  }
  return "";
}

template <class Protocol, class Orders, bool kAllTypes>
std::string RunInstance(FiberScheduler& scheduler, const Instance& instance) {
  KernelMemory memory(instance);
  const size_t bytes = CallData::ArenaBytes(instance);
  std::vector<std::unique_ptr<CallData>> data;
  std::vector<CollectiveArgs> args;
  // results[call][rank][arena]
  std::vector<std::vector<std::array<Bytes, 2>>> results;
  for (size_t c = 0; c < instance.calls.size(); ++c) {
    data.push_back(std::make_unique<CallData>(instance, static_cast<int>(c)));
    args.push_back(memory.Args(instance.calls[c], *data.back()));
    results.emplace_back(instance.grid.ranks);
    for (auto& rank : results.back()) rank.fill(Bytes(bytes));
  }
  const Status status =
      scheduler.Run(instance.grid, instance.schedule, [&](FiberThread& thread) {
        FiberContext<Orders> context(thread);
        const int rank = thread.rank();
        for (size_t c = 0; c < instance.calls.size(); ++c) {
          for (const Arena arena : {kSend, kRecv}) {
            CopyShare(thread, memory.arena(rank, arena),
                      data[c]->Before(rank, arena).data(), bytes);
          }
          thread.EndOfKernel();
          Rounds<FiberContext<Orders>, Protocol> rounds(context,
                                                        memory.world());
          if (rounds.Begin() &&
              RunKernel<kAllTypes>(rounds, instance.calls[c], args[c])) {
            rounds.End();
          }
          thread.EndOfKernel();
          for (const Arena arena : {kSend, kRecv}) {
            CopyShare(thread, results[c][rank][arena].data(),
                      memory.arena(rank, arena), bytes);
          }
          thread.EndOfKernel();
        }
      });
  if (!status.ok()) return status.ToString();
  for (int rank = 0; rank < instance.grid.ranks; ++rank) {
    const Failure failure =
        Failure::Unpack(memory.world().pages[rank]->failure);
    if (failure.code == FailureCode::kNone) continue;
    return fmt::format(
        "rank {}, block {}: {} from rank {} in round {}", rank, failure.block,
        failure.code == FailureCode::kDeadline ? "no signal" : "a bad signal",
        failure.peer, failure.round);
  }
  for (size_t c = 0; c < instance.calls.size(); ++c) {
    for (int rank = 0; rank < instance.grid.ranks; ++rank) {
      for (const Arena arena : {kSend, kRecv}) {
        const std::string wrong =
            Compare(results[c][rank][arena], data[c]->After(rank, arena));
        if (wrong.empty()) continue;
        return fmt::format("wrong data: call {}, rank {}, {} memory: {}", c,
                           rank, arena == kSend ? "send" : "recv", wrong);
      }
    }
  }
  return "";
}

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_TESTING_KERNEL_RUN_H_
