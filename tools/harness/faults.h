// Faults to plant between the ranks of any case, through the interceptor of one
// culprit rank: what a broken transport, a wrong index or a missing flag would
// do. Checks that do not notice are no checks.
//
//     std::atomic<int> struck{0};
//     run.interceptor = [&](int rank, int ranks) {
//       return MakeFault(Fault::kLoseTail, rank, ranks, seed, &struck);
//     };
//     Record r = RunOnWorld(world, info, variant, instance, run);
//     bool noticed = r.verdict != Verdict::kPassed || struck == 0;
//
// Most faults change payload, and do so alike whether it was loaded, stored or
// received. A fault strikes the first payload of an operation that it can
// change at all and leaves the rest of that operation alone: the less is wrong,
// the harder it is to see.
#ifndef SHARDPROOF_TOOLS_HARNESS_FAULTS_H_
#define SHARDPROOF_TOOLS_HARNESS_FAULTS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "collectives/interceptor.h"
#include "reference/status.h"

namespace shardproof {

enum class Fault : uint8_t {
  kDropContribution,  // What a rank gave reads as zeros.
  kCountTwice,        // What a rank gave counts double.
  kSwapChunks,        // The two halves of a payload change places.
  kStaleBuffer,       // What came at this place the last time comes again.
  kLoseTail,          // The last elements, up to 16, read as zeros.
  kTearCacheLine,     // Half of one line of 64 bytes is from the last time.
  kWrongRoot,         // The root takes its neighbour for the root.
  kWrongGroup,        // What another rank gave, in place of what was asked for.
  kWrongScale,        // Divided by the ranks once more (integers: multiplied).
  kCorruptRow,        // Up to 16 elements wrong, in every third operation.
  kDelayRank,         // The culprit is late. Correct variants do not mind.
  kNeverArrive        // The culprit does not enter an operation.
};

std::span<const Fault> AllFaults();
// "drop_contribution", ...
std::string_view Name(Fault fault);
// One line for a person.
std::string_view Describe(Fault fault);
// The error lists the names.
StatusOr<Fault> ParseFault(std::string_view name);
// Whether a run with this fault must fail. A rank that is late changes nothing:
// a variant that fails then has a race.
bool MustBeNoticed(Fault fault);

// The fault as `rank` of `ranks` sees it; null where `rank` is not the culprit,
// which is rank seed % ranks (kWrongRoot: whichever rank is the root of an
// operation of all ranks). `struck` counts how often something was really
// changed, by value: zeros dropped, or a stale copy that equals the fresh one,
// do not count. Operations without elements (barrier) have no payload; what is
// sent outside any OpScope is left alone.
//
// kNeverArrive waits until `ended` says that the run was given up, which needs
// a watchdog. Without `ended`, the operation of the culprit returns an error
// instead, and the others wait in vain.
std::unique_ptr<Interceptor> MakeFault(Fault fault, int rank, int ranks,
                                       uint64_t seed,
                                       std::atomic<int>* struck = nullptr,
                                       std::function<bool()> ended = nullptr);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_FAULTS_H_
