// What the process of a rank is asked, and what it answers: one answer to each
// request but the last.
//
//     RankSetup      load the library and open the GPU    version, and rank 0's id
//     UniqueId       make the communicator
//     NativeRequest  run it on the shared memory
//     (close)        end the communicator and the process
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_RANK_PROTOCOL_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_RANK_PROTOCOL_H_

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "collectives/backend.h"
#include "collectives/backend/nccl/nccl_abi.h"
#include "collectives/backend/nccl/process/message.h"
#include "collectives/backend/nccl/process/staging.h"
#include "collectives/backend/node/child_process.h"
#include "reference/status.h"

namespace shardproof {

// What the process is started with.
inline constexpr int kRankSocketFile = kFirstChildFile;
inline constexpr int kRankMemoryFile = kFirstChildFile + 1;

struct RankSetup {
  std::string library;    // Its path.
  int emulated_gpus = 0;  // How many there are; 0: those of the machine.
  int gpu = 0;
  int rank = 0, ranks = 1;
  // Of each wait for the library: see NcclCommunicatorOptions.
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
};

enum class RankCall : uint8_t { kSetup, kJoin, kRun, kClose };

struct RankMessage {
  RankCall call = RankCall::kClose;
  RankSetup setup;
  nccl::UniqueId id = {};
  // Its pointers are those of `staging`; its lists lie in `numbers`.
  NativeRequest request;
  Staging staging;
  std::string primitive;
  std::array<std::vector<int64_t>, 4> numbers;
};

MessageBytes Encode(const RankSetup& setup);
MessageBytes Encode(const nccl::UniqueId& id);
MessageBytes Encode(const NativeRequest& request, const Staging& staging);
MessageBytes EncodeClose();
// kInternal: the message is not whole.
StatusOr<std::unique_ptr<const RankMessage>> DecodeMessage(
    const MessageBytes& bytes);

struct RankAnswer {
  Status status;
  // There is no communicator any more: what follows gets the same status.
  bool lost = false;
  int version = 0;         // Of the library.
  nccl::UniqueId id = {};  // Of rank 0.
};

MessageBytes Encode(const RankAnswer& answer);
StatusOr<RankAnswer> DecodeAnswer(const MessageBytes& bytes);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_RANK_PROTOCOL_H_
