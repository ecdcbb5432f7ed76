// One step of a stack of linear layers on tokens that are shared out among
// replicas: the tokens, tensors and reference that cases of data parallelism
// have in common. On a mesh, pairs of layers are tensor-parallel inside each
// replica: even layers are cut by output, odd ones by input.
#ifndef SHARDPROOF_LAYERS_PAIRING_STACK_CASE_H_
#define SHARDPROOF_LAYERS_PAIRING_STACK_CASE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "collectives/traffic.h"
#include "layers/data_parallel/linear_stack.h"
#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/linear_stack.h"
#include "reference/tensor.h"
#include "tools/harness/case.h"

namespace shardproof {

struct StackCase {
  DType dtype = DType::kF32;
  // Off: the gradients stay with the ranks (no_sync), which measures what a
  // step takes without communication.
  bool reduces = true;
  int tensor_parallel = 1;
  int micro_batches = 1;
  int64_t tokens = 0;
  int64_t width = 0;
  int layers = 2;
  int64_t bucket = 0;  // Elements.
  int ranks = 1;
  Memory memory = Memory::kShared;

  int replicas() const { return ranks / tensor_parallel; }
  int ReplicaOf(int rank) const { return rank / tensor_parallel; }
};

// Which tokens the loss counts: as many as the largest power of two that is at
// most three quarters, so that integers are divided exactly; their places are
// drawn.
std::vector<bool> Counted(int64_t tokens);
// How many of these it counts.
int64_t CountIn(const StackCase& p, const TokenRange& tokens);
// How many tokens have the prefix: the first ones, few enough for one replica.
int64_t Prefixed(const StackCase& p);
// The tokens of each replica's micro-batches.
TokenParts PartsOf(const StackCase& p);
// dy of tokens from `first` on, with zeros for those that do not count, each
// times a factor.
Tensor MaskedGradient(const StackCase& p, ConstTensorView dy, int64_t first,
                      const std::function<double(int64_t)>& factor = {});

LinearStackConfig WholeStack(const StackCase& p);
LinearStackConfig StackOf(const StackCase& p, int rank);
// "prefix", "w0", "b0", "w1", ...; gradients are called "d" and this.
std::string NameOf(int parameter);

// x, the parameters and dy; the gradients.
Tensors StackTensors(const StackCase& p);
StatusOr<DenseOutputs> StackReference(const StackCase& p,
                                      const Arithmetic& summed,
                                      const Inputs& in, const Sample& sample);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_PAIRING_STACK_CASE_H_
