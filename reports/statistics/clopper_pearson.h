// How large a share can be, of which k in n were seen: exact, whatever n.
//
//     low  solves P(Binomial(n, low) >= k)  = tail,     0 where k = 0
//     high solves P(Binomial(n, high) <= k) = tail,     1 where k = n
//
//     ClopperPearsonHigh(0, 300, 0.95)    // 0.00994: at most 1 percent
//     ClopperPearsonLow(49, 50, 0.95)     // 0.909
//
// Of nothing (n < 1) and of counts that cannot be (k < 0, k > n) the share may
// be anything: 0 to 1.
//
// Source: Clopper and Pearson, The use of confidence or fiducial limits
// illustrated in the case of the binomial, Biometrika 26, 1934.
#ifndef SHARDPROOF_REPORTS_STATISTICS_CLOPPER_PEARSON_H_
#define SHARDPROOF_REPORTS_STATISTICS_CLOPPER_PEARSON_H_

#include "reports/statistics/interval.h"

namespace shardproof {

// One-sided: the share is at least, at most that, with `confidence`.
double ClopperPearsonLow(int k, int n, double confidence);
double ClopperPearsonHigh(int k, int n, double confidence);

// Two-sided: (1 - confidence) / 2 on each side.
ConfidenceInterval ClopperPearson(int k, int n, double confidence);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STATISTICS_CLOPPER_PEARSON_H_
