// Many tests at once: p values adjusted so that calling those below alpha
// significant keeps the expected share of false ones at or below alpha.
//
//     adjusted_(i) = min over j >= i of  min(1, m p_(j) / j),   p_(1) <= ...
//
//     BenjaminiHochberg({{0.01, 0.02, 0.03}})   // {0.03, 0.03, 0.03}
//
// As R's p.adjust(p, "BH"), but that a p which is NaN, a test that could not be
// made, counts as 1 and is adjusted to 1: it is among the m, and is no finding.
//
// Source: Benjamini and Hochberg, Controlling the false discovery rate, JRSS B
// 57, 1995.
#ifndef SHARDPROOF_REPORTS_STATISTICS_BENJAMINI_HOCHBERG_H_
#define SHARDPROOF_REPORTS_STATISTICS_BENJAMINI_HOCHBERG_H_

#include <span>
#include <vector>

namespace shardproof {

// In the order of `p`.
std::vector<double> BenjaminiHochberg(std::span<const double> p);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STATISTICS_BENJAMINI_HOCHBERG_H_
