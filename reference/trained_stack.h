// Linear layers one after another, trained on one device with the whole batch, in
// double and with bounds.
//
// Contract, with x_0 = x [tokens, widths[0]] and dy_L = dy:
//
//     x_{l+1} = x_l w_l^T + b_l              y = x_L
//     dw_l = dy_{l+1}^T x_l                  db_l = sum over tokens of dy_{l+1}
//     dy_l = dy_{l+1} w_l                    dx = dy_0
//
// and then one step of an optimizer on all w_l and b_l. The parameters of layer l
// are w_l, row-major, and behind it b_l; `gradient` and the optimizer's tensors
// are all layers one after another.
//
// Bounds: each product accumulates in Accumulator(dtype) and is stored as dtype;
// each gradient is a sum over parts of the tokens, where each part's term is
// stored, and each addition accumulates there and is stored again, `roundings`
// times on the way of one term.
//
//     TrainedStackReference r({64, 256, 64}, DType::kF32, settings, initial);
//     r.Step(x, dy, {.tokens = {5, 7, 4}, .roundings = 2}, 1.0 / 16);
//     r.y(); r.gradient(); r.optimizer().parameters();
#ifndef SHARDPROOF_REFERENCE_TRAINED_STACK_H_
#define SHARDPROOF_REFERENCE_TRAINED_STACK_H_

#include <cstdint>
#include <span>
#include <vector>

#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/optimizer.h"

namespace shardproof {

class TrainedStackReference {
 public:
  // How gradients come together: the tokens of each part, in order, adding up
  // to all of them.
  struct Parts {
    std::vector<int64_t> tokens;
    int roundings = 1;
  };

  // `initial`: all parameters, representable in dtype.
  TrainedStackReference(std::vector<int64_t> widths, DType dtype,
                        const OptimizerSettings& settings,
                        std::span<const double> initial);

  // Both passes and the optimizer's step, with its `factor`.
  void Step(std::span<const double> x, std::span<const double> dy,
            const Parts& parts, double factor = 1);

  // Of the last step.
  const std::vector<Bounded>& y() const { return y_; }
  const std::vector<Bounded>& dx() const { return dx_; }
  const std::vector<Bounded>& gradient() const { return gradient_; }
  const OptimizerReference& optimizer() const { return optimizer_; }

 private:
  // Values and how far from them an implementation may be, row-major.
  struct Plane {
    int64_t rows = 0, columns = 0;
    std::vector<double> value, error;
  };
  static Plane Make(int64_t rows, int64_t columns);
  static Plane Transposed(const Plane& a);
  static Plane RowsOf(const Plane& a, int64_t begin, int64_t count);
  static std::vector<Bounded> BoundedOf(const Plane& a);
  // a b^T, plus the bias in every row, rounded once.
  Plane Product(const Plane& a, const Plane& b,
                const std::vector<Bounded>& bias) const;
  // Weights [out, in] and bias [out] of layer l.
  Plane WeightsOf(const std::vector<Bounded>& parameters, size_t layer) const;
  std::vector<Bounded> BiasOf(const std::vector<Bounded>& parameters,
                              size_t layer) const;
  // dw and db of a layer, summed over the parts.
  std::vector<Bounded> GradientOf(const Plane& x, const Plane& dy,
                                  const Parts& parts) const;

  std::vector<int64_t> widths_, begins_;
  DType dtype_;
  OptimizerReference optimizer_;
  std::vector<Bounded> y_, dx_, gradient_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_TRAINED_STACK_H_
