// What the outputs of one execution must be, for any element on any rank, and
// which elements are looked at.
#ifndef SHARDPROOF_TOOLS_HARNESS_EXPECTATION_H_
#define SHARDPROOF_TOOLS_HARNESS_EXPECTATION_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tools/harness/registry.h"
#include "tools/harness/workspace.h"

namespace shardproof {

// Half-open range of local elements.
using Segments = std::vector<Interval>;

// Which indices of each output's sample dimension to look at; outputs that are
// looked at whole are left out. Always in it: the first and the last index that
// each rank holds, where mistakes at borders are.
struct SampleLimits {
  int64_t elements = 1 << 22;  // Per output, of all ranks together.
  double flops = 4e9;          // Of a dense reference; 0: no limit.
};
Sample PlanSample(const Tensors& tensors, int ranks, double flops,
                  const SampleLimits& limits, uint64_t seed);

// The local elements of `spec` on `rank` that `sample` asks for, ascending.
Segments SampledSegments(const TensorSpec& spec, int rank, int ranks,
                         const Sample& sample);
// Part `part` of `parts` of the segments, cut by length.
Segments PartOf(const Segments& segments, int part, int parts);
// What `rank` compares of output `spec`: of replicas, which are compared with
// one another by their hashes, its part.
Segments ComparedSegments(const TensorSpec& spec, int rank, int ranks,
                          const Sample& sample);

class Expectation {
 public:
  // An element that the reference leaves alone: it must not be written.
  static Bounded Untouched();
  static bool IsUntouched(const Bounded& value) { return value.worst < 0; }

  // All arguments must outlive the result. `probes` probes narrow the bounds of
  // a dense reference (reference/probe.h).
  Expectation(const CaseInfo& info, const Instance& instance,
              const Tensors& tensors, const Arithmetic& arithmetic,
              const Inputs& inputs, const Sample& sample, int probes = 0);
  // A dense reference is taken from `workspace` under `key`, or evaluated, by
  // all ranks of the process that need it `together`, or by the first of them
  // alone: there is memory for as many evaluations at a time.
  Status Prepare(Workspace* workspace, uint64_t key, bool together = true);
  // Evaluates what nobody else does, and does not wait for the rest.
  void PrepareAhead(Workspace& workspace, uint64_t key) const;
  // Gives up what Prepare got.
  void Release() { dense_ = nullptr; }

  // Local elements [begin, begin + out.size()) of `spec` on `rank`, which must
  // lie within one of its segments.
  void Read(const TensorSpec& spec, int rank, int64_t begin,
            std::span<Bounded> out) const;

  // The probed_gain of what `rank` compares of `spec` (reference/compare.h);
  // unset where nothing was probed.
  std::optional<double> ProbedGain(const TensorSpec& spec, int rank) const;

  // What the outputs would be with `inputs` instead; neither prepared nor
  // probed.
  Expectation With(const Inputs& inputs) const {
    return {info_, instance_, tensors_, arithmetic_, inputs, sample_};
  }
  bool is_dense() const { return info_.dense != nullptr; }
  const Sample& sample() const { return sample_; }

 private:
  // So that a reference with a mistake is an error and not a crash.
  Status CheckDense(const DenseOutputs& outputs) const;
  StatusOr<DenseOutputs> EvaluateOnce() const;
  void EvaluateParts(Evaluation& evaluation) const;
  // The reference itself (part 0), or one probe, and what comes of them all.
  void AddPart(int part, const DenseOutputs& outputs,
               Evaluated& evaluated) const;
  void AddProbe(const DenseOutputs& probed, Evaluated& evaluated) const;
  void FinishProbing(Evaluated& evaluated) const;
  void ReadDense(const std::vector<Bounded>& values, const TensorSpec& spec,
                 int rank, int64_t begin, std::span<Bounded> out) const;
  // The sum of what `rank` compares, `values` in the place of the output's.
  double SumCompared(const std::vector<Bounded>& values, const TensorSpec& spec,
                     int rank) const;

  const CaseInfo& info_;
  const Instance& instance_;
  const Tensors& tensors_;
  const Arithmetic& arithmetic_;
  const Inputs& inputs_;
  const Sample& sample_;
  const int probes_;
  Evaluation::Dense dense_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_EXPECTATION_H_
