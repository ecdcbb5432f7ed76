// What a backend must provide. Everything else - every collective, every layer - is built over this.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/device.h"
#include "collectives/op.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"
#include "reference/status.h"

namespace shardproof {

class NodeBoard;  // collectives/backend/node/board.h

// Where the ranks of a communicator live. node_of[r] numbers nodes from 0 in order of first appearance.
struct Topology {
  std::vector<int> node_of;
  int nodes = 1;
};

// A collective asked of the library under test (MPI, NCCL) by its name here ("all_reduce"). Counts are in elements of
// `dtype`; the per-rank spans are for the v forms and empty otherwise.
struct NativeRequest {
  std::string_view primitive;
  const void* send = nullptr;
  void* recv = nullptr;
  int64_t count = 0;
  DType dtype = DType::kF32;
  ReduceOp op = ReduceOp::kSum;
  int root = 0;
  double scale = 1.0;  // This rank's factor, where op is kPremulSum.
  int destination = -1, source = -1;  // send_recv; -1: nobody.
  bool in_place = false;
  std::span<const int64_t> send_counts = {}, send_offsets = {};
  std::span<const int64_t> recv_counts = {}, recv_offsets = {};
};

// A message under way. A small value; what it points to belongs to the backend.
struct Transfer {
  void* state = nullptr;
  bool receive = false;
  int peer = -1;
  std::byte* data = nullptr;
  size_t bytes = 0;
};

// One rank's end of one communicator. Used by one thread at a time, except Abort and health, which any thread may call.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;  // "thread", "mpi"
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const Topology& topology() const = 0;

  // Collective over this communicator: ranks of equal color form a new one, ordered by (key, old rank). A negative color
  // takes part and gets null.
  virtual StatusOr<std::shared_ptr<Backend>> Split(int color, int key) = 0;

  // Memory that every rank of this node can address, in huge pages when they can be had. A local call: addresses
  // are exchanged when a collective starts.
  virtual StatusOr<Buffer> Allocate(size_t bytes) = 0;

  // Whether ranks can address all memory of one another, and not only what
  // Allocate gave.
  virtual bool SharesAddressSpace() const = 0;

  // The flags and slots shared by the ranks, or null where they do not share a node.
  virtual NodeBoard* board() = 0;

  // Non-blocking messages, matched by (source, tag) in order. The buffers belong to the backend until Wait returns.
  virtual StatusOr<Transfer> StartSend(const void* data, size_t bytes,
                                       int destination, int tag) = 0;
  virtual StatusOr<Transfer> StartReceive(void* data, size_t bytes, int source,
                                          int tag) = 0;
  virtual StatusOr<bool> Test(Transfer& transfer) = 0;
  virtual Status Wait(
      Transfer&
          transfer) = 0;  // kAborted once Abort was called anywhere; kDataLoss on a length mismatch.

  virtual Status Native(
      const NativeRequest&
          request) = 0;  // kUnsupported, with the reason, by default.

  // Makes every wait of every rank of the whole world end with kAborted and `reason`. The world is unusable afterwards.
  virtual void Abort(std::string_view reason) = 0;
  virtual Status health() const = 0;

  // Progress of rank `r` of this communicator, or null when it is on another node.
  virtual const OpRecord* Progress(int r) const = 0;
  virtual OpRecord* MyProgress() = 0;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_H_
