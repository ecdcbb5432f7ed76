// Planted faults: the kernels with one line of their protocol, or one order of their context, broken. Each must be
// found.
//
// A fault runs in a child process (this program with its name), since ThreadSanitizer reports by ending the process.
// The child runs seeded schedules and counts what each was found by:
//
//     data      a result is not what it should be
//     deadlock  the scheduler has nobody left to run
//     signal    a flag holds a round that the peer cannot be in
//     race      ThreadSanitizer reports a data race, and the child ends
//
// Without ThreadSanitizer every interleaving is sequentially consistent, so that weak orders alone are invisible: the
// table below says for every fault whether it shows without it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/backend/cuda/testing/child.h"
#include "collectives/backend/cuda/testing/kernel_call.h"
#include "collectives/backend/cuda/testing/kernel_run.h"

namespace shardproof::cuda {
namespace {

using testing::DrawInstance;
using testing::Instance;

constexpr uint64_t kSeeds = 200;

// --- The faults
// ----------------------------------------------------------------------------------------------------------

struct RelaxedSignals : StandardOrders {
  static constexpr int kStore = __ATOMIC_RELAXED;
};
struct RelaxedWaits : StandardOrders {
  static constexpr int kLoad = __ATOMIC_RELAXED;
};
// Rank 1 does not send the signal of every 4th round.
struct LostSignal : StandardOrders {
  static bool Sends(int rank, const uint32_t* /*flag*/, uint32_t value) {
    return rank != 1 || value % 4 != 0;
  }
};
struct OneFlagSlot : StandardProtocol {
  static constexpr uint32_t FlagSlot(uint32_t /*round*/) { return 0; }
};
struct OnePayloadSlot : StandardProtocol {
  static constexpr uint32_t PayloadSlot(uint32_t /*round*/) { return 0; }
};
// Signs as the rank after it.
struct WrongSignature : StandardProtocol {
  static constexpr int Signature(int rank, int ranks) {
    return (rank + 1) % ranks;
  }
};
struct NoEntry : StandardProtocol {
  static constexpr bool kEnters = false;
};
struct NoDeparture : StandardProtocol {
  static constexpr bool kDeparts = false;
};
struct NoSyncBeforeSignal : StandardProtocol {
  static constexpr bool kSyncsBeforeSignal = false;
};
struct NoSyncAfterWait : StandardProtocol {
  static constexpr bool kSyncsAfterWait = false;
};
// The next kernel counts from where this one did.
struct ForgetsRound : StandardProtocol {
  static constexpr bool kKeepsRound = false;
};
// What one block has put down, another takes up.
struct OtherMap : StandardProtocol {
  static constexpr int kStageShift = 1;
};

struct Counts {
  int data = 0, deadlock = 0, signal = 0, nothing = 0;
};

template <class Protocol, class Orders>
Counts RunSeeds(Primitive primitive) {
  FiberScheduler scheduler;
  Counts counts;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Instance instance = DrawInstance(primitive, seed);
    if (instance.grid.ranks == 1) instance.grid.ranks = 2;
    for (testing::Call& call : instance.calls) {
      call.dtype = DType::kF32;
      call.op = ReduceOp::kSum;
    }
    const std::string wrong =
        testing::RunInstance<Protocol, Orders, false>(scheduler, instance);
    const auto says = [&](std::string_view what) {
      return wrong.find(what) != std::string::npos;
    };
    if (wrong.empty()) {
      ++counts.nothing;
    } else if (says("wrong data")) {
      ++counts.data;
    } else if (says("deadlock")) {
      ++counts.deadlock;
    } else if (says("a bad signal")) {
      ++counts.signal;
    } else {
      fmt::print("unexpected: {}\n", wrong);
    }
  }
  return counts;
}

struct Fault {
  std::string_view name;
  Primitive primitive;
  std::function<Counts(Primitive)> run;
  // Whether it shows without ThreadSanitizer, and with it.
  bool shows = true;
  bool shows_in_tsan = true;
};

const std::vector<Fault>& AllFaults() {
  constexpr Primitive kOneShot = Primitive::kAllReduceOneShot;
  constexpr Primitive kTwoShot = Primitive::kAllReduceTwoShot;
  using S = StandardProtocol;
  using O = StandardOrders;
  static const std::vector<Fault> faults = {
      {"none_one_shot", kOneShot, RunSeeds<S, O>, false, false},
      {"none_two_shot", kTwoShot, RunSeeds<S, O>, false, false},
      {"relaxed_signals", kOneShot, RunSeeds<S, RelaxedSignals>, false},
      {"relaxed_signals_two_shot", kTwoShot, RunSeeds<S, RelaxedSignals>,
       false},
      {"relaxed_waits", kTwoShot, RunSeeds<S, RelaxedWaits>, false},
      {"lost_signal", kTwoShot, RunSeeds<S, LostSignal>},
      {"lost_signal_barrier", Primitive::kBarrier, RunSeeds<S, LostSignal>},
      {"one_flag_slot", kTwoShot, RunSeeds<OneFlagSlot, O>},
      {"one_payload_slot", kOneShot, RunSeeds<OnePayloadSlot, O>},
      {"wrong_signature", kTwoShot, RunSeeds<WrongSignature, O>},
      {"no_entry", kTwoShot, RunSeeds<NoEntry, O>},
      {"no_entry_all_gather", Primitive::kAllGather, RunSeeds<NoEntry, O>},
      {"no_departure", kTwoShot, RunSeeds<NoDeparture, O>},
      {"no_departure_reduce_scatter", Primitive::kReduceScatter,
       RunSeeds<NoDeparture, O>},
      {"no_departure_broadcast", Primitive::kBroadcast,
       RunSeeds<NoDeparture, O>},
      {"no_departure_all_to_all", Primitive::kAllToAll,
       RunSeeds<NoDeparture, O>},
      {"no_sync_before_signal", kOneShot, RunSeeds<NoSyncBeforeSignal, O>},
      {"no_sync_after_wait", kOneShot, RunSeeds<NoSyncAfterWait, O>},
      {"forgets_round", kTwoShot, RunSeeds<ForgetsRound, O>},
      {"other_map", kOneShot, RunSeeds<OtherMap, O>},
      {"other_map_send_recv", Primitive::kSendRecv, RunSeeds<OtherMap, O>},
  };
  return faults;
}

class FaultsTest : public ::testing::TestWithParam<Fault> {};

TEST_P(FaultsTest, IsFound) {
  const Fault& fault = GetParam();
  const bool tsan = testing::NoThreadSanitizer() == nullptr;
  const testing::ChildResult child =
      testing::RunSelf({std::string(fault.name)});
  const bool race =
      child.output.find("ThreadSanitizer: data race") != std::string::npos;
  // 0: nothing found, 3: found, which no sanitizer ends a process with.
  const bool found = child.exit_code == 3 || race;
  const std::string last =
      race ? "race" : child.output.substr(0, child.output.find('\n'));
  fmt::print("{:28} {}\n", fault.name, last);
  EXPECT_TRUE(child.exit_code == 0 || found) << child.output;
  EXPECT_EQ(child.output.find("unexpected"), std::string::npos) << child.output;
  EXPECT_EQ(found, tsan ? fault.shows_in_tsan : fault.shows) << child.output;
  if (tsan && !fault.shows && fault.shows_in_tsan) {
    EXPECT_TRUE(race) << child.output;
  }
}

INSTANTIATE_TEST_SUITE_P(All, FaultsTest, ::testing::ValuesIn(AllFaults()),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

}  // namespace

// -1 where no fault has this name.
int RunAsChild(std::string_view name) {
  for (const Fault& fault : AllFaults()) {
    if (fault.name != name) continue;
    const Counts counts = fault.run(fault.primitive);
    fmt::print("data {:3}  deadlock {:3}  signal {:3}  nothing {:3}\n",
               counts.data, counts.deadlock, counts.signal, counts.nothing);
    return counts.nothing == static_cast<int>(kSeeds) ? 0 : 3;
  }
  return -1;
}

}  // namespace shardproof::cuda

int main(int argc, char** argv) {
  if (argc == 2) {
    const int status = shardproof::cuda::RunAsChild(argv[1]);
    if (status >= 0) return status;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
