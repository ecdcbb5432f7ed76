#include "layers/pairing/broken_steps.h"

#include <vector>

#include "reference/dtype.h"

namespace shardproof {

Status AdamEpsilonInRoot(const Stream& stream, const AdamArgs& args) {
  AdamArgs wrong = args;
  const UpdateTensors& t = args.tensors;
  const DType computed = Accumulator(t.dtype);
  const auto n = static_cast<size_t>(t.n);
  // The right second moment, with weights, master and first moment aside.
  std::vector<double> v(n), g(n), w(n);
  ToDouble(computed, t.second, t.n, v.data());
  ToDouble(t.gradient_dtype, t.gradient, t.n, g.data());
  ToDouble(computed, Accumulator(t.dtype) == t.dtype ? t.parameter : t.master,
           t.n, w.data());
  std::vector<double> shifted(n);
  for (size_t i = 0; i < n; ++i) {
    const double x = args.gradient_scale * g[i] + args.coupled_decay * w[i];
    v[i] = args.beta2 * v[i] + (1 - args.beta2) * x * x;
    const double root = args.second_scale;
    shifted[i] =
        (v[i] + args.epsilon / root / root - (1 - args.beta2) * x * x) /
        args.beta2;
  }
  FromDouble(computed, shifted.data(), t.n, t.second);
  wrong.epsilon = 0;
  SP_RETURN_IF_ERROR(AdamStep(stream, wrong));
  FromDouble(computed, v.data(), t.n, t.second);
  return OkStatus();
}

}  // namespace shardproof
