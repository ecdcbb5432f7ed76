#include "tools/harness/rank_state.h"

namespace shardproof {

StatusOr<RankState*> RankState::Of(const Communicator& comm) {
  using Shared = std::shared_ptr<RankState>;
  SP_ASSIGN_OR_RETURN(
      Shared* const state,
      comm.Attribute<Shared>("harness/state", [&]() -> StatusOr<Shared> {
        auto fresh = std::make_shared<RankState>();
        SP_ASSIGN_OR_RETURN(fresh->locality, FindLocality(comm));
        return fresh;
      }));
  return state->get();
}

}  // namespace shardproof
