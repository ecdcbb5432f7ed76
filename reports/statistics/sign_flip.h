// The sign-flip test: if swapping base and candidate within each pair changed
// nothing, every assignment of signs to |d_i| would be as likely as ours.
//
//     p = #{ s in {-1, 1}^n : sum s_i |d_i| >= sum d_i } / 2^n
//
// One-sided, for a mean above 0 (negate the values for below); the signs as
// observed are among those counted, so p >= 2^-n; ties count.
//
//     SignFlip({{1, 2, 3, 4, 5}})          // 1/32
//     SignFlip({{-1, 2, 3, 4, 5}})         // 2/32: {+,+,+,+,+} and ours
//
// Exact up to kExactSignFlips values, by the sums of two halves of them; beyond
// (1 + those found) / (1 + `samples`) of assignments drawn with `seed`. Sums are
// compared up to their rounding, so that ties in exact arithmetic are ties here.
// Of nothing, and of values that are not finite, p is 1.
//
// Source: Fisher, The Design of Experiments, 1935, section 21; Phipson and
// Smyth, Permutation p-values should never be zero, 2010.
#ifndef SHARDPROOF_REPORTS_STATISTICS_SIGN_FLIP_H_
#define SHARDPROOF_REPORTS_STATISTICS_SIGN_FLIP_H_

#include <cstdint>
#include <span>

namespace shardproof {

inline constexpr int kExactSignFlips = 30;

double SignFlip(std::span<const double> differences, uint64_t seed = 1,
                int samples = 20000);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STATISTICS_SIGN_FLIP_H_
