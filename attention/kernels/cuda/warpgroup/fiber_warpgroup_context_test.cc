// The machine of the tests: that it multiplies and copies what it is told, and that it finds what a GPU leaves undefined.
#include "attention/kernels/cuda/warpgroup/testing/fiber_warpgroup_context.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "attention/kernels/cuda/warpgroup/testing/warpgroup_problem.h"

namespace shardproof::cuda::testing {
namespace {

// One warpgroup, a tile [128 keys, 64] at 0, of which A is the first 64 rows, and one barrier behind it.
constexpr uint32_t kTileBytes = 128 * kPanelLineBytes, kBarrier = kTileBytes;

struct Machine {
  Machine() : tile(128 * 64) {
    for (size_t i = 0; i < tile.size(); ++i) {
      tile[i] = static_cast<BFloat16>(
          static_cast<float>(static_cast<int>(i * 37 % 31) - 15) / 8);
    }
    const FlashIn tokens = {tile.data(), 64, 0};
    EXPECT_EQ(
        EncodeForFibers(SpecOf(tokens, DType::kBF16, 1, 128, 1, 64, 128), map),
        nullptr);
  }

  float Element(int row, int column) const {
    return static_cast<float>(
        tile[static_cast<size_t>(row) * 64 + static_cast<size_t>(column)]);
  }

  // The tile is copied and waited for, then body(context).
  template <class Body>
  std::string Run(uint64_t seed, const Body& body) {
    const Status status =
        launch({1, kWarpgroupThreads, kTileBytes + 16}, seed,
               [&](FiberWarpgroupContext& context) {
                 if (context.thread() == 0) {
                   context.InitializeBarrier(kBarrier, 1);
                 }
                 context.Sync();
                 if (context.thread() == 0) {
                   context.ExpectBytes(kBarrier, kTileBytes);
                   context.CopyBox(map, 0, kBarrier, 0, 0, 0, 0);
                 }
                 context.Await(kBarrier, 0);
                 body(context);
               });
    return std::string(status.message());
  }
  template <class Body>
  void ExpectFinds(const char* what, const Body& body) {
    for (uint64_t seed = 0; seed < 6; ++seed) {
      const std::string found = Run(seed, body);
      EXPECT_NE(found.find(what), std::string::npos) << found;
    }
  }

  std::vector<BFloat16> tile;
  TileMap map = {};
  WarpgroupLauncher launch;
};

constexpr OperandLayout kTile = {};

// D = A B^T, of 64 and 128 rows of the tile.
template <bool kAccumulates = false>
void StartScores(FiberWarpgroupContext& context, float (&d)[16][4]) {
  context.MultiplyShared<BFloat16, kAccumulates>(d, Encode({}), Encode({}));
  for (uint32_t k = 1; k < 4; ++k) {
    const uint64_t at = Encode({.start = k * 32});
    context.MultiplyShared<BFloat16, true>(d, at, at);
  }
  context.CommitProducts();
}

TEST(FiberWarpgroupContextTest, MultipliesTilesOfSharedMemory) {
  Machine machine;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    const std::string found =
        machine.Run(seed, [&](FiberWarpgroupContext& context) {
          float d[16][4] = {};
          context.FenceProducts();
          StartScores(context, d);
          context.AwaitProducts<0>();
          for (int i = 0; i < 64; ++i) {
            const FragmentPlace place = PlaceInWgmmaD(context.thread(), i);
            float want = 0;
            for (int k = 0; k < 64; ++k) {
              want += machine.Element(place.row, k) *
                      machine.Element(place.column, k);
            }
            ASSERT_EQ(d[i / 4][i % 4], want) << place.row << place.column;
          }
        });
    EXPECT_EQ(found, "");
  }
}

// A of registers, B [16, 64] stored by its rows; twice, so that the second adds.
TEST(FiberWarpgroupContextTest, MultipliesRegisters) {
  Machine machine;
  const std::string found = machine.Run(5, [&](FiberWarpgroupContext& context) {
    const int thread = context.thread();
    const auto a = [](const FragmentPlace& place) {
      return static_cast<float>(place.row - 2 * place.column);
    };
    uint32_t words[4];
    for (int word = 0; word < 4; ++word) {
      words[word] = FiberWarpgroupContext::Pack<BFloat16>(
          a(PlaceInWgmmaA(thread, 2 * word)),
          a(PlaceInWgmmaA(thread, 2 * word + 1)));
    }
    float d[8][4] = {};
    context.FenceProducts();
    for (int twice = 0; twice < 2; ++twice) {
      context.MultiplyWords<BFloat16>(d, words, Encode({.start = 2048}));
    }
    context.CommitProducts();
    context.AwaitProducts<0>();
    for (int i = 0; i < 32; ++i) {
      const FragmentPlace place = PlaceInWgmmaD(thread, i);
      float want = 0;
      for (int k = 0; k < 16; ++k) {
        want += 2 * a({place.row, k}) * machine.Element(16 + k, place.column);
      }
      ASSERT_EQ(d[i / 4][i % 4], want);
    }
  });
  EXPECT_EQ(found, "");
}

TEST(FiberWarpgroupContextTest, FindsResultsTouchedOnTheWay) {
  Machine().ExpectFinds("registers of a product under way",
                        [](FiberWarpgroupContext& context) {
                          float d[16][4] = {};
                          context.FenceProducts();
                          StartScores(context, d);
                          d[3][1] *= 2;
                          context.AwaitProducts<0>();
                        });
}

TEST(FiberWarpgroupContextTest, FindsOperandsTouchedOnTheWay) {
  Machine().ExpectFinds(
      "operands of a product under way", [](FiberWarpgroupContext& context) {
        float d[8][4] = {};
        uint32_t words[4] = {1, 2, 3, 4};
        context.FenceProducts();
        context.MultiplyWords<BFloat16>(d, words, Encode(kTile));
        context.CommitProducts();
        words[2] = 7;
        context.AwaitProducts<0>();
      });
}

// A wait for all groups but one leaves the results of that one.
TEST(FiberWarpgroupContextTest, FindsReadsOfTheLaterGroup) {
  Machine machine;
  machine.ExpectFinds("registers of a product under way",
                      [](FiberWarpgroupContext& context) {
                        float first[16][4] = {}, second[16][4] = {};
                        context.FenceProducts();
                        StartScores(context, first);
                        StartScores(context, second);
                        context.AwaitProducts<1>();
                        EXPECT_NE(first[0][0], PendingProducts::Poison(0));
                        EXPECT_EQ(second[0][0], PendingProducts::Poison(0));
                        second[0][0] = 1;
                        context.AwaitProducts<0>();
                      });
}

TEST(FiberWarpgroupContextTest, FindsProductsThatNobodyAwaits) {
  const auto start = [](FiberWarpgroupContext& context) {
    // Not of the stack of a fiber that has gone.
    static float d[kWarpgroupThreads][16][4];
    context.FenceProducts();
    StartScores(context, d[context.thread()]);
  };
  Machine().ExpectFinds("products that nobody waits for", start);
}

TEST(FiberWarpgroupContextTest, FindsWhatNoFenceIsBefore) {
  Machine().ExpectFinds("without a fence", [](FiberWarpgroupContext& context) {
    float d[16][4] = {};
    context.FenceProducts();
    StartScores(context, d);
    context.AwaitProducts<0>();
    StartScores<true>(context, d);
    context.AwaitProducts<0>();
  });
}

TEST(FiberWarpgroupContextTest, FindsLanesThatDisagree) {
  Machine().ExpectFinds(
      "different descriptors", [](FiberWarpgroupContext& context) {
        float d[16][4] = {};
        context.FenceProducts();
        const auto lane = static_cast<uint32_t>(context.thread() % kWarpLanes);
        const uint64_t at = Encode({.start = lane / 31 * 32});
        context.MultiplyShared<BFloat16, false>(d, at, at);
        context.CommitProducts();
        context.AwaitProducts<0>();
      });
}

TEST(FiberWarpgroupContextTest, FindsCopiesToWhatIsRead) {
  Machine machine;
  machine.ExpectFinds("a copy overwrites what a product reads",
                      [&](FiberWarpgroupContext& context) {
                        float d[16][4] = {};
                        context.FenceProducts();
                        StartScores(context, d);
                        if (context.thread() == 0) {
                          context.ExpectBytes(kBarrier, kTileBytes);
                          context.CopyBox(machine.map, 0, kBarrier, 0, 0, 0, 0);
                        }
                        context.AwaitProducts<0>();
                      });
}

TEST(FiberWarpgroupContextTest, FindsBarriersThatNobodyCompletes) {
  Machine().ExpectFinds("deadlock", [](FiberWarpgroupContext& context) {
    context.Await(kBarrier, 1);
  });
  Machine().ExpectFinds(
      "nobody initialized",
      [](FiberWarpgroupContext& context) { context.Await(kBarrier + 8, 1); });
  // The second phase has one arrival and no bytes: the third is not complete.
  Machine().ExpectFinds("deadlock", [](FiberWarpgroupContext& context) {
    if (context.thread() == 0) context.Arrive(kBarrier);
    context.Await(kBarrier, 1);
    context.Await(kBarrier, 0);
  });
}

TEST(FiberWarpgroupContextTest, FindsRegistersThatAreNotThere) {
  Machine().ExpectFinds(
      "setmaxnreg does not take",
      [](FiberWarpgroupContext& context) { context.GiveRegisters<30>(); });
  Machine().ExpectFinds(
      "takes what it has",
      [](FiberWarpgroupContext& context) { context.TakeRegisters<240>(); });
  Machine().ExpectFinds("setmaxnreg by 96 threads",
                        [](FiberWarpgroupContext& context) {
                          if (context.thread() < 32) return;
                          context.GiveRegisters<240>();
                        });
}

// Zeros where there is no token, and bytes for the barrier all the same.
TEST(FiberWarpgroupContextTest, CopiesZerosBeyondTheTensor) {
  Machine machine;
  const std::string found = machine.Run(1, [&](FiberWarpgroupContext& context) {
    // All have seen the first phase, which the second one would hide.
    context.Sync();
    if (context.thread() == 0) {
      context.ExpectBytes(kBarrier, kTileBytes);
      context.CopyBox(machine.map, 0, kBarrier, 0, 0, 100, 0);
    }
    context.Await(kBarrier, 1);
    float d[16][4] = {};
    context.FenceProducts();
    StartScores(context, d);
    context.AwaitProducts<0>();
    for (int i = 0; i < 64; ++i) {
      const FragmentPlace place = PlaceInWgmmaD(context.thread(), i);
      float want = 0;
      for (int k = 0; place.row < 28 && place.column < 28 && k < 64; ++k) {
        want += machine.Element(100 + place.row, k) *
                machine.Element(100 + place.column, k);
      }
      ASSERT_EQ(d[i / 4][i % 4], want);
    }
  });
  EXPECT_EQ(found, "");
}

}  // namespace
}  // namespace shardproof::cuda::testing
