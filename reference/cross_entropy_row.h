// The cross entropy of one token, forward and backward, as values without
// bounds: for references that are probed (probe.h) and claim nothing else, which
// cross_entropy.h, with bounds of its own, is not for.
//
// Contract, with m the largest of the logits x and d = x - m:
//
//     loss = log S - d_target               S = sum of exp(d)
//     dx_j = exp(d_j) / S - [j is the target]
//
// What is made at random in a probe, whatever the ranks by which the vocabulary
// is cut, u that of the accumulator:
//
//     d_j           u |d_j| in every exponent
//     exp, log      their errors
//     S             as many roundings as there are terms, and one; an exp, a
//                   product, and u |d_j| in exponents, by which ranks multiply
//                   sums against maxima of their own, and which terms share
//     log S - d     d's, and the difference's
//     exp(d) / S    1 / S, the product, or the least normal number; at the target
//                   the difference
//     dx            one to the type of logits
//
//     const double loss = CrossEntropyRow(logits, target, arithmetic);
//
// Source: as cross_entropy.h, whose worst bounds hold what is made here.
#ifndef SHARDPROOF_REFERENCE_CROSS_ENTROPY_ROW_H_
#define SHARDPROOF_REFERENCE_CROSS_ENTROPY_ROW_H_

#include <cstddef>
#include <span>

#include "reference/bounded.h"

namespace shardproof {

// The loss; dx takes the place of the logits. `target` is one of them.
double CrossEntropyRow(std::span<double> x, size_t target,
                       const Arithmetic& arithmetic);

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_CROSS_ENTROPY_ROW_H_
