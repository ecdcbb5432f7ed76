#include "collectives/backend/nccl/process/rank_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace shardproof {
namespace {

// As long as a call is interrupted.
template <class F>
auto Retry(F f) {
  auto result = f();
  while (result < 0 && errno == EINTR) result = f();
  return result;
}

}  // namespace

StatusOr<std::pair<RankSocket, RankSocket>> RankSocket::Pair() {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return Unavailable("no pair of sockets for a rank: {}",
                       std::strerror(errno));
  }
  return std::pair(RankSocket(ends[0]), RankSocket(ends[1]));
}

StatusOr<RankSocket> RankSocket::Adopt(int fd) {
  int type = 0;
  socklen_t length = sizeof(type);
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 ||
      type != SOCK_SEQPACKET) {
    return InvalidArgument(
        "descriptor {} is no socket of the program that starts ranks: this "
        "command is not for people",
        fd);
  }
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return RankSocket(fd);
}

bool RankSocket::Send(const MessageBytes& message) const {
  const ssize_t sent = Retry(
      [&] { return send(fd(), message.data(), message.size(), MSG_NOSIGNAL); });
  return sent == static_cast<ssize_t>(message.size());
}

bool RankSocket::AwaitInput(std::chrono::milliseconds timeout) const {
  pollfd look{.fd = fd(), .events = POLLIN, .revents = 0};
  return poll(&look, 1, static_cast<int>(timeout.count())) > 0;
}

std::optional<MessageBytes> RankSocket::Receive() const {
  // With MSG_TRUNC the length of the next message, however little is taken.
  const ssize_t length =
      Retry([&] { return recv(fd(), nullptr, 0, MSG_PEEK | MSG_TRUNC); });
  if (length <= 0) return std::nullopt;
  MessageBytes message(static_cast<size_t>(length));
  const ssize_t got =
      Retry([&] { return recv(fd(), message.data(), message.size(), 0); });
  if (got != length) return std::nullopt;
  return message;
}

void RankSocket::AwaitEndOf(int fd) {
  pollfd look{.fd = fd, .events = POLLRDHUP, .revents = 0};
  while ((look.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) == 0) {
    poll(&look, 1, -1);
  }
}

}  // namespace shardproof
