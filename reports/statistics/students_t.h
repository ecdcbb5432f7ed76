// Student's t: is the mean of launches, or the difference of two means, 0?
//
//     one sample   t = mean(x) / (s / sqrt(n)),          df = n - 1
//     Welch        t = (mean(y) - mean(x)) / sqrt(s_x^2/n_x + s_y^2/n_y),
//                  df by Welch and Satterthwaite
//
// With `trim`, Tukey and McLaughlin's and Yuen's forms of the two, for values
// among which some are far off: of n values the g = floor(trim n) lowest and as
// many highest count for nothing but where they were, and h = n - 2 g are kept.
//
//     mean     of those kept
//     s / sqrt(n)  becomes  s_w sqrt((n - 1) / (h (h - 1))), s_w with the
//              lowest g put up to the lowest kept, the highest g put down
//     n - 1    becomes h - 1 in the degrees of freedom
//
//     const TTest test = OneSampleT(differences, 0.2);
//     test.p_greater                       // Of "the mean is above 0".
//     TInterval(test, 0.95)                // Of the mean.
//
// Degenerate input: of fewer than 2 values (on either side), and of values that
// are not finite, nothing is known: p 1 and an infinite interval. Without any
// spread t is 0 (p 1/2) where the mean is 0, and infinite (p 0 or 1) elsewhere.
// Values of which all are the same that are kept, and only those, say nothing of
// their spread (a coarse clock gives such): nothing is trimmed then.
//
// Sources: Student, The probable error of a mean, Biometrika 6, 1908; Welch,
// The generalization of Student's problem, Biometrika 34, 1947; Tukey and
// McLaughlin, Less vulnerable confidence and significance procedures for
// location, Sankhya A 25, 1963; Yuen, The two-sample trimmed t for unequal
// population variances, Biometrika 61, 1974.
#ifndef SHARDPROOF_REPORTS_STATISTICS_STUDENTS_T_H_
#define SHARDPROOF_REPORTS_STATISTICS_STUDENTS_T_H_

#include <span>

#include "reports/statistics/interval.h"

namespace shardproof {

struct TTest {
  double mean = 0;            // Of those kept, or mean(y) - mean(x).
  double standard_error = 0;  // Of that.
  double degrees = 0;         // Of freedom; 0: nothing is known.
  double t = 0;
  double p_greater = 1, p_less = 1, p_two_sided = 1;
};

// `trim` in [0, 0.5), of each end.
TTest OneSampleT(std::span<const double> values, double trim = 0);
TTest WelchT(std::span<const double> x, std::span<const double> y,
             double trim = 0);

// n - 2 floor(trim n).
int KeptOf(int n, double trim);

// mean +- standard_error * quantile((1 + confidence) / 2).
ConfidenceInterval TInterval(const TTest& test, double confidence);

// The quantile of the distribution: P(T <= result) = p, 0 < p < 1.
double TQuantile(double degrees, double p);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STATISTICS_STUDENTS_T_H_
