#include "collectives/current_rank.h"

namespace shardproof {
namespace {

thread_local int current_rank = -1;

}  // namespace

int CurrentRank() { return current_rank; }
void SetCurrentRank(int rank) { current_rank = rank; }

}  // namespace shardproof
