#include "collectives/backend/nccl/testing/host_link.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "collectives/backend/nccl/testing/host_rank.h"

namespace shardproof::nccl {
namespace {

constexpr int kLookMilliseconds = 5;

struct Header {
  Channel channel;
  size_t bytes;
};

// Names that are no files: of a rank, by the unique id of its communicator.
sockaddr_un AddressOf(const UniqueId& id, int rank) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  char* const name = address.sun_path + 1;
  // Where ncclGetUniqueId puts a random number.
  std::memcpy(name, id.internal.data(), 16);
  std::memcpy(name + 16, &rank, sizeof(rank));
  return address;
}
const sockaddr* Plain(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

int NewSocket() { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); }

bool ReadAll(int fd, void* to, size_t bytes) {
  auto* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = read(fd, at, bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

bool WriteAll(int fd, const void* from, size_t bytes) {
  const auto* at = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t sent = send(fd, at, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return false;
    at += sent;
    bytes -= static_cast<size_t>(sent);
  }
  return true;
}

}  // namespace

bool InSeveralProcesses() { return std::getenv("NCCL_HOSTID") != nullptr; }

std::unique_ptr<HostLink> HostLink::Create(World& world, const UniqueId& id,
                                           int rank) {
  std::unique_ptr<HostLink> link(new HostLink(world, id, rank));
  link->peers_.assign(static_cast<size_t>(world.size), -1);
  link->listener_ = NewSocket();
  const sockaddr_un address = AddressOf(id, rank);
  if (bind(link->listener_, Plain(address), sizeof(address)) != 0 ||
      listen(link->listener_, world.size) != 0) {
    return nullptr;
  }
  link->thread_ = std::thread([link = link.get()] { link->Run(); });
  return link;
}

HostLink::~HostLink() {
  Stop();
  if (thread_.joinable()) thread_.join();
  close(listener_);
  for (const int fd : peers_) {
    if (fd >= 0) close(fd);
  }
}

void HostLink::Stop() {
  stop_ = true;
  const std::lock_guard lock(mutex_);
  for (const int fd : peers_) {
    if (fd >= 0) shutdown(fd, SHUT_RDWR);
  }
}

void HostLink::Send(int peer, Channel channel, const Bytes& data) {
  const int fd = peers_[static_cast<size_t>(peer)];
  const Header header{.channel = channel, .bytes = data.size()};
  if (WriteAll(fd, &header, sizeof(header))) {
    WriteAll(fd, data.data(), data.size());
  }
}

void HostLink::Keep(int peer, int fd) {
  const std::lock_guard lock(mutex_);
  peers_[static_cast<size_t>(peer)] = fd;
}

// Those of lower ranks are called, and those of higher ones call.
bool HostLink::ConnectTo(int peer) {
  const sockaddr_un address = AddressOf(id_, peer);
  const int fd = NewSocket();
  if (connect(fd, Plain(address), sizeof(address)) == 0 &&
      WriteAll(fd, &rank_, sizeof(rank_))) {
    Keep(peer, fd);
    return true;
  }
  close(fd);
  return false;
}

bool HostLink::Accept() {
  pollfd look{.fd = listener_, .events = POLLIN, .revents = 0};
  if (poll(&look, 1, kLookMilliseconds) <= 0) return false;
  const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  int peer = -1;
  if (fd < 0 || !ReadAll(fd, &peer, sizeof(peer))) return false;
  Keep(peer, fd);
  return true;
}

bool HostLink::TakeFrom(int peer) {
  const int fd = peers_[static_cast<size_t>(peer)];
  Header header = {};
  if (!ReadAll(fd, &header, sizeof(header))) return false;
  Bytes data(header.bytes);
  if (!ReadAll(fd, data.data(), data.size())) return false;
  const std::lock_guard lock(world_.mutex);
  world_.mail[{header.channel, peer, rank_}].push_back(std::move(data));
  world_.changed.notify_all();
  return true;
}

void HostLink::Run() {
  const int size = world_.size;
  for (int peer = 0; peer < rank_ && !stop_;) {
    if (ConnectTo(peer)) {
      ++peer;
    } else {
      usleep(1000);
    }
  }
  for (int left = size - 1 - rank_; left > 0 && !stop_;) {
    if (Accept()) --left;
  }
  if (stop_) return;
  {
    const std::lock_guard lock(world_.mutex);
    world_.joined += size - 1;
  }
  std::vector<pollfd> looks;
  for (const int fd : peers_) {
    looks.push_back({.fd = fd, .events = POLLIN, .revents = 0});
  }
  while (!stop_) {
    poll(looks.data(), looks.size(), kLookMilliseconds);
    for (int peer = 0; peer < size; ++peer) {
      pollfd& look = looks[static_cast<size_t>(peer)];
      // One that has gone is looked at no more.
      if (look.revents != 0 && look.fd >= 0 && !TakeFrom(peer)) look.fd = -1;
      look.revents = 0;
    }
  }
}

}  // namespace shardproof::nccl
