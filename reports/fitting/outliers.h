// Links that stand out among their like, ranks all of whose links do, and pairs
// whose two directions differ.
//
//     const LinkFindings found = FindOutliers(ranks, links);
//
// On the logarithm of times, so that half and twice count alike. Per class of
// links ("same node", "between nodes"):
//   1. A rank whose own connection is slow takes half of the links of four
//      ranks with it, and would be the median. So every link is first explained
//      as class + sender + receiver by median polish, and a rank stands out
//      when its share (the larger of the two) has |z| > 4 among the ranks.
//   2. The median and the spread of the class are those of the links of all
//      other ranks, and every link with |z| > 4 from them is named:
//          z = (x - median) / sqrt((1.4826 MAD)^2 + e^2)
//      with e the standard error of the link's own median: where the MAD is 0
//      or small, a link stands out only beyond what its measurement resolves.
//      Where e is 0 as well, any difference is |z| = infinity.
// A class of fewer than 3 links has no spread to be compared with: nothing is
// named, and `too_few` says so. Step 1 needs at least 3 ranks in the class.
// A pair is asymmetric when its directions differ by |z| > 4 of
//     sqrt(2 (1.4826 MAD)^2 + e_ab^2 + e_ba^2),
// the MAD taken as 0 in a class of fewer than 3 links.
// Sources: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993, for
// z; Tukey, Exploratory Data Analysis, 1977, chapter 11, for median polish.
#ifndef SHARDPROOF_REPORTS_FITTING_OUTLIERS_H_
#define SHARDPROOF_REPORTS_FITTING_OUTLIERS_H_

#include <string>
#include <vector>

#include "reports/interconnect.h"

namespace shardproof {

inline constexpr double kOutlier = 4;

struct LinkTime {
  int from = 0, to = 0;
  std::string link_class = {};
  double median_us = 0;
  double relative_error = 0;  // Standard error of the median over the median.
};

struct LinkFindings {
  std::vector<PairMatrix::Slow> links = {};  // Slow (z > 4) and fast (z < -4).
  std::vector<PairMatrix::Asymmetry> asymmetric = {};
  struct Endpoint {
    int rank = 0;
    std::string link_class = {};
    double factor = 1;  // Its links take so many times as long as the others.
    friend bool operator==(const Endpoint&, const Endpoint&) = default;
  };
  std::vector<Endpoint> endpoints = {};   // Ranks that stand out as a whole.
  std::vector<std::string> too_few = {};  // Classes of fewer than 3 links.
};

LinkFindings FindOutliers(const std::vector<LinkTime>& links);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_FITTING_OUTLIERS_H_
