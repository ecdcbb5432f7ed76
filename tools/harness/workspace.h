// What the ranks of one process share: references that are expensive to
// evaluate, so that four ranks as threads do not each do the same work.
#ifndef SHARDPROOF_TOOLS_HARNESS_WORKSPACE_H_
#define SHARDPROOF_TOOLS_HARNESS_WORKSPACE_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/communicator.h"
#include "reference/probe.h"
#include "tools/harness/case_reference.h"

namespace shardproof {

// What a dense reference gives, and what probes of it (reference/probe.h) say.
struct Evaluated {
  DenseOutputs values;
  // Of outputs that have been probed, by rank: the probed_gain of what the rank
  // compares (reference/compare.h).
  std::map<std::string, std::vector<double>, std::less<>> probed_gain = {};
  // While probes are added: of one output, deviations of its elements, and of
  // each rank's <c - y, y>.
  struct Probing {
    Deviations elements;
    std::vector<double> gain_squares;
  };
  std::map<std::string, Probing, std::less<>> probing = {};
};

// A dense reference under evaluation, in parts that any rank of the process may
// evaluate: the first is the reference itself, each other one a probe of it.
// They are put together in their order, so that the result does not depend on
// who evaluated what, and when.
class Evaluation {
 public:
  using Dense = std::shared_ptr<const StatusOr<Evaluated>>;
  // Puts part `part` to what the parts before it have given.
  using Add = std::function<void(int part, const DenseOutputs&, Evaluated&)>;

  explicit Evaluation(int parts) : parts_(parts) {}
  // A part for the caller to evaluate, which it then has to deliver; unset when
  // none is left.
  std::optional<int> Take();
  void Deliver(int part, StatusOr<DenseOutputs> outputs, const Add& add);
  // Waits for parts that others have taken.
  Dense Wait();

  // Of a result that is there; unset before.
  std::optional<int64_t> bytes() const;

 private:
  const int parts_;
  mutable std::mutex mutex_;  // Guards all below.
  std::condition_variable done_;
  int taken_ = 0, added_ = 0;
  bool adding_ = false;  // Somebody adds, without the mutex, to evaluated_.
  std::map<int, StatusOr<DenseOutputs>> delivered_;
  Evaluated evaluated_;
  Dense value_;
};

class Workspace {
 public:
  struct Found {
    std::shared_ptr<Evaluation> evaluation;
    bool fresh = false;  // Nobody had asked for it before.
  };
  // What is known under `key`, of so many parts. The last few are kept.
  Found Find(uint64_t key, int parts);

 private:
  struct Entry {
    uint64_t key = 0;
    std::shared_ptr<Evaluation> evaluation;
  };
  void Evict();

  std::mutex mutex_;
  std::list<Entry> entries_;  // Guarded by mutex_; the most recent in front.
};

// Where the ranks of a communicator live, as far as sharing goes.
struct Locality {
  std::shared_ptr<Workspace> workspace;  // The same for all of a process.
  int local_rank = 0;                    // Among the ranks of this process.
  int local_ranks = 1;
};
// Collective.
StatusOr<Locality> FindLocality(const Communicator& comm);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_WORKSPACE_H_
