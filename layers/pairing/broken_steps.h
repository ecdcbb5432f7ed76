// Optimizer steps with bugs, to plant into any layer that makes steps. For cases;
// nothing else uses them.
#ifndef SHARDPROOF_LAYERS_PAIRING_BROKEN_STEPS_H_
#define SHARDPROOF_LAYERS_PAIRING_BROKEN_STEPS_H_

#include "collectives/device.h"
#include "layers/kernels/optimizer.h"
#include "reference/status.h"

namespace shardproof {

// m / sqrt(v + epsilon): sqrt(v) where v is larger by epsilon. Moments are right.
Status AdamEpsilonInRoot(const Stream& stream, const AdamArgs& args);

// No master weights: each step begins with the rounded parameters.
template <class Args, Status (*Step)(const Stream&, const Args&)>
Status FromRoundedWeights(const Stream& stream, const Args& args) {
  const UpdateTensors& t = args.tensors;
  SP_RETURN_IF_ERROR(
      WidenParameters(stream, t.dtype, t.n, t.parameter, t.master));
  return Step(stream, args);
}

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_PAIRING_BROKEN_STEPS_H_
