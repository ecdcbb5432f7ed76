// What the case cannot say: refusals, recomputation to the bit, what is sent and
// kept against the formulas, and that the steady state asks for no memory.
#include "layers/transformer_block/transformer_block.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "layers/testing/allocations.h"

namespace shardproof {
namespace {

using Bytes = std::vector<std::byte>;

TransformerBlockConfig Gpt(bool sequence_parallel) {
  return {.sequences = 2,
          .length = 12,
          .hidden = 32,
          .heads = 4,
          .kv_heads = 4,
          .head_dim = 8,
          .intermediate = 128,
          .bias = true,
          .sequence_parallel = sequence_parallel};
}

TransformerBlockConfig Llama(bool sequence_parallel) {
  return {.sequences = 2,
          .length = 13,
          .hidden = 24,
          .heads = 6,
          .kv_heads = 2,
          .head_dim = 4,
          .intermediate = 50,
          .norm = NormKind::kRmsNorm,
          .activation = Activation::kSwiGlu,
          .rope_theta = 10000,
          .sequence_parallel = sequence_parallel};
}

// A rank's tensors. Element i of each depends on i, and not on the rank.
class Memory {
 public:
  Memory(const TransformerBlock& block, const TransformerBlockConfig& c)
      : dtype_(c.dtype) {
    const int64_t d = c.head_dim, h = c.hidden, f = block.local_features();
    const int64_t fused = block.share().FusedHeads() * d;
    const int64_t sizes[] = {
        h,     h, fused * h, fused, h * block.share().heads.count * d,
        h,     h, h,         f * h, f * h,
        h * f, f, f,         h};
    for (const int64_t n : sizes) {
      weights_.push_back(Filled(n));
      gradients_.emplace_back(weights_.back().size());
    }
    const int64_t n = block.local_tokens() * h;
    x = Filled(n);
    dy = Filled(n);
    y = Bytes(x.size());
    dx = Bytes(x.size());
  }

  TransformerBlockWeights Weights() const {
    return Parts<const void>([this](size_t i) { return weights_[i].data(); });
  }
  TransformerBlockGradients Gradients() {
    return Parts<void>([this](size_t i) { return gradients_[i].data(); });
  }
  Status Run(TransformerBlock& block) {
    SP_RETURN_IF_ERROR(block.Forward(x.data(), Weights(), y.data()));
    return block.Backward(x.data(), Weights(), dy.data(), dx.data(),
                          Gradients());
  }
  bool SameAs(const Memory& other) const {
    return y == other.y && dx == other.dx && gradients_ == other.gradients_;
  }

  Bytes x, dy, y, dx;

 private:
  Bytes Filled(int64_t n) {
    Bytes bytes(static_cast<size_t>(n * SizeOf(dtype_)));
    std::vector<double> values;
    ++filled_;
    for (int64_t i = 0; i < n; ++i) {
      values.push_back(static_cast<double>((i * 37 + filled_ * 11) % 101 - 50) /
                       100);
    }
    FromDouble(dtype_, values.data(), n, bytes.data());
    return bytes;
  }
  template <class Void, class Part>
  static TransformerBlockParts<Void> Parts(Part part) {
    return {.norm1_weight = part(0),
            .norm1_bias = part(1),
            .attention = {part(2), part(3), part(4), part(5)},
            .norm2_weight = part(6),
            .norm2_bias = part(7),
            .mlp = {part(8), part(9), part(10), part(11), part(12), part(13)}};
  }

  DType dtype_;
  int64_t filled_ = 0;
  std::vector<Bytes> weights_, gradients_;
};

void OnRanks(int ranks,
             const std::function<Status(const Communicator&)>& rank_main) {
  const Status ran = RunThreads(ranks, rank_main);
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(TransformerBlock, RefusesOnEveryRankAlike) {
  std::vector<Status> refusals(3);
  OnRanks(3, [&](const Communicator& comm) {
    TransformerBlockConfig config = Gpt(false);
    if (comm.rank() == 1) config.recompute = Recomputation::kFull;
    refusals[static_cast<size_t>(comm.rank())] =
        TransformerBlock::Create(comm, config).status();
    return OkStatus();
  });
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(refusal.message(),
              "ranks 0 and 1 make different layers: \"transformer_block that "
              "recomputes nothing\" and \"transformer_block that recomputes "
              "everything\"");
  }
}

// Activations of 4 TiB in a block whose parts are next to nothing.
TEST(TransformerBlock, RefusesOnEveryRankAlikeWhatIsTooLarge) {
  std::vector<Status> refusals(2);
  OnRanks(2, [&](const Communicator& comm) {
    const TransformerBlockConfig config = {.sequences = int64_t{1} << 20,
                                           .length = 1,
                                           .hidden = int64_t{1} << 20,
                                           .heads = 2,
                                           .kv_heads = 2};
    refusals[static_cast<size_t>(comm.rank())] =
        TransformerBlock::Create(comm, config).status();
    return OkStatus();
  });
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kOutOfMemory);
    EXPECT_EQ(refusal.message().substr(0, 8), "rank 0: ");
    EXPECT_EQ(refusal.ToString(), refusals[0].ToString());
  }
}

TEST(TransformerBlock, RefusesMoreRanksThanHeads) {
  OnRanks(5, [&](const Communicator& comm) {
    EXPECT_EQ(TransformerBlock::Create(comm, Gpt(true)).status().code(),
              StatusCode::kInvalidArgument);
    return OkStatus();
  });
}

TEST(TransformerBlock, RecomputationIsBitwiseTheSame) {
  for (const bool sequence_parallel : {false, true}) {
    for (TransformerBlockConfig config :
         {Gpt(sequence_parallel), Llama(sequence_parallel)}) {
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        config.dtype = dtype;
        OnRanks(4, [&](const Communicator& comm) -> Status {
          TransformerBlockConfig c = config;
          SP_ASSIGN_OR_RETURN(auto keeps, TransformerBlock::Create(comm, c));
          Memory want(keeps, c);
          SP_RETURN_IF_ERROR(want.Run(keeps));
          for (const Recomputation r :
               {Recomputation::kSelective, Recomputation::kFull}) {
            c.recompute = r;
            SP_ASSIGN_OR_RETURN(auto again, TransformerBlock::Create(comm, c));
            Memory got(again, c);
            SP_RETURN_IF_ERROR(got.Run(again));
            EXPECT_TRUE(got.SameAs(want));
            EXPECT_LT(again.kept_bytes(), keeps.kept_bytes());
          }
          return OkStatus();
        });
      }
    }
  }
}

// Those that count from 0 are what none are; every second number is not.
TEST(TransformerBlock, PositionsAreThoseOfItsAttention) {
  OnRanks(2, [&](const Communicator& comm) -> Status {
    TransformerBlockConfig config = Llama(false);
    std::vector<Memory> results;
    for (const int64_t step : {0, 1, 2}) {
      config.positions.clear();
      for (int64_t i = 0; i < config.length && step > 0; ++i) {
        config.positions.push_back(i * step);
      }
      SP_ASSIGN_OR_RETURN(auto block, TransformerBlock::Create(comm, config));
      SP_RETURN_IF_ERROR(results.emplace_back(block, config).Run(block));
    }
    EXPECT_TRUE(results[1].SameAs(results[0]));
    EXPECT_FALSE(results[2].SameAs(results[0]));
    return OkStatus();
  });
}

// Two blocks, one after the other, in two objects that keep everything and in
// one that keeps nothing.
TEST(TransformerBlock, OneThatKeepsNothingServesAll) {
  OnRanks(3, [&](const Communicator& comm) -> Status {
    TransformerBlockConfig config = Llama(true);
    SP_ASSIGN_OR_RETURN(auto first, TransformerBlock::Create(comm, config));
    SP_ASSIGN_OR_RETURN(auto second, TransformerBlock::Create(comm, config));
    config.recompute = Recomputation::kFull;
    SP_ASSIGN_OR_RETURN(auto both, TransformerBlock::Create(comm, config));
    // What each block reads and leaves, in either way.
    const auto run = [&](TransformerBlock& one, TransformerBlock& two,
                         Memory& a, Memory& b) -> Status {
      SP_RETURN_IF_ERROR(one.Forward(a.x.data(), a.Weights(), a.y.data()));
      b.x = a.y;
      SP_RETURN_IF_ERROR(two.Forward(b.x.data(), b.Weights(), b.y.data()));
      SP_RETURN_IF_ERROR(two.Backward(b.x.data(), b.Weights(), b.dy.data(),
                                      b.dx.data(), b.Gradients()));
      a.dy = b.dx;
      return one.Backward(a.x.data(), a.Weights(), a.dy.data(), a.dx.data(),
                          a.Gradients());
    };
    Memory a(first, config), b(second, config), c(both, config),
        d(both, config);
    SP_RETURN_IF_ERROR(run(first, second, a, b));
    SP_RETURN_IF_ERROR(run(both, both, c, d));
    EXPECT_TRUE(c.SameAs(a));
    EXPECT_TRUE(d.SameAs(b));
    return OkStatus();
  });
}

// 4 rho tokens hidden elements each way, and what else is said.
TEST(TransformerBlock, SendsWhatTheFormulasSay) {
  constexpr int kRanks = 4;
  for (const bool sequence_parallel : {false, true}) {
    for (const Recomputation recompute :
         {Recomputation::kNone, Recomputation::kFull}) {
      OnRanks(kRanks, [&](const Communicator& comm) -> Status {
        TransformerBlockConfig config = Gpt(sequence_parallel);
        config.recompute = recompute;
        SP_ASSIGN_OR_RETURN(auto block, TransformerBlock::Create(
                                            comm, config, kRingCollectives));
        Memory m(block, config);
        const auto sent = [&](const Status& ran, Traffic before) -> int64_t {
          EXPECT_TRUE(ran.ok()) << ran.ToString();
          return (comm.traffic() - before).bytes;
        };
        Traffic before = comm.traffic();
        const int64_t forward =
            sent(block.Forward(m.x.data(), m.Weights(), m.y.data()), before);
        before = comm.traffic();
        const int64_t backward =
            sent(block.Backward(m.x.data(), m.Weights(), m.dy.data(),
                                m.dx.data(), m.Gradients()),
                 before);
        // rho sbh e; 24 x 32 numbers, and those of the norms, are cut evenly.
        const int64_t rho = 24 * 32 * 4 * (kRanks - 1) / kRanks;
        // Two all_reduces of two vectors of f32.
        const int64_t norms =
            sequence_parallel ? 2 * 2 * 2 * 32 * 4 * (kRanks - 1) / kRanks : 0;
        EXPECT_EQ(forward, 4 * rho);
        EXPECT_EQ(backward,
                  (sequence_parallel ? 6 : 4) * rho + norms +
                      (recompute == Recomputation::kFull ? forward : 0));
        return OkStatus();
      });
    }
  }
}

// In 16 bits and with intermediate = 4 hidden. 8 of 10 and 2 of 5, since there
// is no dropout; the norms' statistics, which the formulas leave out, are 16
// bytes a token.
TEST(TransformerBlock, KeepsWhatTheFormulasSayLessDropout) {
  for (const int ranks : {1, 2, 4}) {
    for (const bool sequence_parallel : {false, true}) {
      for (const Recomputation recompute :
           {Recomputation::kNone, Recomputation::kSelective,
            Recomputation::kFull}) {
        OnRanks(ranks, [&](const Communicator& comm) -> Status {
          TransformerBlockConfig c = Gpt(sequence_parallel);
          c.dtype = DType::kBF16;
          c.recompute = recompute;
          SP_ASSIGN_OR_RETURN(auto block, TransformerBlock::Create(comm, c));
          const int64_t tokens = c.tokens(), sbh = tokens * c.hidden;
          const int64_t part = sequence_parallel ? ranks : 1;
          const int64_t x = 2 * sbh / part;
          const int64_t scores = 2 * tokens * c.heads * c.length / ranks;
          const int64_t rest =
              6 * sbh / part + 24 * sbh / ranks + 16 * tokens / part;
          const int64_t kept = recompute == Recomputation::kNone ? scores + rest
                               : recompute == Recomputation::kSelective ? rest
                                                                        : 0;
          EXPECT_EQ(block.kept_bytes(), kept);
          if (comm.rank() == 0) {
            const char* const what[] = {"none", "selective", "full"};
            std::printf(
                "%d ranks, %-17s %-9s kept %6ld (formula, with dropout: "
                "%6.0f), "
                "worked in %6ld bytes\n",
                ranks, sequence_parallel ? "sequence-parallel" : "plain",
                what[static_cast<int>(recompute)],
                static_cast<long>(block.kept_bytes() + x),
                ActivationBytesFormula(ranks, c),
                static_cast<long>(block.working_bytes()));
          }
          EXPECT_LE(static_cast<double>(kept + x),
                    ActivationBytesFormula(ranks, c) + 16. * tokens);
          return OkStatus();
        });
      }
    }
  }
}

TEST(TransformerBlock, SteadyStateAsksForNoMemory) {
  for (const bool sequence_parallel : {false, true}) {
    TransformerBlockConfig config = Llama(sequence_parallel);
    config.length = 66;
    config.hidden = 80;
    config.intermediate = 100;
    for (const Recomputation recompute :
         {Recomputation::kNone, Recomputation::kSelective,
          Recomputation::kFull}) {
      config.recompute = recompute;
      OnRanks(2, [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(auto block, TransformerBlock::Create(comm, config));
        Memory memory(block, config);
        // Products are compiled and scratch is made at first use.
        for (int i = 0; i < 2; ++i) SP_RETURN_IF_ERROR(memory.Run(block));
        SP_RETURN_IF_ERROR(comm.Barrier());
        const int64_t before = LargeAllocations();
        SP_RETURN_IF_ERROR(comm.Barrier());
        for (int i = 0; i < 3; ++i) SP_RETURN_IF_ERROR(memory.Run(block));
        SP_RETURN_IF_ERROR(comm.Barrier());
        EXPECT_EQ(LargeAllocations(), before);
        return comm.Barrier();
      });
    }
  }
}

}  // namespace
}  // namespace shardproof
