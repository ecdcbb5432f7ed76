// Cases as the harness sees them: without their parameter type.
#ifndef SHARDPROOF_TOOLS_HARNESS_REGISTRY_H_
#define SHARDPROOF_TOOLS_HARNESS_REGISTRY_H_

#include <any>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/harness/axis.h"
#include "tools/harness/case_reference.h"
#include "tools/harness/tensor_spec.h"
#include "tools/harness/variant.h"

namespace shardproof {

// The least work that any implementation does, for `floor_us`.
struct Floor {
  // Bytes read plus written by one rank, at the copy rate measured in the same
  // run (copy_rate.h).
  double copy_bytes = 0;
  double wire_bytes = 0;  // Bytes through one rank's link.
  double flops = 0;
};

// What a model, cut over a machine, asks of a case: real message sizes and
// layer shapes (layers/models).
struct Workload {
  std::string name;  // "llama-3.1-8b tp=4"
  // hidden, intermediate, heads, kv_heads, head_dim, vocabulary, tokens, ...
  std::map<std::string, int64_t> shape = {};
  std::map<std::string, std::string> facts = {};  // activation, dtype
  struct Message {
    std::string primitive;  // "all_reduce"
    std::string what;       // "block output, forward"
    // Elements on one rank, as the primitive's args count them.
    int64_t count = 0;
    DType dtype = DType::kBF16;
  };
  std::vector<Message> messages = {};
};

// One point of a case's axes. `values` are (axis, text) in axis order: what
// repro lines, records and tables print.
struct Instance {
  std::any params;
  std::vector<std::pair<std::string, std::string>> values;
  int ranks = 1;
  Memory memory = Memory::kShared;  // Where the buffers lie, for the cost.
  // Topology::node_of of the ranks, for cost and arithmetic; empty: one node.
  std::vector<int> node_of = {};
};

struct ErasedVariant {
  std::string name, note;
  bool native = false, deterministic = true, mutant = false;
  std::function<StatusOr<Operation>(const Instance&, RankContext&)> bind;
  // A reason why not. Without a communicator (null), what depends on where the
  // ranks are is left out.
  std::function<std::optional<std::string>(const Instance&,
                                           const Communicator*)>
      refuses;
  std::function<std::optional<Cost>(const Instance&)> cost;
  std::function<std::optional<Arithmetic>(const Instance&)> arithmetic;
  std::function<bool(const Instance&)> applies;
};

enum class Purpose { kVerify, kBench, kSmoke };

struct CaseInfo {
  std::string name, what;
  bool exact = true, bounded = true;
  std::vector<AxisInfo> axes;
  std::vector<ErasedVariant> variants, mutants;
  // Expands the axes (with `overrides` from --axis) for `ranks`; the last axis
  // runs fastest. kInvalidArgument names an unknown axis or value.
  std::function<StatusOr<std::vector<Instance>>(Purpose, int ranks,
                                                const AxisOverrides&)>
      expand;
  std::function<std::vector<Instance>(const Workload&, int ranks)> workload;
  std::function<Tensors(const Instance&)> tensors;
  // Exactly one of these two is set.
  std::function<void(const Instance&, const Arithmetic&, const Inputs&,
                     const BlockQuery&, std::span<Bounded>)>
      block;
  std::function<StatusOr<DenseOutputs>(const Instance&, const Arithmetic&,
                                       const Inputs&, const Sample&)>
      dense;
  // Never null; 0 (busbw_factor: 1) where the case does not say.
  std::function<int(const Instance&)> probes;
  std::function<int64_t(const Instance&)> bytes;
  std::function<double(const Instance&)> busbw_factor, flops;
  std::function<Floor(const Instance&)> floor;

  // By name, among variants and mutants ("mutant/<name>" or "<name>"); null.
  const ErasedVariant* FindVariant(std::string_view name) const;
};

class Registry {
 public:
  static Registry& Get();
  // A repeated name, no variant, no reference, a nameless or repeated axis or
  // variant: kInvalidArgument, and the case is not added.
  Status TryAdd(CaseInfo info);
  // The same, but an error is printed and ends the process with status 2.
  void Add(CaseInfo info);
  // Sorted by name.
  const std::vector<CaseInfo>& cases() const { return cases_; }
  const CaseInfo* Find(std::string_view name) const;

 private:
  std::vector<CaseInfo> cases_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_REGISTRY_H_
