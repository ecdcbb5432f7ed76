// How fast this machine copies, sends and multiplies, measured in the same run
// as what is held against it: for floors and predictions.
#ifndef SHARDPROOF_TOOLS_CLI_CEILINGS_H_
#define SHARDPROOF_TOOLS_CLI_CEILINGS_H_

#include <cstddef>
#include <map>
#include <optional>
#include <utility>

#include "reference/dtype.h"
#include "tools/cli/jobs.h"
#include "tools/harness/rates.h"
#include "tools/harness/world.h"

namespace shardproof {

class Ceilings {
 public:
  explicit Ceilings(World& world) : world_(world) {}

  // For the floor of a job: the rate at which as many ranks copy as many bytes
  // (to a power of two, 64 KiB to 256 MiB; in the memory of a host at most
  // 512 MiB on all ranks together, and as much is written) and multiply in its
  // type. What has been measured before is kept. Collective, as World::Run; nothing where it
  // cannot be measured, for want of memory for instance.
  std::optional<MachineRates> Of(const Job& job);

 private:
  World& world_;
  std::map<std::pair<int, size_t>, std::optional<MachineRates>> moving_;
  std::map<std::pair<int, DType>, double> flops_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_CEILINGS_H_
