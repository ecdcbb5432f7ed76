// What the case cannot say: schedules in numbers, refusals, layers with nothing
// in them, and that the steady state asks for no memory.
#include "layers/overlap/overlap.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "layers/overlap/message_thread.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/testing/allocations.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;
using Kind = OverlapStep::Kind;
constexpr OverlapMode kModes[] = {OverlapMode::kChunked,
                                  OverlapMode::kOverlapped,
                                  OverlapMode::kMessageThread};

void OnRanks(int ranks, const std::function<Status(const Communicator&)>& f) {
  const Status ran = RunThreads(ranks, f);
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// "start 0, multiply 0, wait 0, ..."
std::string Text(const OverlapSchedule& schedule) {
  constexpr const char* kNames[] = {"start", "wait", "multiply", "fold",
                                    "weights"};
  std::string text;
  for (const OverlapStep& s : schedule.steps) {
    if (!text.empty()) text += ", ";
    text += kNames[static_cast<size_t>(s.kind)];
    if (s.kind != Kind::kFold && s.kind != Kind::kWeights) {
      text += " " + std::to_string(s.index);
    }
  }
  return text;
}

TEST(OverlapSchedule, StartsAnExchangeBeforeTheProductOfAnother) {
  OverlapPlace place = {.tokens = 7, .ranks = 2, .rank = 1, .chunks = 2};
  EXPECT_EQ(Text(GatherSchedule(place, true)),
            "start 0, multiply 0, wait 0, start 1, multiply 1, wait 1, "
            "multiply 2, weights");
  EXPECT_EQ(Text(ScatterSchedule(place)),
            "multiply 1, start 0, multiply 2, wait 0, start 1, multiply 0, "
            "wait 1, fold");
  EXPECT_EQ(Text(ScatterAndGatherSchedule(place)),
            "start 0, multiply 1, wait 0, start 2, start 1, multiply 2, wait "
            "1, wait 2, start 3, multiply 0, weights, wait 3, fold");
  place.overlap = false;
  EXPECT_EQ(Text(GatherSchedule(place, false)),
            "multiply 0, start 0, wait 0, multiply 1, start 1, wait 1, "
            "multiply 2");
  EXPECT_EQ(Text(ScatterSchedule(place)),
            "multiply 1, start 0, wait 0, multiply 2, start 1, wait 1, "
            "multiply 0, fold");
}

// What a rank sends is what the other expects, and all tokens are multiplied
// once; on every rank, uneven and with less tokens than ranks.
TEST(OverlapSchedule, PairsEveryMessage) {
  for (const int64_t tokens : {0, 2, 13, 40}) {
    for (const int ranks : {1, 2, 3, 5}) {
      for (const int chunks : {1, 3}) {
        std::vector<OverlapSchedule> all;
        for (int r = 0; r < ranks; ++r) {
          all.push_back(ScatterAndGatherSchedule(
              {.tokens = tokens, .ranks = ranks, .rank = r, .chunks = chunks}));
        }
        for (int r = 0; r < ranks; ++r) {
          const OverlapSchedule& mine = all[static_cast<size_t>(r)];
          std::multiset<int64_t> rows;
          for (const OverlapProduct& p : mine.products) {
            EXPECT_EQ(p.from, p.to);
            for (int64_t i = 0; i < p.count; ++i) rows.insert(p.from + i);
          }
          EXPECT_EQ(std::ssize(rows), tokens);
          EXPECT_EQ(std::set(rows.begin(), rows.end()).size(), rows.size());
          for (size_t i = 0; i < mine.exchanges.size(); ++i) {
            const OverlapExchange& e = mine.exchanges[i];
            const auto from =
                static_cast<size_t>((r + ranks - e.distance) % ranks);
            const OverlapExchange& theirs = all[from].exchanges[i];
            EXPECT_EQ(e.in.count, theirs.out.count);
            const int64_t begin =
                BalancedChunk(tokens, ranks, static_cast<int64_t>(from)).begin;
            const int64_t own = BalancedChunk(tokens, ranks, r).begin;
            if (e.flow == OverlapExchange::Flow::kGather) {
              EXPECT_EQ(e.in.begin, begin + theirs.out.begin);
            } else {
              EXPECT_EQ(e.in.begin - (e.distance - 1) *
                                         BalancedChunk(tokens, ranks, r).count,
                        theirs.out.begin - own);
            }
          }
        }
      }
    }
  }
}

// As many bytes as the collectives, in C messages for each pair.
TEST(OverlapLinear, CostsWhatTheCollectivesCost) {
  for (const OverlapKind kind : {OverlapKind::kColumn, OverlapKind::kRow}) {
    const OverlapConfig config = {
        .kind = kind, .tokens = 41, .in = 6, .out = 10, .chunks = 3};
    const int64_t width = kind == OverlapKind::kColumn ? 6 : 10;
    std::vector<int64_t> counts;
    for (int r = 0; r < 4; ++r) {
      counts.push_back(BalancedChunk(41, 4, r).count * width);
    }
    const Cost gather = AllGatherVRingCost(counts, DType::kF32);
    EXPECT_EQ(OverlapForwardCost(4, config).total,
              (Traffic{gather.total.bytes, 4 * 3 * 3}));
    const int flows = kind == OverlapKind::kColumn ? 2 : 1;
    EXPECT_EQ(OverlapBackwardCost(4, config).total,
              (Traffic{flows * gather.total.bytes, flows * 4 * 3 * 3}));
  }
}

TEST(OverlapLinear, RefusesOnEveryRankAlike) {
  std::vector<Status> refusals(2);
  OnRanks(2, [&](const Communicator& comm) {
    const auto code = [&](const OverlapConfig& config) {
      return OverlapLinear::Create(comm, config).status().code();
    };
    EXPECT_EQ(code({.in = -1}), StatusCode::kInvalidArgument);
    EXPECT_EQ(code({.chunks = 0}), StatusCode::kInvalidArgument);
    EXPECT_EQ(code({.dtype = DType::kI32}), StatusCode::kUnsupported);
    refusals[static_cast<size_t>(comm.rank())] =
        OverlapLinear::Create(comm, {.chunks = 1 + comm.rank()}).status();
    return OkStatus();
  });
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(refusal.message(),
              "ranks 0 and 1 make different layers: \"column linear layer in 1 "
              "chunks of 0 tokens, 0 to 0, f32, overlapped\" and \"column "
              "linear layer in 2 chunks of 0 tokens, 0 to 0, f32, "
              "overlapped\"");
  }
}

// Memory for both passes with x = 2, w = 3, b = 5 and dy = 7 everywhere.
struct Arrays {
  Arrays(const OverlapLinear& layer, const OverlapConfig& config) {
    const bool column = config.kind == OverlapKind::kColumn;
    const int64_t own = layer.local_tokens(), part = layer.local_features();
    const auto size = [](int64_t a, int64_t b) {
      return static_cast<size_t>(a * b);
    };
    x.assign(column ? size(own, config.in) : size(config.tokens, part), 2);
    dy.assign(column ? size(config.tokens, part) : size(own, config.out), 7);
    w.assign(size(part, column ? config.in : config.out), 3);
    b.assign(size(column ? part : config.out, 1), 5);
    y.assign(dy.size(), -1);
    dx.assign(x.size(), -1);
    dw.assign(w.size(), -1);
    db.assign(b.size(), -1);
  }
  Status Run(const OverlapLinear& layer) {
    SP_RETURN_IF_ERROR(layer.Forward({x.data(), w.data(), b.data(), y.data()}));
    return layer.Backward(
        {x.data(), w.data(), dy.data(), dx.data(), dw.data(), db.data()});
  }
  Floats x, w, b, dy, y, dx, dw, db;
};

void Expect(int ranks, const OverlapConfig& base) {
  for (const OverlapKind kind : {OverlapKind::kColumn, OverlapKind::kRow}) {
    for (const OverlapMode mode : kModes) {
      OverlapConfig config = base;
      config.kind = kind;
      config.mode = mode;
      config.bias = true;
      OnRanks(ranks, [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(const OverlapLinear layer,
                            OverlapLinear::Create(comm, config));
        Arrays a(layer, config);
        SP_RETURN_IF_ERROR(a.Run(layer));
        const auto all = [](const Floats& f, int64_t value) {
          return f == Floats(f.size(), static_cast<float>(value));
        };
        EXPECT_TRUE(all(a.y, config.in * 2 * 3 + 5));
        EXPECT_TRUE(all(a.dx, config.out * 7 * 3));
        EXPECT_TRUE(all(a.dw, config.tokens * 7 * 2));
        EXPECT_TRUE(all(a.db, config.tokens * 7));
        return OkStatus();
      });
    }
  }
}

TEST(OverlapLinear, OnOneRank) {
  Expect(1, {.tokens = 4, .in = 5, .out = 3, .chunks = 2});
}
TEST(OverlapLinear, MoreRanksThanTokensAndFeatures) {
  Expect(5, {.tokens = 3, .in = 4, .out = 2, .chunks = 2});
}
TEST(OverlapLinear, MoreChunksThanTokens) {
  Expect(3, {.tokens = 7, .in = 4, .out = 6, .chunks = 9});
}
// A schedule has no steps for chunks that are empty everywhere.
TEST(OverlapLinear, AnyNumberOfChunks) {
  const OverlapConfig config = {
      .tokens = 7, .in = 4, .out = 6, .chunks = 1 << 30};
  EXPECT_EQ(PlanOverlap(config, 3, 2).forward.exchanges.size(), 2U * 3);
  EXPECT_EQ(OverlapForwardCost(3, config).total.messages, 2 * 7);
  Expect(3, config);
}
TEST(OverlapLinear, RefusesMoreExchangesThanASchedulesRoom) {
  const auto create = [](int64_t tokens, int chunks) {
    std::vector<Status> made(3);
    OnRanks(3, [&](const Communicator& comm) {
      made[static_cast<size_t>(comm.rank())] =
          OverlapLinear::Create(comm, {.tokens = tokens, .chunks = chunks})
              .status();
      return OkStatus();
    });
    for (const Status& s : made) EXPECT_EQ(s.ToString(), made[0].ToString());
    return made[0];
  };
  const Status refusal = create(int64_t{1} << 40, 1 << 30);
  EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal.message(),
            "column linear layer in 1073741824 chunks of 1099511627776 tokens, "
            "0 to 0, f32, overlapped: 4294967296 exchanges in a pass are more "
            "than 1048576; use fewer chunks");
  EXPECT_EQ(create(int64_t{1} << 40, (1 << 18) + 1).code(),
            StatusCode::kInvalidArgument);
  EXPECT_TRUE(create(0, 1 << 30).ok());
}
TEST(OverlapLinear, WithoutTokens) {
  Expect(3, {.tokens = 0, .in = 4, .out = 6, .chunks = 2});
}
TEST(OverlapLinear, WithoutInputs) { Expect(3, {.tokens = 4, .out = 6}); }
TEST(OverlapLinear, WithoutOutputs) { Expect(3, {.tokens = 4, .in = 6}); }

// With messages that are not so small that the backend keeps a copy of each.
TEST(OverlapLinear, AsksForNoMemoryInTheSteadyState) {
  for (const OverlapKind kind : {OverlapKind::kColumn, OverlapKind::kRow}) {
    for (const OverlapMode mode : kModes) {
      const OverlapConfig config = {.kind = kind,
                                    .tokens = 96,
                                    .in = 160,
                                    .out = 160,
                                    .bias = true,
                                    .chunks = 3,
                                    .mode = mode};
      OnRanks(3, [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(const OverlapLinear layer,
                            OverlapLinear::Create(comm, config));
        Arrays a(layer, config);
        for (int warm_up = 0; warm_up < 3; ++warm_up) {
          SP_RETURN_IF_ERROR(a.Run(layer));
        }
        SP_RETURN_IF_ERROR(comm.Barrier());
        const int64_t before = LargeAllocations();
        SP_RETURN_IF_ERROR(comm.Barrier());
        for (int i = 0; i < 5; ++i) SP_RETURN_IF_ERROR(a.Run(layer));
        SP_RETURN_IF_ERROR(comm.Barrier());
        EXPECT_EQ(LargeAllocations(), before);
        return comm.Barrier();
      });
    }
  }
}

// Of any size: what queues messages is there from the beginning. They are empty,
// since a backend may ask for memory for as many as are under way.
TEST(MessageThread, AsksForNoMemoryInTheSteadyState) {
  OnRanks(1, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const auto thread, MessageThread::Create(comm, 4));
    const auto exchange = [&]() -> Status {
      int64_t last = 0;
      for (int i = 0; i < 4; ++i) {
        SP_ASSIGN_OR_RETURN(last, thread->Start({}));
      }
      return thread->Wait(last);
    };
    SP_RETURN_IF_ERROR(exchange());
    const int64_t before = Allocations();
    for (int i = 0; i < 100; ++i) SP_RETURN_IF_ERROR(exchange());
    EXPECT_EQ(Allocations(), before);
    return OkStatus();
  });
}

TEST(MessageThread, ExchangesInOrder) {
  OnRanks(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const auto thread, MessageThread::Create(comm, 3));
    const int other = 1 - comm.rank();
    std::vector<Floats> in(6, Floats(5000)), out;
    for (int i = 0; i < 6; ++i) {
      out.emplace_back(5000, static_cast<float>(10 * comm.rank() + i));
    }
    for (size_t i = 0; i < 6; ++i) {
      SP_ASSIGN_OR_RETURN(const int64_t number,
                          thread->Start({.out = out[i].data(),
                                         .out_bytes = out[i].size() * 4,
                                         .to = other,
                                         .in = in[i].data(),
                                         .in_bytes = in[i].size() * 4,
                                         .from = other}));
      EXPECT_EQ(number, static_cast<int64_t>(i));
      if (i % 3 == 2) SP_RETURN_IF_ERROR(thread->Wait(number));
    }
    for (int i = 0; i < 6; ++i) {
      EXPECT_EQ(in[static_cast<size_t>(i)],
                Floats(5000, static_cast<float>(10 * other + i)));
    }
    return OkStatus();
  });
}

TEST(MessageThread, HasRoomForAsManyAsItWasMadeFor) {
  OnRanks(1, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const auto thread, MessageThread::Create(comm, 2));
    for (int64_t first = 0; first < 4; first += 2) {
      for (int64_t i = 0; i < 2; ++i) {
        SP_ASSIGN_OR_RETURN(const int64_t number, thread->Start({}));
        EXPECT_EQ(number, first + i);
      }
      EXPECT_EQ(thread->Start({}).status().code(),
                StatusCode::kInvalidArgument);
      SP_RETURN_IF_ERROR(thread->Wait(first + 1));
    }
    return OkStatus();
  });
}

// A peer that fails ends the wait of one that waits for its messages.
TEST(MessageThread, EndsWhenAPeerAborts) {
  Status end;
  std::atomic<bool> started = false;
  static_cast<void>(RunThreads(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const auto thread, MessageThread::Create(comm, 1));
    Floats in(5000), out(5000);
    if (comm.rank() == 1) {
      // Not before rank 0 has left what is collective.
      started.wait(false);
      comm.Abort("no more");
    } else {
      SP_ASSIGN_OR_RETURN(const int64_t number,
                          thread->Start({.out = out.data(),
                                         .out_bytes = out.size() * 4,
                                         .to = 1,
                                         .in = in.data(),
                                         .in_bytes = in.size() * 4,
                                         .from = 1}));
      started = true;
      started.notify_one();
      end = thread->Wait(number);
    }
    return OkStatus();
  }));
  EXPECT_EQ(end.code(), StatusCode::kAborted) << end.ToString();
}

}  // namespace
}  // namespace shardproof
