// What the cases of all attention schemes have in common: axes, tensors, the
// reference, and the planted bugs of what they all do.
//
// A scheme's case gives two functions,
//
//     StatusOr<Operation> Bind(const AttentionPoint&, RankContext&,
//                              const AttentionKernels&);
//     int64_t Merges(const AttentionPoint&);
//
// and then
//
//     auto c = AttentionCase("attention/ring", "..", Merges, {layouts});
//     c.variants = {..};
//     c.mutants = KernelMutants(Bind, BlockByBlock);  // and its own
//
// For case.cc files; nothing else includes this.
#ifndef SHARDPROOF_ATTENTION_PAIRING_ATTENTION_CASE_H_
#define SHARDPROOF_ATTENTION_PAIRING_ATTENTION_CASE_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attention/sharded/sharded_attention.h"
#include "collectives/traffic.h"
#include "layers/attention_block/head_share.h"
#include "reference/dtype.h"
#include "tools/harness/case.h"

namespace shardproof {

enum class AttentionMask : uint8_t {
  kFull,
  kCausal,
  kWindow,     // Causal, of a third of the tokens.
  kDocuments,  // Causal, three of them; the first is one token long.
};
std::string FormatAxisValue(AttentionMask mask);
Status ParseAxisValue(std::string_view text, AttentionMask* mask);
std::string FormatAxisValue(SequenceLayout layout);
Status ParseAxisValue(std::string_view text, SequenceLayout* layout);

struct AttentionPoint {
  DType dtype = DType::kF32;
  SequenceLayout layout = SequenceLayout::kContiguous;
  AttentionMask mask = AttentionMask::kCausal;
  int64_t kv_heads = 1;
  // Queries and keys are as large: 1 makes scores of a deviation of about 1, 12
  // such of 144, whose lse is beyond what exp takes.
  double spread = 1;
  int64_t sequences = 1;
  int64_t tokens = 0;  // At least.
  // > 0: decoding. Only that many last tokens are queries, which every rank
  // has, and there is no backward pass.
  int64_t queries = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t ulysses = 1;  // Ranks of a group, where a scheme has groups.
  int ranks = 1;
  Memory memory = Memory::kShared;

  // Of the sequence: a zigzag has equal chunks. With kDocuments, what is more
  // than `tokens` is padding, which nobody sees.
  int64_t length() const {
    if (layout != SequenceLayout::kZigzag) return tokens;
    return PaddedLength({layout, tokens, ranks});
  }
  // Without padding.
  int64_t visible() const {
    return mask == AttentionMask::kDocuments ? tokens : length();
  }
};

Visibility VisibilityOf(const AttentionPoint& p);
// The tokens that are queries.
TokenRun QueriesOf(const AttentionPoint& p);
ShardedAttentionConfig ConfigOf(const AttentionPoint& p);

// How q, k, v and lse lie on the ranks: dimension 1 of q and k are tokens, 2
// heads; of lse, 1 is heads and 2 tokens.
struct AttentionSharding {
  Sharding q, k, lse;
};
// Tokens in the point's layout, all heads; queries of decoding on every rank.
AttentionSharding BySequence(const AttentionPoint& p);
// Tokens of one dimension by runs.
Sharding ByRuns(std::string name, int dimension,
                std::vector<std::vector<TokenRun>> runs_of_rank);

// q k v do -> o lse dq dk dv; decoding, q k v -> o lse.
Tensors AttentionTensors(const AttentionPoint& p, const AttentionSharding& by);
// `merges` of partial results (reference/flash_attention.h).
StatusOr<DenseOutputs> AttentionExpected(const AttentionPoint& p,
                                         int64_t merges, const Inputs& in,
                                         const Sample& sample);
// Four products of each pair that is seen forward, ten backward.
double AttentionFlops(const AttentionPoint& p);

// Everything but variants and mutants. `layouts` that the scheme takes; the
// first is measured.
Case<AttentionPoint> AttentionCase(
    std::string name, std::string what,
    std::function<int64_t(const AttentionPoint&)> merges,
    std::initializer_list<SequenceLayout> layouts);

AttentionForwardArgs ForwardArgsOf(const RankContext& context);
AttentionBackwardArgs BackwardArgsOf(const RankContext& context);

// Forward and backward of a scheme, as one operation.
template <class Scheme>
Operation BothPasses(std::shared_ptr<Scheme> scheme, RankContext& context) {
  return [scheme = std::move(scheme), &context]() -> Status {
    SP_RETURN_IF_ERROR(
        scheme->Forward(ForwardArgsOf(context), context.stream()));
    return scheme->Backward(BackwardArgsOf(context), context.stream());
  };
}

// --- Planted bugs ------------------------------------------------------------

using AttentionBind = std::function<StatusOr<Operation>(
    const AttentionPoint&, RankContext&, const AttentionKernels&)>;

// A run of queries and a run of keys that a scheme computes at once, where any
// of the queries sees any of the keys.
struct RunPair {
  TokenRun queries;
  TokenRun keys;
};
// What each rank does: for the bugs that show in some parts only.
struct AttentionWork {
  std::vector<std::vector<RunPair>> pairs;  // Of each rank.
  std::vector<HeadShare> heads;             // The same.
};
using AttentionWorkOf = std::function<AttentionWork(const AttentionPoint&)>;
// Each rank its own queries, with the keys of every rank; all heads.
AttentionWork BlockByBlock(const AttentionPoint& p);
// The same, with the keys of all ranks in one run.
AttentionWork AllKeysAtOnce(const AttentionPoint& p);

// The bugs of broken_kernels.h, wherever they can show.
std::vector<Mutant<AttentionPoint>> KernelMutants(const AttentionBind& bind,
                                                  const AttentionWorkOf& work);
// But those of these names, which can show nowhere.
std::vector<Mutant<AttentionPoint>> Without(
    std::vector<Mutant<AttentionPoint>> mutants,
    std::initializer_list<std::string_view> names);
// A gradient times the number of ranks.
Mutant<AttentionPoint> TimesRanks(const AttentionBind& bind,
                                  const std::string& gradient);
// Of each rank, which tokens it has. None: those of the point's layout.
using AttentionRunsOf =
    std::function<std::vector<std::vector<TokenRun>>(const AttentionPoint&)>;
// dk and dv are those of rank `which`(p, rank),
// of the tokens that both have as many of.
Mutant<AttentionPoint> GradientsOfAnother(
    std::string name, const AttentionBind& bind,
    const std::function<int(const AttentionPoint&, int rank)>& which,
    AttentionRunsOf runs = {});
// Every rank has the inputs of all by other means than messages, and computes
// everything. Right, and not parallel: only its traffic shows it.
Mutant<AttentionPoint> SilentlyDoesNothing(
    const std::function<Cost(const AttentionPoint&)>& cost,
    AttentionRunsOf runs = {});

bool Several(const AttentionPoint& p);
// Several, and some query sees more than one key.
bool SeesSeveral(const AttentionPoint& p);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_PAIRING_ATTENTION_CASE_H_
