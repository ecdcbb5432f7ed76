// Student's t: is the mean of launches, or the difference of two means, 0?
//
//     one sample   t = mean(x) / (s / sqrt(n)),          df = n - 1
//     Welch        t = (mean(y) - mean(x)) / sqrt(s_x^2/n_x + s_y^2/n_y),
//                  df by Welch and Satterthwaite
//
//     const TTest test = OneSampleT(differences);
//     test.p_greater                       // Of "the mean is above 0".
//     TInterval(test, 0.95)                // Of the mean.
//
// Degenerate input: of fewer than 2 values (on either side), and of values that
// are not finite, nothing is known: p 1 and an infinite interval. Without any
// spread t is 0 (p 1/2) where the mean is 0, and infinite (p 0 or 1) elsewhere.
//
// Sources: Student, The probable error of a mean, Biometrika 6, 1908; Welch,
// The generalization of Student's problem, Biometrika 34, 1947.
#ifndef SHARDPROOF_REPORTS_STATISTICS_STUDENTS_T_H_
#define SHARDPROOF_REPORTS_STATISTICS_STUDENTS_T_H_

#include <span>

#include "reports/statistics/interval.h"

namespace shardproof {

struct TTest {
  double mean = 0;            // Of the values, or mean(y) - mean(x).
  double standard_error = 0;  // Of that.
  double degrees = 0;         // Of freedom; 0: nothing is known.
  double t = 0;
  double p_greater = 1, p_less = 1, p_two_sided = 1;
};

TTest OneSampleT(std::span<const double> values);
TTest WelchT(std::span<const double> x, std::span<const double> y);

// mean +- standard_error * quantile((1 + confidence) / 2).
ConfidenceInterval TInterval(const TTest& test, double confidence);

// The quantile of the distribution: P(T <= result) = p, 0 < p < 1.
double TQuantile(double degrees, double p);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_STATISTICS_STUDENTS_T_H_
