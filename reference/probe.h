// Monte Carlo arithmetic: how far do the declared roundings really move a
// result? For chains, whose bounds (bounded.h) grow with every product beyond
// what the errors do, until they see nothing.
//
// Contract: while a Probe lives, the references on its thread give results in
// which every declared rounding has been made, at random:
//
//   rounded to a type of unit roundoff u    x + u |x| g
//   n additions, magnitude m                x + sqrt(n) u m g
//   a function that errs by e               f(x) + e (g + s(x))
//
// with g standard normal. So the deviation of a result y_i from the exact one
// is, to first order, normal with the variance v_i = sum over all roundings m
// of (J_im c_m)^2: J the derivative of y_i by what is rounded, c_m the most that
// the rounding errs. That is what Azuma's inequality asks for: errors e of an
// implementation whose roundings are mean-independent and at most c_m large,
// whatever their distribution, obey
//
//   P(|e_i| > t) <= 2 exp(-t^2 / (2 v_i)).
//
// (Roundings drawn uniformly, as Monte Carlo arithmetic does, would give a third
// of v_i: right for roundings that are uniform, and too little for others.)
//
// K probes estimate v_i by S_i, the mean of their squared deviations: K S_i /
// v_i is chi-square with K degrees of freedom, and independent of e. With the
// generating function of that,
//
//   P(|e_i| > t sqrt(S_i)) <= 2 E exp(-t^2 S_i / (2 v_i))
//                           = 2 (1 + t^2 / K)^(-K / 2),
//
// which is 2 exp(-lambda^2 / 2) = delta / N, a right result being refused with
// probability delta for all N elements together, where
//
//   t = ProbedLambda(lambda, K) = sqrt(K (exp(lambda^2 / K) - 1)).
//
// For lambda = 7: 18.1 from 16 probes, 10.8 from 32; 7 from infinitely many. Any
// linear combination of results, as their gain is, has such a bound by the
// deviation of that combination, whatever the elements share.
//
// What is systematic. g is a function of the probe and of the number, to the
// precision that it is rounded to: where many equal numbers are rounded, or
// nearly equal ones, all err alike, as they do in earnest, and what is computed
// twice errs the same way twice. An exp or tanh may err by a function of its
// argument: s is a random wave, a cos(w x) + b sin(w x), of a length from far
// above to far below 1, drawn once per probe and function; a bias is the longest
// of them. What is not covered is what the likely bounds of bounded.h exclude
// too: additions that all round in one direction. `worst` has them.
//
//   Deviations d(exact.size());
//   for (uint64_t k = 0; k < 16; ++k) {
//     const Probe probe(k);
//     d.Add(exact, Reference(inputs));
//   }
//   d.Tighten(Lambda(population), exact);
//
// A reference that is probed has to be a function of its inputs, and to state
// its roundings through bounded.h, not in bounds of its own: those of
// transformer_block and of all that it is made of do, that of cross_entropy does
// not. What the bounds of a probe's results say means nothing.
//
// Sources: Parker, UCLA CSD-970002, 1997; Denis, de Oliveira Castro and Petit,
// Verificarlo, ARITH 2016; Hallman and Ipsen, arXiv:2203.15928.

#ifndef SHARDPROOF_REFERENCE_PROBE_H_
#define SHARDPROOF_REFERENCE_PROBE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "reference/bounded.h"

namespace shardproof {

// Of its thread; they may be nested.
class Probe {
 public:
  explicit Probe(uint64_t seed);
  ~Probe();
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  // Whether one lives on this thread.
  static bool Active();
  // Its seed, unset where none lives: for threads that compute a part of what
  // this one asks for, each of which needs a Probe of its own.
  static std::optional<uint64_t> Current();

 private:
  bool outer_active_;
  uint64_t outer_seed_;
};

// By how much deviations that K = `probes` probes have estimated are multiplied,
// where known ones would be by lambda. Infinite for no probes.
double ProbedLambda(double lambda, int probes);

// Deviations of probes from exact results.
class Deviations {
 public:
  explicit Deviations(size_t elements) : squares_(elements) {}
  // One probe's results, in the order of the exact ones.
  void Add(std::span<const Bounded> exact, std::span<const Bounded> probed);
  int probes() const { return probes_; }
  // Makes Likely(lambda) of each element the smaller of what it is and
  // ProbedLambda(lambda) times the element's deviation. Other lambdas have no
  // effect on it any more.
  void Tighten(double lambda, std::span<Bounded> exact) const;

 private:
  int probes_ = 0;
  std::vector<double> squares_;
};

namespace internal {

// A standard normal number as a function of 64 uniform bits, and of more that
// are drawn from these where they are not enough: the ziggurat of Marsaglia and
// Tsang (J. Stat. Softw. 5(8), 2000), with bits of its own for the layer, as
// Doornik asks for. Its distribution is the normal one to the precision of a
// double, tails included.
double StandardNormal(uint64_t bits);

// g of a number that is rounded to unit roundoff u. Only within a probe.
double ProbedRounding(double x, double u);
// g + s(x) of the evaluation of a function at x, of which ErrorOf gives the
// error as a multiple of its bound; functions are told apart by `function`.
double ProbedFunction(double x, double u, uint64_t function);

}  // namespace internal

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_PROBE_H_
