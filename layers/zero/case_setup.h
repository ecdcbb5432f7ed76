// The pairing of zero, but for its variants and planted bugs (case.cc):
// parameters, tensors and the reference.
#ifndef SHARDPROOF_LAYERS_ZERO_CASE_SETUP_H_
#define SHARDPROOF_LAYERS_ZERO_CASE_SETUP_H_

#include <cstdint>
#include <vector>

#include "layers/zero/zero.h"
#include "reference/dtype.h"
#include "tools/harness/case.h"

namespace shardproof::zero_case {

struct P {
  DType dtype = DType::kF32;
  int stage = 1;
  int replicas = 1;
  bool adam = false;
  bool linear = false;  // Powers of two: integers stay exact.
  int micro_batches = 1;
  int64_t hidden = 0;
  int64_t tokens = 0;  // Of all ranks, in a step.
  int64_t steps = 2;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

// Training of many steps, of two small blocks.
inline constexpr int64_t kSmall = 6;
inline bool Long(const P& p) { return p.steps > 2; }
inline int Shards(const P& p) { return p.ranks / p.replicas; }

std::vector<int64_t> WidthsOf(const P& p);
int64_t Parameters(const P& p);
// Of each rank, in a step.
std::vector<int64_t> TokensOf(const P& p);
// What gradients are multiplied by.
double FactorOf(const P& p);
ZeroConfig ConfigOf(const P& p);

bool Narrow(const P& p);
bool HasFirst(const P& p);
// Whether y and dx of the last step are compared.
bool HasLastPasses(const P& p);
Tensors TensorsOf(const P& p);
StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample);

}  // namespace shardproof::zero_case

#endif  // SHARDPROOF_LAYERS_ZERO_CASE_SETUP_H_
