// What context_parallel_block_test.cc cannot say of the core alone: where heads
// may lie, in every type; refusals, memory, and cores that take turns.
#include "attention/context_parallel/context_parallel_core.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attention/all_gather_kv/all_gather_kv.h"
#include "attention/ring/ring.h"
#include "attention/testing/scheme_testing.h"
#include "attention/ulysses/ulysses.h"
#include "collectives/mesh.h"
#include "layers/attention_block/attention_block.h"
#include "layers/testing/allocations.h"
#include "reference/compare.h"
#include "reference/random.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

constexpr ContextScheme kSchemes[] = {
    ContextScheme::kRing, ContextScheme::kAllGatherKv, ContextScheme::kUlysses};
constexpr SequenceLayout kLayouts[] = {SequenceLayout::kContiguous,
                                       SequenceLayout::kStriped,
                                       SequenceLayout::kZigzag};

// What a rank's core of `context` is made with, over `ranks`.
AttentionShape ShapeOn(const ContextParallelConfig& context, int ranks,
                       int rank) {
  const StatusOr<std::vector<int64_t>> positions =
      LocalPositions(context.LayoutOver(ranks), rank);
  const int64_t tokens = positions.ok() ? std::ssize(*positions) : 0;
  return {.sequences = 2,
          .queries = tokens,
          .keys = tokens,
          .heads = 4,
          .kv_heads = 2,
          .heads_per_kv = 2,
          .head_dim = 8,
          .causal = true,
          .scale = 0.3};
}

ShardedAttentionConfig WholeOf(const AttentionShape& shape,
                               const ContextParallelConfig& context) {
  return {.sequences = shape.sequences,
          .tokens = context.tokens,
          .heads = shape.heads,
          .kv_heads = shape.kv_heads,
          .head_dim = shape.head_dim,
          .scale = shape.scale,
          .layout = context.layout,
          .visibility = {.causal = shape.causal},
          .dtype = shape.dtype};
}

// Heads of [sequences x tokens] in a matrix with `gap` more columns to their
// left and right, which stay as they are.
class Placed {
 public:
  Placed(const AttentionShape& shape, int64_t heads, int64_t gap)
      : width_(heads * shape.head_dim),
        gap_(gap),
        all_(shape.dtype, {shape.sequences * shape.queries, width_ + 2 * gap}) {
    Poison(all_.dtype(), all_.raw(), all_.num_elements());
  }
  // Element i of the heads does not depend on the gap.
  Placed(const AttentionShape& shape, int64_t heads, int64_t gap,
         const char* name, int rank)
      : Placed(shape, heads, gap) {
    const auto key = StreamKey{.seed = 9,
                               .tensor = TensorId(name),
                               .rank = static_cast<uint64_t>(rank)};
    for (int64_t t = 0; t < all_.shape()[0]; ++t) {
      Fill(Uniform(all_.dtype(), 1.5), key, t * width_, width_, Row(t));
    }
  }

  Heads heads() { return {Row(0), width_ + 2 * gap_}; }
  ConstHeads heads() const {
    return {const_cast<Placed*>(this)->Row(0), width_ + 2 * gap_};
  }
  // The heads without what is beside them.
  std::vector<std::byte> Bytes() const {
    std::vector<std::byte> bytes;
    const auto n = static_cast<size_t>(width_ * SizeOf(all_.dtype()));
    for (int64_t t = 0; t < all_.shape()[0]; ++t) {
      const std::byte* const row = const_cast<Placed*>(this)->Row(t);
      bytes.insert(bytes.end(), row, row + n);
    }
    return bytes;
  }
  bool GapsAreUntouched() const {
    const int64_t stride = width_ + 2 * gap_;
    for (int64_t i = 0; i < all_.num_elements(); ++i) {
      const int64_t column = i % stride;
      const bool gap = column < gap_ || column >= gap_ + width_;
      if (gap && !IsPoison(all_.dtype(), all_.raw(), i)) return false;
    }
    return true;
  }

 private:
  std::byte* Row(int64_t token) {
    return all_.bytes().data() +
           (token * (width_ + 2 * gap_) + gap_) * SizeOf(all_.dtype());
  }
  int64_t width_, gap_;
  Tensor all_;
};

// A rank's tensors, with gaps or without.
struct RankHeads {
  RankHeads(const AttentionShape& s, int64_t gap, int rank,
            const std::string& set = "")
      : q(s, s.heads, gap, ("q" + set).c_str(), rank),
        k(s, s.kv_heads, gap, ("k" + set).c_str(), rank),
        v(s, s.kv_heads, gap, ("v" + set).c_str(), rank),
        d_o(s, s.heads, gap, ("do" + set).c_str(), rank),
        o(s, s.heads, gap),
        dq(s, s.heads, gap),
        dk(s, s.kv_heads, gap),
        dv(s, s.kv_heads, gap),
        lse(Accumulator(s.dtype), {s.sequences, s.heads, s.queries}) {}

  static ConstHeads In(const Placed& p) { return p.heads(); }
  Status Forward(AttentionCore& core, const Stream& stream = Stream::Inline()) {
    return core.Forward(stream,
                        {.q = In(q), .k = In(k), .v = In(v), .o = o.heads()});
  }
  Status Backward(AttentionCore& core,
                  const Stream& stream = Stream::Inline()) {
    return core.Backward(stream, {.q = In(q),
                                  .k = In(k),
                                  .v = In(v),
                                  .o = In(o),
                                  .d_o = In(d_o),
                                  .dq = dq.heads(),
                                  .dk = dk.heads(),
                                  .dv = dv.heads()});
  }
  Status Both(AttentionCore& core, const Stream& stream = Stream::Inline()) {
    SP_RETURN_IF_ERROR(Forward(core, stream));
    return Backward(core, stream);
  }
  // By a scheme itself; without gaps.
  template <class Scheme>
  Status Both(const StatusOr<Scheme>& scheme) {
    SP_RETURN_IF_ERROR(scheme.status());
    SP_RETURN_IF_ERROR(
        scheme->Forward({q.heads().data, k.heads().data, v.heads().data,
                         o.heads().data, lse.raw()}));
    return scheme->Backward({q.heads().data, k.heads().data, v.heads().data,
                             o.heads().data, lse.raw(), d_o.heads().data,
                             dq.heads().data, dk.heads().data,
                             dv.heads().data});
  }
  bool SameAs(const RankHeads& other) const {
    return o.Bytes() == other.o.Bytes() && dq.Bytes() == other.dq.Bytes() &&
           dk.Bytes() == other.dk.Bytes() && dv.Bytes() == other.dv.Bytes();
  }
  bool GapsAreUntouched() const {
    return o.GapsAreUntouched() && dq.GapsAreUntouched() &&
           dk.GapsAreUntouched() && dv.GapsAreUntouched();
  }

  Placed q, k, v, d_o, o, dq, dk, dv;
  Tensor lse;
};

Status ByTheScheme(const Communicator& comm, ContextScheme scheme,
                   const ShardedAttentionConfig& config, RankHeads& heads) {
  switch (scheme) {
    case ContextScheme::kRing:
      return heads.Both(RingAttention::Create(comm, config));
    case ContextScheme::kAllGatherKv:
      return heads.Both(AllGatherKvAttention::Create(comm, config));
    case ContextScheme::kUlysses:
      return heads.Both(UlyssesAttention::Create(comm, config));
  }
  return InvalidArgument("no scheme");
}

void OnRanks(int ranks,
             const std::function<Status(const Communicator&)>& rank_main) {
  const Status ran = RunThreads(ranks, rank_main);
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// --- Results -----------------------------------------------------------------

TEST(ContextParallelCore, LocalPositionsAreThoseOfTheWholeSequence) {
  const auto of = [](SequenceLayout layout, int64_t tokens, int64_t rank) {
    return *LocalPositions({.layout = layout, .tokens = tokens, .ranks = 2},
                           rank);
  };
  using Numbers = std::vector<int64_t>;
  EXPECT_EQ(of(SequenceLayout::kContiguous, 5, 0), (Numbers{0, 1, 2}));
  EXPECT_EQ(of(SequenceLayout::kContiguous, 5, 1), (Numbers{3, 4}));
  EXPECT_EQ(of(SequenceLayout::kStriped, 5, 1), (Numbers{1, 3}));
  EXPECT_EQ(of(SequenceLayout::kZigzag, 8, 0), (Numbers{0, 1, 6, 7}));
  EXPECT_EQ(of(SequenceLayout::kZigzag, 8, 1), (Numbers{2, 3, 4, 5}));
  EXPECT_EQ(LocalPositions({.tokens = 5, .ranks = 2}, 2).status().code(),
            StatusCode::kInvalidArgument);
}

// A core is the scheme, to the bit, wherever heads lie, and writes nothing else.
TEST(ContextParallelCore, GivesTheBitsOfTheSchemeWhereverHeadsLie) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const ContextScheme scheme : kSchemes) {
      for (const SequenceLayout layout : kLayouts) {
        SCOPED_TRACE(std::string(Name(dtype)) + " " +
                     std::string(Name(scheme)) + " " +
                     std::string(Name(layout)));
        const ContextParallelConfig context = {
            .scheme = scheme, .layout = layout, .tokens = 18};
        OnRanks(3, [&](const Communicator& comm) -> Status {
          AttentionShape shape = ShapeOn(context, 3, comm.rank());
          shape.dtype = dtype;
          RankHeads want(shape, 0, comm.rank());
          SP_RETURN_IF_ERROR(
              ByTheScheme(comm, scheme, WholeOf(shape, context), want));
          for (const int64_t gap : {0, 5}) {
            SP_ASSIGN_OR_RETURN(const std::unique_ptr<AttentionCore> core,
                                ContextParallelCore(comm, context)(shape));
            RankHeads got(shape, gap, comm.rank());
            SP_RETURN_IF_ERROR(got.Both(*core));
            EXPECT_TRUE(got.SameAs(want)) << gap;
            EXPECT_TRUE(got.GapsAreUntouched());
          }
          return OkStatus();
        });
      }
    }
  }
}

// Two micro-batches under way: each core has the lse of its own.
TEST(ContextParallelCore, CoresTakeTurnsOnACommunicator) {
  for (const ContextScheme scheme : kSchemes) {
    const ContextParallelConfig context = {
        .scheme = scheme, .layout = SequenceLayout::kZigzag, .tokens = 18};
    OnRanks(3, [&](const Communicator& comm) -> Status {
      const AttentionShape shape = ShapeOn(context, 3, comm.rank());
      const AttentionCoreFactory factory = ContextParallelCore(comm, context);
      SP_ASSIGN_OR_RETURN(const std::unique_ptr<AttentionCore> a,
                          factory(shape));
      SP_ASSIGN_OR_RETURN(const std::unique_ptr<AttentionCore> b,
                          factory(shape));
      RankHeads first(shape, 0, comm.rank()),
          second(shape, 0, comm.rank(), "2");
      SP_RETURN_IF_ERROR(first.Both(*a));
      SP_RETURN_IF_ERROR(second.Both(*a));
      RankHeads x(shape, 3, comm.rank()), y(shape, 3, comm.rank(), "2");
      SP_RETURN_IF_ERROR(x.Forward(*a));
      SP_RETURN_IF_ERROR(y.Forward(*b));
      SP_RETURN_IF_ERROR(x.Backward(*a));
      SP_RETURN_IF_ERROR(y.Backward(*b));
      EXPECT_TRUE(x.SameAs(first)) << Name(scheme);
      EXPECT_TRUE(y.SameAs(second)) << Name(scheme);
      EXPECT_FALSE(x.SameAs(y));
      return OkStatus();
    });
  }
}

TEST(ContextParallelCore, RunsOnAStream) {
  for (const ContextScheme scheme : kSchemes) {
    const ContextParallelConfig context = {.scheme = scheme, .tokens = 17};
    OnRanks(2, [&](const Communicator& comm) -> Status {
      const AttentionShape shape = ShapeOn(context, 2, comm.rank());
      SP_ASSIGN_OR_RETURN(const std::unique_ptr<AttentionCore> core,
                          ContextParallelCore(comm, context)(shape));
      RankHeads inline_run(shape, 3, comm.rank()),
          queued(shape, 3, comm.rank());
      SP_RETURN_IF_ERROR(inline_run.Both(*core));
      SP_ASSIGN_OR_RETURN(const Stream stream, Stream::Create("core"));
      SP_RETURN_IF_ERROR(queued.Both(*core, stream));
      SP_RETURN_IF_ERROR(stream.Synchronize());
      EXPECT_TRUE(queued.SameAs(inline_run)) << Name(scheme);
      return OkStatus();
    });
  }
}

// --- Refusals ----------------------------------------------------------------

// What every rank of three is told of a core like that of ShapeOn but for
// `change`(rank, shape).
template <class Change>
std::string Refusal(StatusCode code, const Change& change,
                    const ContextParallelConfig& context = {.tokens = 18}) {
  return RefusalOnEveryRank(3, code, [&](const Communicator& comm) {
    AttentionShape shape = ShapeOn(context, 3, comm.rank());
    change(comm.rank(), shape);
    return ContextParallelCore(comm, context)(shape);
  });
}

TEST(ContextParallelCore, RefusesOtherTokensThanTheLayoutGives) {
  EXPECT_EQ(Refusal(StatusCode::kInvalidArgument,
                    [](int rank, AttentionShape& shape) {
                      if (rank == 1) shape.keys = 18;
                    }),
            "rank 1: a core has 6 queries and 18 keys of each sequence, and "
            "this rank has 6 of its 18 tokens, contiguous");
  EXPECT_NE(Refusal(StatusCode::kInvalidArgument,
                    [](int rank, AttentionShape& shape) {
                      shape.query_offset = 6 * rank;
                    })
                .find("not from 6 and 0 on"),
            std::string::npos);
  const auto nothing = [](int /*rank*/, AttentionShape& /*shape*/) {};
  EXPECT_NE(Refusal(StatusCode::kInvalidArgument, nothing,
                    {.layout = SequenceLayout::kZigzag, .tokens = 13})
                .find("pad them to 18"),
            std::string::npos);
}

TEST(ContextParallelCore, RefusesPartsOfSeveralGroups) {
  // Heads 1 and 2 of two groups of two, of which neither is whole.
  const std::string told = Refusal(StatusCode::kUnsupported,
                                   [](int /*rank*/, AttentionShape& shape) {
                                     shape.heads = 2;
                                     shape.first_in_group = 1;
                                   });
  EXPECT_NE(told.find("2 heads from number 1 of a group of 2 on, with 2 KV "
                      "heads"),
            std::string::npos);
  // A group and half of the next.
  Refusal(StatusCode::kUnsupported,
          [](int /*rank*/, AttentionShape& shape) { shape.heads = 3; });
  // More heads than the only group has left.
  Refusal(StatusCode::kUnsupported, [](int /*rank*/, AttentionShape& shape) {
    shape.heads = 2;
    shape.kv_heads = 1;
    shape.first_in_group = 1;
  });
  // Part of one group.
  Refusal(StatusCode::kOk, [](int /*rank*/, AttentionShape& shape) {
    shape.heads = 2;
    shape.kv_heads = 1;
    shape.heads_per_kv = 5;
    shape.first_in_group = 3;
  });
}

// Of six heads in two groups on four tensor-parallel ranks, those of rank 1 are
// of both groups. The others could go on, and are told.
TEST(ContextParallelCore, RefusesABlockOnEveryRankAlike) {
  const std::string told = RefusalOnEveryRank(
      8, StatusCode::kUnsupported,
      [](const Communicator& world) -> StatusOr<ParallelAttention> {
        SP_ASSIGN_OR_RETURN(const Mesh mesh,
                            Mesh::Create(world, {{"tp", 4}, {"cp", 2}}));
        return ParallelAttention::Create(
            mesh.Along("tp"),
            {.length = 4,
             .hidden = 6,
             .heads = 6,
             .kv_heads = 2,
             .head_dim = 4},
            kAutoCollectives,
            ContextParallelCore(mesh.Along("cp"), {.tokens = 8}));
      });
  EXPECT_NE(told.find("rank 1: rank 0: 2 heads from number 2 of a group of 3"),
            std::string::npos)
      << told;
}

TEST(ContextParallelCore, RefusesWhatTheSchemeRefuses) {
  const auto three = [](int /*rank*/, AttentionShape& shape) {
    shape.heads = shape.kv_heads = 2;
    shape.heads_per_kv = 1;
  };
  EXPECT_NE(Refusal(StatusCode::kInvalidArgument, three,
                    {.scheme = ContextScheme::kUlysses, .tokens = 18})
                .find("there are 3 ranks"),
            std::string::npos);
  const auto integers = [](int /*rank*/, AttentionShape& shape) {
    shape.dtype = DType::kI32;
  };
  for (const ContextScheme scheme : kSchemes) {
    Refusal(StatusCode::kUnsupported, integers,
            {.scheme = scheme, .tokens = 18});
  }
  Refusal(StatusCode::kInvalidArgument,
          [](int /*rank*/, AttentionShape& shape) { shape.scale = 0; });
  Refusal(StatusCode::kInvalidArgument,
          [](int /*rank*/, AttentionShape& shape) { shape.scale = -1; });
}

TEST(ContextParallelCore, RefusesRanksThatDiffer) {
  EXPECT_NE(Refusal(StatusCode::kInvalidArgument,
                    [](int rank, AttentionShape& shape) {
                      if (rank == 2) shape.causal = false;
                    })
                .find("ranks 0 and 2 make different layers"),
            std::string::npos);
  const std::string told = RefusalOnEveryRank(
      3, StatusCode::kInvalidArgument, [](const Communicator& comm) {
        const ContextParallelConfig context = {
            .scheme = kSchemes[comm.rank() / 2], .tokens = 18};
        return ContextParallelCore(comm,
                                   context)(ShapeOn(context, 3, comm.rank()));
      });
  EXPECT_NE(told.find("ranks 0 and 2 make different layers"),
            std::string::npos);
}

// --- Memory ------------------------------------------------------------------

TEST(ContextParallelCore, SteadyStateAsksForNoMemory) {
  for (const ContextScheme scheme : kSchemes) {
    const ContextParallelConfig context = {
        .scheme = scheme, .layout = SequenceLayout::kZigzag, .tokens = 512};
    std::atomic<int64_t> asked = 0;
    OnRanks(2, [&](const Communicator& comm) -> Status {
      const AttentionShape shape = ShapeOn(context, 2, comm.rank());
      SP_ASSIGN_OR_RETURN(const std::unique_ptr<AttentionCore> core,
                          ContextParallelCore(comm, context)(shape));
      RankHeads heads(shape, 5, comm.rank());
      SP_RETURN_IF_ERROR(heads.Both(*core));
      SP_RETURN_IF_ERROR(comm.Barrier());
      const int64_t before = LargeAllocations();
      SP_RETURN_IF_ERROR(comm.Barrier());
      SP_RETURN_IF_ERROR(heads.Both(*core));
      SP_RETURN_IF_ERROR(comm.Barrier());
      asked += LargeAllocations() - before;
      return comm.Barrier();
    });
    EXPECT_EQ(asked, 0) << Name(scheme);
  }
}

// Between the passes: the lse of the rank's queries, and with Ulysses q, k, v, o
// and lse of two of four heads and their KV head, of all tokens.
TEST(ContextParallelCore, SaysWhatItKeepsAndWorksIn) {
  for (const ContextScheme scheme : kSchemes) {
    const ContextParallelConfig context = {.scheme = scheme, .tokens = 18};
    OnRanks(2, [&](const Communicator& comm) -> Status {
      const AttentionShape shape = ShapeOn(context, 2, comm.rank());
      SP_ASSIGN_OR_RETURN(const std::unique_ptr<AttentionCore> core,
                          ContextParallelCore(comm, context)(shape));
      int64_t kept = 2 * 9 * 4 * 4;
      if (scheme == ContextScheme::kUlysses) {
        kept += 2 * 18 * (2 * (2 + 1) * 8 + 2) * 4;
      }
      EXPECT_EQ(core->kept_bytes(), kept) << Name(scheme);
      // Of a rank's tokens without gaps: q, o, do, dq, and k, v, dk, dv.
      const int64_t packed = 2 * 9 * 4 * (4 + 2) * 8 * 4;
      EXPECT_GT(core->working_bytes(), packed) << Name(scheme);
      return OkStatus();
    });
  }
}

}  // namespace
}  // namespace shardproof
