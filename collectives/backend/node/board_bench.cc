// How long one round of the board takes, against the number of ranks and the
// bytes that travel. Ranks are threads, pinned while there are enough cores.
//
//     bazel run -c opt //collectives/backend/node:board_bench
//
// The time of an iteration is that of one round, on rank 0, in batches of 1000.
#include <benchmark/benchmark.h>
#include <pthread.h>
#include <sched.h>

#include <chrono>
#include <cstdlib>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "collectives/backend/node/board.h"

namespace shardproof {
namespace {

constexpr int kBatch = 1000;

void PinTo(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

struct FreeDeleter {
  void operator()(std::byte* p) const { std::free(p); }
};

// Threads that hold a board each. Batches start when rank 0 says so, through
// the board.
class Ranks {
 public:
  using Round = Status (*)(NodeBoard&, std::span<PeerBuffers>, size_t bytes);

  Ranks(int ranks, Round round, size_t bytes)
      : round_(round),
        bytes_(bytes),
        size_(ranks),
        control_(static_cast<std::byte*>(std::aligned_alloc(
            4096, NodeBoard::BytesNeeded(ranks) / 4096 * 4096 + 4096))) {
    std::memset(control_.get(), 0, NodeBoard::BytesNeeded(ranks));
    for (int r = 1; r < ranks; ++r) {
      threads_.emplace_back([this, r] { Follow(r); });
    }
    if (size_ <= UsableCores()) PinTo(0);
    own_ = std::make_unique<NodeBoard>(Board(0));
  }
  ~Ranks() {
    Tell(false);
    for (std::thread& thread : threads_) thread.join();
  }

  double Batch() {
    Tell(true);
    std::vector<PeerBuffers> peers(size_);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kBatch; ++i) Check(round_(*own_, peers, bytes_));
    return std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                         start)
        .count();
  }

 private:
  static void Check(const Status& status) {
    if (!status.ok()) std::abort();
  }
  NodeBoard Board(int rank) {
    return NodeBoard(
        control_.get(), rank, size_,
        std::vector<AddressWindow>(
            size_, {.base = 0, .bytes = std::numeric_limits<size_t>::max()}),
        {.abort = &abort_, .spin = size_ <= UsableCores()});
  }
  void Tell(bool go) {
    std::vector<PeerBuffers> peers(size_);
    Check(own_->MeetEager(&go, 1, peers));
  }
  void Follow(int rank) {
    if (size_ <= UsableCores()) PinTo(rank);
    NodeBoard board = Board(rank);
    std::vector<PeerBuffers> peers(size_);
    while (true) {
      Check(board.MeetEager(nullptr, 0, peers));
      if (*peers[0].send == std::byte{0}) return;
      for (int i = 0; i < kBatch; ++i) Check(round_(board, peers, bytes_));
    }
  }

  AbortFlag abort_;
  const Round round_;
  const size_t bytes_;
  const int size_;
  const std::unique_ptr<std::byte, FreeDeleter> control_;
  std::unique_ptr<NodeBoard> own_;
  std::vector<std::thread> threads_;
};

void Measure(benchmark::State& state, Ranks::Round round) {
  Ranks ranks(static_cast<int>(state.range(0)), round,
              static_cast<size_t>(state.range(1)));
  for (int i = 0; i < 20; ++i) ranks.Batch();
  while (state.KeepRunningBatch(kBatch)) {
    state.SetIterationTime(ranks.Batch());
  }
}

void BM_Sync(benchmark::State& state) {
  Measure(state, [](NodeBoard& board, std::span<PeerBuffers>, size_t) {
    return board.Sync();
  });
}

void BM_MeetEager(benchmark::State& state) {
  Measure(state,
          [](NodeBoard& board, std::span<PeerBuffers> peers, size_t bytes) {
            static const std::vector<std::byte> data(NodeBoard::kEagerBytes);
            Status status = board.MeetEager(data.data(), bytes, peers);
            if (status.ok()) benchmark::DoNotOptimize(*peers[0].send);
            return status;
          });
}

void BM_MeetAndDepart(benchmark::State& state) {
  Measure(state,
          [](NodeBoard& board, std::span<PeerBuffers> peers, size_t bytes) {
            static std::vector<std::byte> data(NodeBoard::kEagerBytes);
            bool all_shared = false;
            SP_RETURN_IF_ERROR(board.Meet(
                {data.data(), bytes, data.data(), bytes}, peers, &all_shared));
            return board.Sync();
          });
}

BENCHMARK(BM_Sync)->UseManualTime()->ArgsProduct({{1, 2, 4, 8, 16}, {0}});
BENCHMARK(BM_MeetEager)
    ->UseManualTime()
    ->ArgsProduct({{2}, {4, 48, 256, 4096, 16384}})
    ->ArgsProduct({{1, 4, 8, 16}, {4}});
BENCHMARK(BM_MeetAndDepart)->UseManualTime()->ArgsProduct({{1, 2, 4, 8}, {64}});

}  // namespace
}  // namespace shardproof

BENCHMARK_MAIN();
