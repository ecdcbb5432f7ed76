// The way between ranks of one communicator that are in several processes: where
// NCCL_HOSTID is set, each rank has a world of its own, and a socket to every
// other rank. What comes is put into the mail of that world.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_LINK_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_LINK_H_

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "collectives/backend/nccl/nccl_abi.h"
#include "collectives/backend/nccl/testing/host_arithmetic.h"

namespace shardproof::nccl {

struct World;
enum class Channel;

// Whether ranks of one communicator may be in several processes.
bool InSeveralProcesses();

class HostLink {
 public:
  // Begins to meet the others, and adds them to those that have joined `world`
  // once all are there. Null: the rank's name is taken.
  static std::unique_ptr<HostLink> Create(World& world, const UniqueId& id,
                                          int rank);
  ~HostLink();
  HostLink(const HostLink&) = delete;
  HostLink& operator=(const HostLink&) = delete;

  // To another rank, which takes what comes at any time. Nothing where it is gone.
  void Send(int peer, Channel channel, const Bytes& data);
  // Ends what is under way, here and in the others' Send.
  void Stop();

 private:
  HostLink(World& world, const UniqueId& id, int rank)
      : world_(world), id_(id), rank_(rank) {}
  // On the thread: meets all others, then takes what they send.
  void Run();
  bool ConnectTo(int peer);
  bool Accept();
  bool TakeFrom(int peer);
  void Keep(int peer, int fd);

  World& world_;
  const UniqueId id_;
  const int rank_;
  int listener_ = -1;
  std::mutex mutex_;
  std::vector<int>
      peers_;  // Sockets; guarded by mutex_, until all have joined.
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace shardproof::nccl

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_TESTING_HOST_LINK_H_
