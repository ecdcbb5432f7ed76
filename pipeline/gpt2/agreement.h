// Whether curves of losses, and of norms of gradients, are the same, when every
// layout rounds differently.
//
// Contract: with L what the single device has at each step t, and R_1 .. R_K what K
// more runs of it have, each from parameters that were moved to neighbouring floats
// at random,
//
//     D(t)        = sqrt(mean over k of (R_k(t) - L(t))^2)
//     allowed(t)  = ProbedLambda(Lambda(population), K) D(t)
//
// and a layout's curve C is refused unless |C(t) - L(t)| <= allowed(t) for all t;
// `population` is how many such comparisons there are in all.
//
// What that claims. If differences between layouts were normal with the deviation
// that the K runs have, one would be refused with a probability of 1e-6 in all of
// a program's comparisons. That they are is a model and no theorem, unlike what
// probe.h derives: runs are moved once, at their start, while rounding errors are
// made in every product of every step. Both are relative errors of about a unit
// roundoff that training then carries on, the former of every parameter; and what
// the factor ProbedLambda adds, 35 for 8 runs and 280 comparisons, is far more
// than the few roundings by which a sum is longer in one layout than in another.
//
// What it cannot see: an error below allowed(t). Losses alone would also be blind
// to a factor on all gradients, in every step: AdamW divides gradients by their own
// size, and clipping by their norm, so that nothing of it is left but what epsilon
// is beside them. The norms show it, which are those before clipping; of a factor
// behind it, nothing does. Gradients themselves are compared, element by element
// and in bounds that are derived, in train_step's case.
//
// Faults that were planted, in how many times what is allowed they showed: the
// upper five, with 16 features, are in agreement_test.cc; the others were planted
// by hand, with 32. Right layouts are below 0.3.
//
//                                                         losses     norms
//     a use of the tied table lost between stages          12000    300000
//     gradients not summed over dp                         56000   1200000
//     trained shards of ZeRO 1 not gathered               110000     62000
//     one rank's gradients times 1.001                        48      1300
//     all gradients times 1.001                              0.2      2900
//     positions that start again on each rank of cp        34000    150000
//     no weight decay, with ZeRO                             180       300
//     the learning rate times 1.001, with ZeRO               350      1700
//     beta2 0.951 instead of 0.95, with ZeRO                  43        90
//     clipped at 1.001 instead of 1, with ZeRO               0.1       0.1
//
//     const std::vector<double> allowed =
//         AllowedDifferences(single, neighbours, population);
//     const Agreement agreement = Compare(curve, single, allowed);
//     if (!agreement.equal) ...
//
// Source: reference/probe.h, for ProbedLambda.
#ifndef SHARDPROOF_PIPELINE_GPT2_AGREEMENT_H_
#define SHARDPROOF_PIPELINE_GPT2_AGREEMENT_H_

#include <cstddef>
#include <span>
#include <vector>

namespace shardproof::gpt2 {

// Of each step. Infinite without runs; all of them as long as `single`.
std::vector<double> AllowedDifferences(
    std::span<const double> single,
    std::span<const std::vector<double>> neighbours, double population);

struct Agreement {
  bool equal = true;
  double largest = 0;  // The largest difference, and at which step.
  size_t step = 0;
  double share = 0;  // The largest of what is allowed at its step.
};
// What is not a number, or is missing, is not equal.
Agreement Compare(std::span<const double> curve, std::span<const double> single,
                  std::span<const double> allowed);

}  // namespace shardproof::gpt2

#endif  // SHARDPROOF_PIPELINE_GPT2_AGREEMENT_H_
