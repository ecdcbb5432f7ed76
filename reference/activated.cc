#include "reference/activated.h"

namespace shardproof::internal {

Activated Activate(bool gated, const Matrix& g, const Matrix& z,
                   const Matrix& da, const Arithmetic& arithmetic) {
  const double u = arithmetic.UAccumulate();
  const double ulps = arithmetic.function_ulps;
  // One operation in the accumulator's type, then storage.
  const auto stored = [&](const Bounded& x) {
    return Rounded(Rounded(x, u), arithmetic.store);
  };
  Activated r;
  r.a = z;
  // Either extent may be 0.
  const bool backward = da.cols > 0 || !da.rows.empty();
  if (backward) r.dz = z;
  if (backward && gated) r.dg = z;
  for (size_t i = 0; i < z.values.size(); ++i) {
    const Bounded& zi = z.values[i];
    if (!gated) {
      r.a.values[i] = stored(GeluTanh(zi, u, ulps));
      if (backward) {
        r.dz.values[i] = stored(da.values[i] * GeluTanhGrad(zi, u, ulps));
      }
      continue;
    }
    const Bounded& gi = g.values[i];
    // An unfused implementation stores silu(g) before it multiplies.
    const Bounded s = stored(Silu(gi, u, ulps));
    r.a.values[i] = stored(s * zi);
    if (!backward) continue;
    r.dz.values[i] = stored(da.values[i] * s);
    const Bounded through = stored(da.values[i] * zi);
    r.dg.values[i] = stored(through * SiluGrad(gi, u, ulps));
  }
  return r;
}

}  // namespace shardproof::internal
