#include "reports/fitting/outliers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "reports/fitting/crossover.h"

namespace shardproof {
namespace {

constexpr double kMadToDeviation = 1.4826;  // 1 / quantile(normal, 3/4).

struct Link {
  const LinkTime* time = nullptr;
  double x = 0;  // ln of its median.
};
using Links = std::vector<Link>;

double Deviation(const std::vector<double>& values, double center) {
  std::vector<double> distances;
  for (const double v : values) distances.push_back(std::abs(v - center));
  return kMadToDeviation * MedianOrNaN(std::move(distances));
}

double Z(double distance, double deviation) {
  if (distance == 0) return 0;
  if (deviation == 0) {
    return std::copysign(std::numeric_limits<double>::infinity(), distance);
  }
  return distance / deviation;
}

// What rank r adds as a sender and as a receiver.
struct Shares {
  std::map<int, double> sends, receives;
};

Shares MedianPolish(const Links& links) {
  Shares shares;
  std::map<int, std::vector<size_t>> by_sender, by_receiver;
  std::vector<double> rest;
  for (size_t i = 0; i < links.size(); ++i) {
    by_sender[links[i].time->from].push_back(i);
    by_receiver[links[i].time->to].push_back(i);
    rest.push_back(links[i].x);
  }
  const auto sweep = [&](const std::map<int, std::vector<size_t>>& groups,
                         std::map<int, double>& out) {
    for (const auto& [rank, members] : groups) {
      std::vector<double> values;
      for (const size_t i : members) values.push_back(rest[i]);
      const double middle = MedianOrNaN(values);
      out[rank] += middle;
      for (const size_t i : members) rest[i] -= middle;
    }
    // The level of the class belongs to no rank.
    std::vector<double> effects;
    for (const auto& [rank, effect] : out) effects.push_back(effect);
    const double level = MedianOrNaN(effects);
    for (auto& [rank, effect] : out) effect -= level;
    for (double& r : rest) r += level;
  };
  constexpr int kRounds = 10;  // Tukey's two nearly always suffice.
  for (int round = 0; round < kRounds; ++round) {
    sweep(by_sender, shares.sends);
    sweep(by_receiver, shares.receives);
  }
  return shares;
}

// The ranks of a class all of whose links, or all in one direction, stand out.
std::set<int> StandingOut(const Links& links) {
  std::set<int> out;
  const Shares shares = MedianPolish(links);
  for (const auto* effects : {&shares.sends, &shares.receives}) {
    if (effects->size() < 3) continue;
    std::vector<double> values;
    for (const auto& [rank, effect] : *effects) values.push_back(effect);
    const double middle = MedianOrNaN(values);
    const double spread = Deviation(values, middle);
    for (const auto& [rank, effect] : *effects) {
      // The error of a median over the rank's links is below that of one.
      double error = 0;
      for (const Link& link : links) {
        if (link.time->from == rank || link.time->to == rank) {
          error = std::max(error, link.time->relative_error);
        }
      }
      if (std::abs(Z(effect - middle, std::hypot(spread, error))) > kOutlier) {
        out.insert(rank);
      }
    }
  }
  return out;
}

bool Touches(const Link& link, const std::set<int>& ranks) {
  return ranks.contains(link.time->from) || ranks.contains(link.time->to);
}

std::vector<double> Values(const Links& links) {
  std::vector<double> values;
  for (const Link& link : links) values.push_back(link.x);
  return values;
}

void FindPairs(const Links& links, double spread, LinkFindings& found) {
  for (const Link& ab : links) {
    if (ab.time->from > ab.time->to) continue;
    for (const Link& ba : links) {
      if (ba.time->from != ab.time->to || ba.time->to != ab.time->from)
        continue;
      const double scale =
          std::hypot(std::sqrt(2.0) * spread, ab.time->relative_error,
                     ba.time->relative_error);
      if (std::abs(Z(ab.x - ba.x, scale)) <= kOutlier) continue;
      found.asymmetric.push_back({.a = ab.time->from,
                                  .b = ab.time->to,
                                  .a_to_b_us = ab.time->median_us,
                                  .b_to_a_us = ba.time->median_us});
    }
  }
}

void FindInClass(const std::string& name, const Links& links,
                 LinkFindings& found) {
  if (links.size() < 3) {
    found.too_few.push_back(name);
    return FindPairs(links, 0, found);
  }
  const std::set<int> suspects = StandingOut(links);
  Links others;
  for (const Link& link : links) {
    if (!Touches(link, suspects)) others.push_back(link);
  }
  // With hardly any other link left, nothing says which of them are the usual.
  const bool apart = others.size() >= 3;
  if (!apart) others = links;
  const double middle = MedianOrNaN(Values(others));
  const double spread = Deviation(Values(others), middle);
  for (const int rank : apart ? suspects : std::set<int>()) {
    Links mine;
    for (const Link& link : links) {
      if (Touches(link, {rank})) mine.push_back(link);
    }
    found.endpoints.push_back(
        {.rank = rank,
         .link_class = name,
         .factor = std::exp(MedianOrNaN(Values(mine)) - middle)});
  }
  for (const Link& link : links) {
    const double z =
        Z(link.x - middle, std::hypot(spread, link.time->relative_error));
    if (std::abs(z) <= kOutlier) continue;
    found.links.push_back({.from = link.time->from,
                           .to = link.time->to,
                           .link_class = name,
                           .z = z,
                           .median_us = link.time->median_us,
                           .class_median_us = std::exp(middle)});
  }
  FindPairs(links, spread, found);
}

}  // namespace

LinkFindings FindOutliers(const std::vector<LinkTime>& links) {
  std::map<std::string, Links> classes;
  for (const LinkTime& link : links) {
    if (std::isfinite(link.median_us) && link.median_us > 0) {
      classes[link.link_class].push_back({&link, std::log(link.median_us)});
    }
  }
  LinkFindings found;
  for (const auto& [name, members] : classes) FindInClass(name, members, found);
  return found;
}

}  // namespace shardproof
