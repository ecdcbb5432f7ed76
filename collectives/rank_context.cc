#include "collectives/rank_context.h"

namespace shardproof {
namespace {

thread_local std::shared_ptr<const RankServices> current_context;

}  // namespace

const std::shared_ptr<const RankServices>& CurrentContext() {
  return current_context;
}

void SetCurrentContext(std::shared_ptr<const RankServices> context) {
  current_context = std::move(context);
}

}  // namespace shardproof
