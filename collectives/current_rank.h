// Which rank the calling thread works for: what a crash handler prints.
#ifndef SHARDPROOF_COLLECTIVES_CURRENT_RANK_H_
#define SHARDPROOF_COLLECTIVES_CURRENT_RANK_H_

namespace shardproof {

// The rank in the world, or -1 on a thread that works for none. Safe in a signal
// handler. Threads that serve a stream take it over from the stream's creator.
int CurrentRank();
void SetCurrentRank(int rank);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_CURRENT_RANK_H_
