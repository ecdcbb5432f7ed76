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
#include <string>
#include <utility>
#include <vector>

#include "collectives/communicator.h"
#include "tools/harness/case_reference.h"

namespace shardproof {

// What a dense reference gives, and what probes of it (reference/probe.h) say.
struct Evaluated {
  DenseOutputs values;
  // Of outputs that have been probed, by rank: the probed_gain of what the rank
  // compares (reference/compare.h).
  std::map<std::string, std::vector<double>, std::less<>> probed_gain = {};
};

class Workspace {
 public:
  using Dense = std::shared_ptr<const StatusOr<Evaluated>>;

  // What `compute` gives, evaluated by one of the ranks that ask for `key`
  // while the others wait. The last few results are kept.
  Dense Get(uint64_t key, const std::function<StatusOr<Evaluated>()>& compute);

 private:
  struct Entry {
    uint64_t key = 0;
    Dense value = nullptr;  // Null while it is being computed.
    int64_t bytes = 0;
  };
  void Evict();

  std::mutex mutex_;
  std::condition_variable done_;
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
