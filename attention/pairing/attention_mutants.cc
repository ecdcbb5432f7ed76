// The planted bugs of attention_case.h, and where each of them can show.
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "attention/pairing/attention_case.h"
#include "attention/pairing/broken_kernels.h"
#include "attention/sharded/partial_attention.h"
#include "layers/kernels/convert.h"
#include "layers/pairing/layer_case.h"

namespace shardproof {
namespace {

using P = AttentionPoint;
using Applies = std::function<bool(const P&)>;

IndexRange Seen(const Visibility& visibility, const RunPair& pair, int64_t i) {
  return KeysSeen(visibility, pair.queries.Position(i), pair.keys);
}

// Whether f(pair, query) holds anywhere.
template <class F>
bool AnyQuery(const std::vector<RunPair>& pairs, const F& f) {
  return std::any_of(pairs.begin(), pairs.end(), [&](const RunPair& pair) {
    for (int64_t i = 0; i < pair.queries.count; ++i) {
      if (f(pair, i)) return true;
    }
    return false;
  });
}

// The conditions of the bugs, for one point.
class Scope {
 public:
  Scope(const P& p, AttentionWork work)
      : p_(p), visibility_(VisibilityOf(p)), work_(std::move(work)) {}

  bool Computes() const {
    return AnyRank(
        [](const auto& pairs, const HeadShare&) { return !pairs.empty(); });
  }
  // A query's results of several pairs become one.
  bool Merges() const {
    return AnyRank([&](const auto& pairs, const HeadShare&) {
      std::map<int64_t, int> results;
      return AnyQuery(pairs, [&](const RunPair& pair, int64_t i) {
        return Seen(visibility_, pair, i).size() > 0 &&
               ++results[pair.queries.Position(i)] > 1;
      });
    });
  }
  // All blocks of keys have as many, and there are several.
  bool HasBlocksLikeTheFirst() const {
    return AnyRank([](const auto& pairs, const HeadShare&) {
      bool others = false;
      for (const RunPair& pair : pairs) {
        if (pair.keys.count != pairs[0].keys.count) return false;
        others = others || pair.keys != pairs[0].keys;
      }
      return others;
    });
  }
  bool SeesNothingSomewhere() const {
    return AnyRank([&](const auto& pairs, const HeadShare&) {
      return AnyQuery(pairs, [&](const RunPair& pair, int64_t i) {
        return Seen(visibility_, pair, i).size() == 0;
      });
    });
  }
  // What `bug` makes of a block is another one.
  bool Changes(void (*bug)(FlashBlock&, Visibility&)) const {
    return AnyRank([&](const auto& pairs, const HeadShare&) {
      return AnyQuery(pairs, [&](const RunPair& pair, int64_t i) {
        Visibility visibility = visibility_;
        FlashBlock block = {pair.queries, pair.keys, &visibility};
        bug(block, visibility);
        const IndexRange broken =
            KeysSeen(visibility, block.queries.Position(i), block.keys);
        const IndexRange right = Seen(visibility_, pair, i);
        return broken != right && broken.size() + right.size() > 0;
      });
    });
  }
  bool TransposesLse() const {
    return AnyRank([](const auto& pairs, const HeadShare& own) {
      return own.heads.count > 1 &&
             AnyQuery(pairs, [](const RunPair& pair, int64_t) {
               return pair.queries.count > 1;
             });
    });
  }
  bool TransposesKeys() const {
    return AnyRank([](const auto& pairs, const HeadShare& own) {
      return own.kv_heads.count > 1 &&
             AnyQuery(pairs, [](const RunPair& pair, int64_t) {
               return pair.keys.count > 1;
             });
    });
  }
  // A query head has another KV head.
  template <class Which>
  bool TakesAnother(const Which& which) const {
    const int64_t group = p_.heads / p_.kv_heads;
    return AnyRank([&](const auto& pairs, const HeadShare& own) {
      for (int64_t h = 0; h < own.heads.count && !pairs.empty(); ++h) {
        const int64_t in_group = h + own.heads.begin % group;
        if (which(h, in_group, group, own.kv_heads.count) != in_group / group) {
          return true;
        }
      }
      return false;
    });
  }

 private:
  // Whether f(pairs, heads) holds for any rank.
  template <class F>
  bool AnyRank(const F& f) const {
    for (size_t r = 0; r < work_.pairs.size(); ++r) {
      if (f(work_.pairs[r], work_.heads[r])) return true;
    }
    return false;
  }

  const P& p_;
  Visibility visibility_;
  AttentionWork work_;
};

}  // namespace

bool Several(const P& p) { return p.ranks >= 2; }
bool SeesSeveral(const P& p) {
  const Visibility visibility = VisibilityOf(p);
  const TokenRun all = {.count = p.length()}, queries = QueriesOf(p);
  for (int64_t i = 0; i < queries.count && Several(p); ++i) {
    if (KeysSeen(visibility, queries.Position(i), all).size() > 1) return true;
  }
  return false;
}

AttentionWork BlockByBlock(const P& p) {
  const auto runs = RunsOfRanks({p.layout, p.length(), p.ranks});
  const Visibility visibility = VisibilityOf(p);
  AttentionWork work;
  for (const std::vector<TokenRun>& mine : runs) {
    std::vector<RunPair>& pairs = work.pairs.emplace_back();
    work.heads.push_back({.heads = {0, p.heads}, .kv_heads = {0, p.kv_heads}});
    for (const TokenRun& queries : mine) {
      for (const std::vector<TokenRun>& theirs : runs) {
        for (const TokenRun& keys : theirs) {
          if (CountPairs(visibility, queries, keys) == 0) continue;
          pairs.push_back({queries, keys});
        }
      }
    }
  }
  return work;
}

AttentionWork AllKeysAtOnce(const P& p) {
  const TokenRun keys = {.count = p.length()};
  const Visibility visibility = VisibilityOf(p);
  AttentionWork work;
  for (const auto& mine : RunsOfRanks({p.layout, p.length(), p.ranks})) {
    std::vector<RunPair>& pairs = work.pairs.emplace_back();
    work.heads.push_back({.heads = {0, p.heads}, .kv_heads = {0, p.kv_heads}});
    for (const TokenRun& queries : mine) {
      if (CountPairs(visibility, queries, keys) == 0) continue;
      pairs.push_back({queries, keys});
    }
  }
  return work;
}

std::vector<Mutant<P>> Without(std::vector<Mutant<P>> mutants,
                               std::initializer_list<std::string_view> names) {
  std::erase_if(mutants, [names](const Mutant<P>& mutant) {
    return std::find(names.begin(), names.end(), mutant.name) != names.end();
  });
  return mutants;
}

std::vector<Mutant<P>> KernelMutants(const AttentionBind& bind,
                                     const AttentionWorkOf& work) {
  const auto in = [&](bool (Scope::*condition)() const) -> Applies {
    return [work, condition](const P& p) {
      return Several(p) && (Scope(p, work(p)).*condition)();
    };
  };
  const auto changed = [&](void (*bug)(FlashBlock&, Visibility&)) -> Applies {
    return [work, bug](const P& p) {
      return Several(p) && Scope(p, work(p)).Changes(bug);
    };
  };
  const auto another = [&](auto which) -> Applies {
    return [work, which](const P& p) {
      return Several(p) && Scope(p, work(p)).TakesAnother(which);
    };
  };
  // Of types whose partial results are wider than bf16, and not rounded to such.
  const auto wide = [](const Applies& applies) -> Applies {
    return [applies](const P& p) {
      return SizeOf(p.dtype) >= SizeOf(DType::kF32) && applies(p);
    };
  };
  const auto large = [](const Applies& applies) -> Applies {
    return [applies](const P& p) {
      return p.dtype == DType::kF32 && p.spread > 1 && applies(p);
    };
  };
  const auto windowed = [](const Applies& applies) -> Applies {
    return [applies](const P& p) {
      return p.mask == AttentionMask::kWindow && applies(p);
    };
  };
  const auto interleaved = [](int64_t h, int64_t, int64_t, int64_t kv_heads) {
    return h % kv_heads;
  };
  const auto longer = [](int64_t, int64_t in_group, int64_t group, int64_t) {
    return in_group / (group + 1);
  };
  const std::tuple<const char*, const AttentionKernels*, Applies> bugs[] = {
      {"log_of_base_two", &kLogOfBaseTwo, in(&Scope::Computes)},
      {"merged_by_exponentials", &kMergeByExponentials,
       large(in(&Scope::Merges))},
      {"bf16_partials", &kNarrowPartials, wide(in(&Scope::Computes))},
      {"lse_transposed", &kLseTransposed, in(&Scope::TransposesLse)},
      {"finite_lse_of_nothing", &kFiniteLseOfNothing,
       in(&Scope::SeesNothingSomewhere)},
      {"infinite_lse_of_nothing", &kInfiniteLseOfNothing,
       in(&Scope::SeesNothingSomewhere)},
      {"lse_of_the_last_block", &kLseOfTheLastBlock, in(&Scope::Merges)},
      {"keys_of_the_first_block", &kKeysOfTheFirstBlock,
       in(&Scope::HasBlocksLikeTheFirst)},
      {"delta_missing", &kWithoutDelta, in(&Scope::Computes)},
      {"scale_missing", &kUnscaled, SeesSeveral},
      {"sees_the_next_token", &kSeesTheNextToken, changed(SeeTheNextToken)},
      {"does_not_see_itself", &kDoesNotSeeItself, changed(NotSeeItself)},
      {"window_too_long", &kWindowTooLong,
       windowed(changed(LengthenTheWindow))},
      {"positions_restart", &kPositionsRestart, changed(RestartPositions)},
      {"documents_run_together", &kDocumentsRunTogether,
       changed(RunDocumentsTogether)},
      {"kv_heads_interleaved", &kKvHeadsInterleaved, another(interleaved)},
      {"kv_ratio_of_padded_heads", &kKvRatioOfPaddedHeads, another(longer)},
      {"keys_transposed_twice", &kKeysTransposedTwice,
       in(&Scope::TransposesKeys)}};
  std::vector<Mutant<P>> mutants;
  for (const auto& [name, kernels, applies] : bugs) {
    Mutant<P>& mutant = mutants.emplace_back();
    mutant.name = name;
    mutant.bind = [bind, kernels = *kernels](const P& p, RankContext& c) {
      return bind(p, c, kernels);
    };
    mutant.applies = applies;
  }
  return mutants;
}

Mutant<P> TimesRanks(const AttentionBind& bind, const std::string& gradient) {
  Mutant<P> mutant;
  mutant.name = gradient + "_times_ranks";
  mutant.bind = [bind, gradient](const P& p,
                                 RankContext& c) -> StatusOr<Operation> {
    SP_ASSIGN_OR_RETURN(const Operation good, bind(p, c, {}));
    return Operation([good, gradient, p, &c]() -> Status {
      SP_RETURN_IF_ERROR(good());
      return Scale(c.out(gradient), p.ranks);
    });
  };
  // Of a query that sees one key only, dq and dk are 0.
  const bool of_values = gradient == "dv";
  mutant.applies = [of_values](const P& p) {
    return of_values ? Several(p) && p.tokens > 0 : SeesSeveral(p);
  };
  return mutant;
}

namespace {

AttentionRunsOf OrOfTheLayout(AttentionRunsOf runs) {
  if (runs) return runs;
  return [](const P& p) {
    return RunsOfRanks({p.layout, p.length(), p.ranks});
  };
}

}  // namespace

Mutant<P> GradientsOfAnother(
    std::string name, const AttentionBind& bind,
    const std::function<int(const P&, int rank)>& which,
    AttentionRunsOf runs_of) {
  Mutant<P> mutant;
  mutant.name = std::move(name);
  mutant.bind = [bind, which](const P& p,
                              RankContext& c) -> StatusOr<Operation> {
    SP_ASSIGN_OR_RETURN(const Operation good, bind(p, c, {}));
    return Operation([good, which, p, &c]() -> Status {
      SP_RETURN_IF_ERROR(good());
      const auto rank = static_cast<size_t>(c.comm().rank());
      for (const char* gradient : {"dk", "dv"}) {
        const TensorView mine = c.out(gradient);
        const auto bytes =
            static_cast<size_t>(mine.num_elements() * SizeOf(mine.dtype));
        SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                            c.comm().ExchangeControl(
                                {static_cast<const char*>(mine.data), bytes}));
        const std::string& theirs =
            all[static_cast<size_t>(which(p, static_cast<int>(rank)))];
        if (bytes == 0) continue;
        std::memcpy(mine.data, theirs.data(), std::min(theirs.size(), bytes));
      }
      return OkStatus();
    });
  };
  // Some rank has tokens, as has the one whose gradients it takes.
  mutant.applies = [which,
                    runs_of = OrOfTheLayout(std::move(runs_of))](const P& p) {
    const auto runs = runs_of(p);
    const auto first = [&](int rank) {
      const std::vector<TokenRun>& of = runs[static_cast<size_t>(rank)];
      return of.empty() ? p.tokens : of[0].offset;
    };
    for (int r = 0; r < p.ranks; ++r) {
      const int other = which(p, r);
      if (other != r && std::max(first(r), first(other)) < p.tokens) {
        return true;
      }
    }
    return false;
  };
  return mutant;
}

namespace {

// Rows of every rank, one rank's after the other in each sequence.
StatusOr<Tensor> Everybodys(const RankContext& c, std::string_view name) {
  const ConstTensorView mine = c.in(name);
  const int64_t row = mine.shape[2] * mine.shape[3];
  const auto row_bytes = static_cast<size_t>(row * SizeOf(mine.dtype));
  SP_ASSIGN_OR_RETURN(
      const std::vector<std::string> parts,
      c.comm().ExchangeControl(
          {static_cast<const char*>(mine.data),
           static_cast<size_t>(mine.num_elements() * SizeOf(mine.dtype))}));
  size_t bytes = 0;
  for (const std::string& part : parts) bytes += part.size();
  const int64_t sequences = mine.shape[0];
  Tensor all(mine.dtype, {static_cast<int64_t>(bytes / row_bytes), row});
  std::byte* to = all.bytes().data();
  for (int64_t s = 0; s < sequences; ++s) {
    for (const std::string& part : parts) {
      const size_t n = part.size() / static_cast<size_t>(sequences);
      std::memcpy(to, part.data() + static_cast<size_t>(s) * n, n);
      to += n;
    }
  }
  return all;
}

// Of the last tokens, which every rank has.
Status DecodeEverything(const P& p, const RankContext& c) {
  const auto runs = RunsOfRanks({p.layout, p.length(), p.ranks});
  std::vector<TokenRun> all;
  for (const auto& of_rank : runs) {
    all.insert(all.end(), of_rank.begin(), of_rank.end());
  }
  SP_ASSIGN_OR_RETURN(Tensor k, Everybodys(c, "k"));
  SP_ASSIGN_OR_RETURN(Tensor v, Everybodys(c, "v"));
  SP_ASSIGN_OR_RETURN(
      PartialAttention attention,
      PartialAttention::Create({.sequences = p.sequences,
                                .queries = p.queries,
                                .keys = LongestRun(runs),
                                .heads = p.heads,
                                .kv_heads = p.kv_heads,
                                .heads_per_kv = p.heads / p.kv_heads,
                                .head_dim = p.head_dim,
                                .scale = ConfigOf(p).Scale(),
                                .dtype = p.dtype,
                                .backward = false},
                               VisibilityOf(p), {QueriesOf(p)}));
  SP_RETURN_IF_ERROR(
      attention.Begin(c.in("q").data, c.out("o").data, c.out("lse").data));
  SP_RETURN_IF_ERROR(attention.Add({all, k.raw(), v.raw()}));
  return attention.Finish();
}

Status ComputeEverything(const P& p, const RankContext& c,
                         const std::vector<std::vector<TokenRun>>& runs) {
  if (p.queries > 0) return DecodeEverything(p, c);
  const int rank = c.comm().rank();
  std::vector<TokenRun> all;
  for (const auto& of_rank : runs) {
    all.insert(all.end(), of_rank.begin(), of_rank.end());
  }
  SP_ASSIGN_OR_RETURN(Tensor q, Everybodys(c, "q"));
  SP_ASSIGN_OR_RETURN(Tensor k, Everybodys(c, "k"));
  SP_ASSIGN_OR_RETURN(Tensor v, Everybodys(c, "v"));
  SP_ASSIGN_OR_RETURN(Tensor d_o, Everybodys(c, "do"));
  const DType wide = Accumulator(p.dtype);
  const int64_t run = LongestRun(runs);
  SP_ASSIGN_OR_RETURN(
      PartialAttention attention,
      PartialAttention::Create({.sequences = p.sequences,
                                .queries = run,
                                .keys = run,
                                .heads = p.heads,
                                .kv_heads = p.kv_heads,
                                .heads_per_kv = p.heads / p.kv_heads,
                                .head_dim = p.head_dim,
                                .scale = ConfigOf(p).Scale(),
                                .dtype = p.dtype},
                               VisibilityOf(p), all));
  Tensor o(p.dtype, q.shape()), dq(p.dtype, q.shape());
  Tensor lse(wide, {p.sequences * p.heads, p.length()});
  Tensor dk = Tensor::Zeros(wide, k.shape()),
         dv = Tensor::Zeros(wide, k.shape());
  const KeyPart part = {all, k.raw(), v.raw()};
  SP_RETURN_IF_ERROR(attention.Begin(q.raw(), o.raw(), lse.raw()));
  SP_RETURN_IF_ERROR(attention.Add(part));
  SP_RETURN_IF_ERROR(attention.Finish());
  SP_RETURN_IF_ERROR(attention.BeginBackward({.q = q.raw(),
                                              .k = k.raw(),
                                              .v = v.raw(),
                                              .o = o.raw(),
                                              .lse = lse.raw(),
                                              .d_o = d_o.raw()}));
  SP_RETURN_IF_ERROR(attention.AddGradients(part, dk.raw(), dv.raw()));
  SP_RETURN_IF_ERROR(attention.FinishBackward(dq.raw()));
  // This rank's rows of them.
  int64_t first = 0;
  for (int r = 0; r < rank; ++r)
    first += CountTokens(runs[static_cast<size_t>(r)]);
  const int64_t mine = CountTokens(runs[static_cast<size_t>(rank)]);
  const auto cut = [&](const Tensor& from, int64_t outer, int64_t inner,
                       const TensorView& to) {
    std::vector<double> x(static_cast<size_t>(from.num_elements()));
    ToDouble(from.dtype(), from.raw(), from.num_elements(), x.data());
    for (int64_t s = 0; s < outer; ++s) {
      FromDouble(to.dtype, x.data() + (s * p.length() + first) * inner,
                 mine * inner,
                 static_cast<std::byte*>(to.data) +
                     s * mine * inner * SizeOf(to.dtype));
    }
  };
  const int64_t q_row = p.heads * p.head_dim, k_row = p.kv_heads * p.head_dim;
  cut(o, p.sequences, q_row, c.out("o"));
  cut(lse, p.sequences * p.heads, 1, c.out("lse"));
  cut(dq, p.sequences, q_row, c.out("dq"));
  cut(dk, p.sequences, k_row, c.out("dk"));
  cut(dv, p.sequences, k_row, c.out("dv"));
  return OkStatus();
}

}  // namespace

Mutant<P> SilentlyDoesNothing(const std::function<Cost(const P&)>& cost,
                              AttentionRunsOf runs) {
  Mutant<P> mutant;
  mutant.name = "silently_does_nothing";
  mutant.bind = [runs = OrOfTheLayout(std::move(runs))](
                    const P& p, RankContext& c) -> StatusOr<Operation> {
    return Operation(
        [p, &c, of = runs(p)] { return ComputeEverything(p, c, of); });
  };
  mutant.applies = [](const P& p) { return Several(p) && p.tokens > 0; };
  mutant.cost = cost;
  return mutant;
}

}  // namespace shardproof
