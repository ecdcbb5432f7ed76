// What the case cannot say: refusals, ties, mixtures with little in them, rows
// to the bit, what is counted on the wire, and that the steady state asks for no
// memory.
#include "layers/expert_parallel_moe/expert_parallel_moe.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "collectives/chunks.h"
#include "layers/expert_parallel_moe/planned_routing.h"
#include "layers/testing/allocations.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;

size_t Size(int64_t n) { return static_cast<size_t>(n); }

// A rank's memory for a mixture in f32, all weights 0 and results -1 at first.
struct Memory {
  Memory(const ExpertParallelMoe& moe, const ExpertParallelMoeConfig& c)
      : tokens(moe.local_tokens()),
        experts(moe.local_experts()),
        x(Size(tokens * c.hidden)),
        dy(x.size()),
        router(Size(c.experts * c.hidden)),
        noise(Size(tokens * c.experts)),
        gate(Size(experts * c.hidden * c.intermediate)),
        up(gate.size()),
        down(gate.size()),
        shared(Size(c.hidden * c.shared_intermediate)),
        d_losses(2),
        y(x.size(), -1),
        dx(x.size(), -1),
        weights(Size(tokens * c.top_k), -1),
        d_weights(weights.size(), -1),
        losses(2, -1),
        d_router(router.size(), -1),
        d_gate(gate.size(), -1),
        d_up(gate.size(), -1),
        d_down(gate.size(), -1),
        d_shared(3, Floats(shared.size(), -1)),
        chosen(weights.size(), -1) {}

  MoeWeights Weights() const {
    return {.router = router.data(),
            .experts = {gate.data(), up.data(), down.data()},
            .shared = {shared.data(), shared.data(), shared.data()}};
  }
  Status Forward(ExpertParallelMoe& moe) {
    return moe.Forward({.x = x.data(),
                        .weights = Weights(),
                        .noise = noise.data(),
                        .y = y.data(),
                        .chosen = chosen.data(),
                        .combine_weights = weights.data(),
                        .losses = losses.data()});
  }
  Status Backward(ExpertParallelMoe& moe) {
    return moe.Backward(
        {.x = x.data(),
         .weights = Weights(),
         .chosen = chosen.data(),
         .combine_weights = weights.data(),
         .dy = dy.data(),
         .d_losses = d_losses.data(),
         .dx = dx.data(),
         .gradients = {.router = d_router.data(),
                       .experts = {d_gate.data(), d_up.data(), d_down.data()},
                       .shared = {d_shared[0].data(), d_shared[1].data(),
                                  d_shared[2].data()}},
         .d_combine_weights = d_weights.data()});
  }
  Status Run(ExpertParallelMoe& moe) {
    SP_RETURN_IF_ERROR(Forward(moe));
    return Backward(moe);
  }

  int64_t tokens, experts;
  Floats x, dy, router, noise, gate, up, down, shared, d_losses;
  Floats y, dx, weights, d_weights, losses, d_router, d_gate, d_up, d_down;
  std::vector<Floats> d_shared;
  std::vector<int32_t> chosen;
};

using Body =
    std::function<Status(const Communicator&, ExpertParallelMoe&, Memory&)>;

void RunMoe(const ExpertParallelMoeConfig& config, const Body& body,
            const CollectiveFamily& family = kAutoCollectives) {
  const Status ran = RunThreads(
      static_cast<int>(config.tokens.size()),
      [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(ExpertParallelMoe moe,
                            ExpertParallelMoe::Create(comm, config, family));
        Memory memory(moe, config);
        return body(comm, moe, memory);
      });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// --- Refusals ----------------------------------------------------------------

TEST(ExpertParallelMoe, RefusesOnEveryRankAlike) {
  struct Wrong {
    const char* what;
    StatusCode code;
    std::function<void(ExpertParallelMoeConfig&, int rank)> spoil;
  };
  const StatusCode invalid = StatusCode::kInvalidArgument;
  const std::vector<Wrong> all = {
      {"make different layers", invalid,
       [](auto& c, int rank) { c.top_k = rank == 1 ? 2 : 1; }},
      {"make different layers", invalid,
       [](auto& c, int rank) { c.z_coefficient = rank == 2 ? 0.5 : 0; }},
      {"tokens of 2 ranks, but there are 3", invalid,
       [](auto& c, int) {
         c.tokens = {4, 4};
       }},
      {"a size is negative", invalid,
       [](auto& c, int) {
         c.tokens = {4, -1, 4};
       }},
      {"a size is negative", invalid,
       [](auto& c, int) { c.shared_intermediate = -1; }},
      {"5 of 4 experts", invalid, [](auto& c, int) { c.top_k = 5; }},
      {"0 of 4 experts", invalid, [](auto& c, int) { c.top_k = 0; }},
      {"1 of 0 experts", invalid, [](auto& c, int) { c.experts = 0; }},
      {"capacity factor", invalid,
       [](auto& c, int) { c.capacity_factor = -1; }},
      {"capacity factor", invalid,
       [](auto& c, int) { c.auxiliary_coefficient = 1.0 / 0.0; }},
      {"not i32", StatusCode::kUnsupported,
       [](auto& c, int) { c.dtype = DType::kI32; }},
      // Rank 2 by itself would have enough.
      {"rank 0: no ", StatusCode::kOutOfMemory, [](auto& c, int) {
         c.tokens = {0, int64_t{1} << 40, 0};
         c.experts = 1;
         c.hidden = 64;
       }}};
  for (const Wrong& wrong : all) {
    std::vector<Status> refusals(3);
    const Status ran = RunThreads(3, [&](const Communicator& comm) {
      ExpertParallelMoeConfig config = {
          .tokens = {4, 0, 4}, .hidden = 5, .intermediate = 6, .experts = 4};
      wrong.spoil(config, comm.rank());
      refusals[Size(comm.rank())] =
          ExpertParallelMoe::Create(comm, config).status();
      return OkStatus();
    });
    ASSERT_TRUE(ran.ok()) << ran.ToString();
    for (const Status& refusal : refusals) {
      EXPECT_EQ(refusal.code(), wrong.code) << refusal.ToString();
      EXPECT_EQ(refusal.message(), refusals[0].message());
      EXPECT_NE(refusal.message().find(wrong.what), std::string::npos)
          << refusal.message();
    }
  }
}

// --- Little in it ------------------------------------------------------------

TEST(ExpertParallelMoe, OfEqualLogitsTheFirstExpertsAreChosen) {
  RunMoe({.tokens = {2, 3},
          .hidden = 4,
          .intermediate = 3,
          .experts = 5,
          .top_k = 2,
          .renormalise = true,
          .auxiliary_coefficient = 1},
         [](const Communicator&, ExpertParallelMoe& moe, Memory& m) {
           SP_RETURN_IF_ERROR(m.Run(moe));
           for (size_t i = 0; i < m.chosen.size(); ++i) {
             EXPECT_EQ(m.chosen[i], static_cast<int32_t>(i % 2));
             EXPECT_EQ(m.weights[i], 0.5F);
           }
           // Probabilities are balanced, whatever is chosen.
           EXPECT_FLOAT_EQ(m.losses[0], 1);
           return OkStatus();
         });
}

TEST(ExpertParallelMoe, WithoutTokensHasZeroGradients) {
  RunMoe({.tokens = {0, 0, 0},
          .hidden = 4,
          .intermediate = 3,
          .experts = 2,
          .auxiliary_coefficient = 1,
          .z_coefficient = 1,
          .shared_intermediate = 2},
         [](const Communicator&, ExpertParallelMoe& moe, Memory& m) {
           m.d_losses = {1, 1};
           SP_RETURN_IF_ERROR(m.Run(moe));
           EXPECT_EQ(m.losses, Floats(2, 0));
           EXPECT_EQ(m.d_router, Floats(m.d_router.size(), 0));
           for (const Floats* d : {&m.d_gate, &m.d_up, &m.d_down}) {
             EXPECT_EQ(*d, Floats(d->size(), 0));
           }
           for (const Floats& d : m.d_shared) EXPECT_EQ(d, Floats(8, 0));
           return OkStatus();
         });
}

// --- Rows to the bit ---------------------------------------------------------

// An expert without gate far from 0 is linear: gelu(z) = z for z > 6. Expert e
// multiplies by 2^(e % 3): up passes coordinate j of x as feature j, which holds
// 8 + a small integer, down scales it. Two choices of equal logits weigh 1/2
// each, so that everything is exact: whatever is sent to a wrong place, weighed
// wrongly or dropped by mistake shows in bits.
struct Exact {
  static constexpr int64_t kHidden = 4, kExperts = 6, kK = 2;

  static double Factor(int64_t e) { return 1 << (e % 3); }
  static float X(int64_t token, int64_t j) {
    return static_cast<float>(8 + (7 * token + 3 * j) % 23);
  }
  static float Dy(int64_t token, int64_t j) {
    return static_cast<float>((5 * token + 11 * j) % 17 - 8);
  }
  // Choices s and s + 1 ahead of all others, and alike: by index.
  static int64_t First(int64_t token) { return (token * token) % 5; }
};

void CheckExact(const std::vector<int64_t>& tokens, double capacity_factor,
                CapacityScope scope, const CollectiveFamily& family) {
  const ExpertParallelMoeConfig config = {.tokens = tokens,
                                          .hidden = Exact::kHidden,
                                          .intermediate = Exact::kHidden,
                                          .experts = Exact::kExperts,
                                          .top_k = Exact::kK,
                                          .renormalise = true,
                                          .capacity_factor = capacity_factor,
                                          .capacity_scope = scope,
                                          .activation = Activation::kGeluTanh};
  const int64_t all = std::accumulate(tokens.begin(), tokens.end(), int64_t{0});
  // As one device would keep them.
  std::vector<bool> kept;
  const std::vector<int64_t> capacities = ExpertCapacities(config);
  std::vector<int64_t> held(Exact::kExperts);
  int64_t token = 0;
  for (size_t r = 0; r < tokens.size(); ++r) {
    const bool own = scope == CapacityScope::kPerRank;
    if (own) std::fill(held.begin(), held.end(), 0);
    for (int64_t i = 0; i < tokens[r]; ++i, ++token) {
      for (int64_t s = 0; s < Exact::kK; ++s) {
        kept.push_back(capacities.empty() ||
                       held[Size(Exact::First(token) + s)]++ <
                           capacities[own ? r : 0]);
      }
    }
  }
  RunMoe(
      config,
      [&](const Communicator& comm, ExpertParallelMoe& moe, Memory& m) {
        const int64_t before = std::accumulate(
            tokens.begin(), tokens.begin() + comm.rank(), int64_t{0});
        const Chunk own =
            BalancedChunk(Exact::kExperts, comm.size(), comm.rank());
        for (int64_t i = 0; i < m.tokens; ++i) {
          for (int64_t j = 0; j < Exact::kHidden; ++j) {
            m.x[Size(i * Exact::kHidden + j)] = Exact::X(before + i, j);
            m.dy[Size(i * Exact::kHidden + j)] = Exact::Dy(before + i, j);
          }
          for (int64_t s = 0; s < Exact::kK; ++s) {
            m.noise[Size(i * Exact::kExperts + Exact::First(before + i) + s)] =
                40;  // The others' probabilities vanish beside it.
          }
        }
        for (int64_t e = 0; e < own.count; ++e) {
          for (int64_t j = 0; j < Exact::kHidden; ++j) {
            const size_t at =
                Size((e * Exact::kHidden + j) * Exact::kHidden + j);
            m.up[at] = 1;
            m.down[at] = static_cast<float>(Exact::Factor(own.begin + e));
          }
        }
        SP_RETURN_IF_ERROR(m.Run(moe));
        for (int64_t i = 0; i < m.tokens * Exact::kHidden; ++i) {
          const int64_t t = before + i / Exact::kHidden, j = i % Exact::kHidden;
          double factor = 0;
          for (int64_t s = 0; s < Exact::kK; ++s) {
            if (kept[Size(t * Exact::kK + s)]) {
              factor += 0.5 * Exact::Factor(Exact::First(t) + s);
            }
          }
          EXPECT_EQ(m.y[Size(i)], factor * Exact::X(t, j)) << t;
          // The router is 0, so that dx comes through the experts alone.
          EXPECT_EQ(m.dx[Size(i)], factor * Exact::Dy(t, j)) << t;
        }
        for (int64_t i = 0; i < m.tokens * Exact::kK; ++i) {
          const int64_t t = before + i / Exact::kK;
          const int64_t e = Exact::First(t) + i % Exact::kK;
          EXPECT_EQ(m.chosen[Size(i)], e);
          EXPECT_EQ(m.weights[Size(i)], 0.5F);
          double want = 0;
          for (int64_t j = 0; j < Exact::kHidden; ++j) {
            want += Exact::Dy(t, j) * Exact::Factor(e) * Exact::X(t, j);
          }
          EXPECT_EQ(m.d_weights[Size(i)],
                    kept[Size(t * Exact::kK + i % Exact::kK)] ? want : 0);
        }
        // dw_down[j', j] = sum over what is kept of dy_j' / 2 x_j.
        for (int64_t i = 0; i < static_cast<int64_t>(m.d_down.size()); ++i) {
          const int64_t e = own.begin + i / (Exact::kHidden * Exact::kHidden);
          double want = 0;
          for (int64_t t = 0; t < all; ++t) {
            const int64_t s = e - Exact::First(t);
            if (s < 0 || s >= Exact::kK || !kept[Size(t * Exact::kK + s)]) {
              continue;
            }
            want += 0.5 * Exact::Dy(t, i / Exact::kHidden % Exact::kHidden) *
                    Exact::X(t, i % Exact::kHidden);
          }
          EXPECT_EQ(m.d_down[Size(i)], want);
        }
        return OkStatus();
      },
      family);
}

TEST(ExpertParallelMoe, RowsGoWhereTheyBelongToTheBit) {
  const std::vector<std::vector<int64_t>> all = {
      {9}, {5, 8}, {7, 0, 4}, {3, 1, 6, 2}, {2, 0, 0, 5, 1, 4, 3, 6}};
  for (const auto& tokens : all) {
    for (const CollectiveFamily& family :
         {kAutoCollectives, kDirectCollectives, kRingCollectives}) {
      SCOPED_TRACE(
          fmt::format("{} tokens, {}", fmt::join(tokens, "+"), family.name));
      CheckExact(tokens, 0, CapacityScope::kAllTokens, family);
      CheckExact(tokens, 0.75, CapacityScope::kAllTokens, family);
      CheckExact(tokens, 0.75, CapacityScope::kPerRank, family);
    }
  }
}

// --- What is sent ------------------------------------------------------------

// On balanced routing, by the formula of the header.
TEST(ExpertParallelMoe, SendsWhatTheFormulaSays) {
  for (const int ranks : {2, 4}) {
    const int64_t tokens = 16, h = 24, e = 8, k = 2;
    const ExpertParallelMoeConfig config = {
        .tokens = std::vector<int64_t>(Size(ranks), tokens / ranks),
        .hidden = h,
        .intermediate = 4,
        .experts = e,
        .top_k = k};
    const auto plan = PlannedChoices(Load::kBalanced, tokens, e, k);
    const Tensor noise = NoiseFor(plan, tokens, e, k, DType::kF32);
    std::atomic<int64_t> bytes{0};
    RunMoe(
        config,
        [&](const Communicator& comm, ExpertParallelMoe& moe, Memory& m) {
          const int64_t n = m.tokens * e;
          std::copy_n(noise.data<float>() + comm.rank() * n, n,
                      m.noise.begin());
          const Traffic before = comm.traffic();
          SP_RETURN_IF_ERROR(m.Forward(moe));
          bytes += (comm.traffic() - before).bytes;
          return OkStatus();
        },
        kDirectCollectives);
    const int64_t sums = ranks * (ranks - 1) * (2 * e + 1) * 8;
    EXPECT_EQ(bytes, 2 * k * tokens * h * 4 * (ranks - 1) / ranks + sums);
    const Cost cost = ExpertParallelMoeForwardCost(
        config, ChoicesPerRank(plan, config.tokens, e, k), kDirectCollectives);
    EXPECT_EQ(cost.total.bytes, bytes);
  }
}

TEST(ExpertParallelMoe, SteadyStateAsksForNoMemory) {
  const ExpertParallelMoeConfig config = {.tokens = {60, 40},
                                          .hidden = 80,
                                          .intermediate = 100,
                                          .experts = 5,
                                          .top_k = 2,
                                          .auxiliary_coefficient = 1,
                                          .shared_intermediate = 30};
  RunMoe(config,
         [](const Communicator& comm, ExpertParallelMoe& moe, Memory& m) {
           // Products are compiled and scratch is made at first use.
           for (int i = 0; i < 2; ++i) SP_RETURN_IF_ERROR(m.Run(moe));
           SP_RETURN_IF_ERROR(comm.Barrier());
           const int64_t before = LargeAllocations();
           SP_RETURN_IF_ERROR(comm.Barrier());
           for (int i = 0; i < 3; ++i) SP_RETURN_IF_ERROR(m.Run(moe));
           SP_RETURN_IF_ERROR(comm.Barrier());
           EXPECT_EQ(LargeAllocations(), before);
           return comm.Barrier();
         });
}

// Everything of a pass is queued; nothing is read before its turn.
TEST(ExpertParallelMoe, RunsOnAStream) {
  RunMoe({.tokens = {3, 2}, .hidden = 4, .intermediate = 3, .experts = 2},
         [](const Communicator&, ExpertParallelMoe& moe, Memory& m) {
           SP_ASSIGN_OR_RETURN(const Stream stream, Stream::Create("moe"));
           std::atomic<bool> ready{false};
           SP_RETURN_IF_ERROR(stream.Run([&] {
             while (!ready) {
             }
             return OkStatus();
           }));
           SP_RETURN_IF_ERROR(moe.Forward({.x = m.x.data(),
                                           .weights = m.Weights(),
                                           .noise = m.noise.data(),
                                           .y = m.y.data(),
                                           .chosen = m.chosen.data(),
                                           .combine_weights = m.weights.data(),
                                           .losses = m.losses.data()},
                                          stream));
           EXPECT_EQ(m.y, Floats(m.y.size(), -1));
           for (size_t i = 1; i < m.noise.size(); i += 2) m.noise[i] = 1;
           ready = true;
           SP_RETURN_IF_ERROR(stream.Synchronize());
           EXPECT_EQ(m.y, Floats(m.y.size(), 0));
           EXPECT_EQ(m.chosen, std::vector<int32_t>(m.chosen.size(), 1));
           return OkStatus();
         });
}

}  // namespace
}  // namespace shardproof
