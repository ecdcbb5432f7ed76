// The core of attention on one device, forward and then backward, as values
// without bounds: for references that are probed (probe.h) and claim nothing
// else.
//
// Contract: the values of CoreReference (attention_core.h), causal, of sequences
// that lie one after the other, and in a probe every rounding that it declares.
// What it spares is bounds, keys that no query sees, probabilities computed
// anew for the way back, and long doubles, where the accumulator is not f64.
//
//     CausalCore core({.sequences = 2, .heads = 8, .kv_heads = 4,
//                      .head_dim = 64}, CoreArithmetic::For(DType::kF32));
//     o = core.Forward(q, k, v);          // [sequences x length, heads x dim]
//     CausalCore::Gradients d = core.Backward(d_o);
//
// Rejected: CoreReference itself. Most of its time goes into products of single
// heads, which are so small that what it takes to cut, to allocate and to bound
// them costs ten times the multiplications.
#ifndef SHARDPROOF_REFERENCE_CAUSAL_CORE_H_
#define SHARDPROOF_REFERENCE_CAUSAL_CORE_H_

#include <cstdint>
#include <vector>

#include "reference/attention_core.h"

namespace shardproof {

struct CausalCoreShape {
  int64_t sequences = 1;
  int64_t heads = 0;
  int64_t kv_heads = 0;  // Divides heads.
  int64_t head_dim = 0;  // Scores are scaled by 1 / sqrt(head_dim).
};

class CausalCore {
 public:
  using Values = std::vector<double>;
  struct Gradients {
    Values dq, dk, dv;
  };

  CausalCore(const CausalCoreShape& shape, const CoreArithmetic& a);

  // q [sequences x length, heads x head_dim]; k and v have kv_heads.
  Values Forward(Values q, Values k, Values v);
  // Of the last Forward.
  Gradients Backward(const Values& d_o) const;

 private:
  template <class Wide>
  void ForwardHead(int64_t sequence, int64_t head, Values& o);
  template <class Wide>
  void BackwardHead(int64_t sequence, int64_t head, const Values& d_o,
                    Values& ds, Values& dq) const;
  template <class Wide>
  void BackwardGroup(int64_t sequence, int64_t kv_head, const Values& d_o,
                     Gradients& d) const;
  template <class Wide>
  void Softmax(double* row, int64_t n) const;
  // A sum of n products that was found to be `value`, its roundings made.
  double Summed(double value, double size, int64_t n) const;
  double Rounded(double value, double u) const;
  double Stored(double value) const;

  // Of the first element of a token's head.
  int64_t Query(int64_t sequence, int64_t token, int64_t head) const;
  int64_t Key(int64_t sequence, int64_t token, int64_t kv_head) const;
  double* Probabilities(int64_t sequence, int64_t head);
  const double* Probabilities(int64_t sequence, int64_t head) const;

  CausalCoreShape shape_;
  CoreArithmetic a_;
  double u_;      // Of the accumulator.
  double u_sum_;  // The same, with the reference's own where it rounds, too.
  double scale_;
  bool probed_ = false;
  int64_t length_ = 0;
  Values q_, k_, v_;
  Values p_;  // [sequences, heads, length, length]
};

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_CAUSAL_CORE_H_
