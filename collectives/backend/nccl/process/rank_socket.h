// Messages between the process of a rank and the one that started it: whole, in
// order, and with an end when the other process ends.
//
//     SP_ASSIGN_OR_RETURN(auto ends, RankSocket::Pair());
//     ends.first.Send(message);
//     ends.second.Receive();   // In another process: RankSocket::Adopt(fd).
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_RANK_SOCKET_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_RANK_SOCKET_H_

#include <chrono>
#include <optional>
#include <utility>

#include "collectives/backend/nccl/process/message.h"
#include "collectives/backend/node/mapping.h"
#include "reference/status.h"

namespace shardproof {

class RankSocket {
 public:
  RankSocket() = default;
  // Closed in every program that this process starts, but where it is handed on.
  static StatusOr<std::pair<RankSocket, RankSocket>> Pair();
  // Takes a descriptor that was handed to this process. kInvalidArgument: it is
  // no end of a pair.
  static StatusOr<RankSocket> Adopt(int fd);

  int fd() const { return file_.get(); }

  // False once the other end is gone. At most 100 KiB.
  bool Send(const MessageBytes& message) const;
  // Whether a message or the end can be had, after `timeout` at the latest.
  bool AwaitInput(std::chrono::milliseconds timeout) const;
  // The next message, or none once the other end is gone.
  std::optional<MessageBytes> Receive() const;
  // Returns when the other end of `fd` is gone, and takes no message.
  static void AwaitEndOf(int fd);

 private:
  explicit RankSocket(int fd) : file_(fd) {}
  FileDescriptor file_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_RANK_SOCKET_H_
