#include "collectives/backend/mpi/mpi_session.h"

#include <sched.h>

#include <algorithm>
#include <new>
#include <string>
#include <utility>

#include "collectives/backend/mpi/mpi_agree.h"
#include "collectives/backend/mpi/mpi_types.h"
#include "collectives/backend/node/available_memory.h"

namespace shardproof {
namespace {

Status StartMpi() {
  int started = 0;
  MPI_Initialized(&started);
  if (started != 0) {
    return InvalidArgument(
        "MPI was started in this process before; it starts only once");
  }
  int provided = MPI_THREAD_SINGLE;
  SP_RETURN_IF_ERROR(MpiStatus(
      MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided),
      "MPI_Init_thread"));
  // Errors come back as values instead of ending the job. Communicators made
  // from this one inherit it.
  return MpiStatus(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN),
                   "MPI_Comm_set_errhandler");
}

Status CheckThreads() {
  int provided = MPI_THREAD_SINGLE;
  MPI_Query_thread(&provided);
  if (provided == MPI_THREAD_MULTIPLE) return OkStatus();
  return Unavailable(
      "this MPI was built without MPI_THREAD_MULTIPLE, which the progress "
      "threads need; use a build with threads (Open MPI: "
      "--enable-mpi-thread-multiple)");
}

}  // namespace

StatusOr<std::shared_ptr<MpiSession>> MpiSession::Create(
    const MpiWorldOptions& options) {
  SP_RETURN_IF_ERROR(StartMpi());
  // From here on the destructor ends MPI, also when something below fails.
  std::shared_ptr<MpiSession> session(new MpiSession);
  MPI_Comm_rank(MPI_COMM_WORLD, &session->rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &session->size_);
  SP_RETURN_IF_ERROR(CheckThreads());
  SP_RETURN_IF_ERROR(MpiStatus(
      MPI_Comm_dup(MPI_COMM_WORLD, &session->abort_comm_), "MPI_Comm_dup"));
  SP_RETURN_IF_ERROR(session->FindNodes(options));
  SP_RETURN_IF_ERROR(session->OpenHeaps());
  SP_RETURN_IF_ERROR(session->MakeAbortFlag());
  return session;
}

MpiSession::~MpiSession() {
  // After an abort some rank may never come, and MPI_Finalize waits for all.
  if (abort_ != nullptr && abort_->raised()) return;
  if (node_ != MPI_COMM_NULL) MPI_Comm_free(&node_);
  if (abort_comm_ != MPI_COMM_NULL) MPI_Comm_free(&abort_comm_);
  MPI_Finalize();
}

Status MpiSession::FindNodes(const MpiWorldOptions& options) {
  MPI_Comm machine = MPI_COMM_NULL;
  SP_RETURN_IF_ERROR(
      MpiStatus(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_,
                                    MPI_INFO_NULL, &machine),
                "MPI_Comm_split_type"));
  int place = 0;
  int ranks = 1;
  MPI_Comm_rank(machine, &place);
  MPI_Comm_size(machine, &ranks);
  const int group =
      options.ranks_per_node > 0 ? place / options.ranks_per_node : 0;
  Status status = MpiStatus(MPI_Comm_split(machine, group, place, &node_),
                            "MPI_Comm_split");

  // What this rank may take of its machine, in memory and in cores.
  cpu_set_t mine;
  cpu_set_t all;
  CPU_ZERO(&mine);
  sched_getaffinity(0, sizeof(mine), &mine);
  MPI_Allreduce(&mine, &all, sizeof(all), MPI_BYTE, MPI_BOR, machine);
  // Bound to cores of their own, or free among enough of them.
  waiting_.spin = CPU_COUNT(&all) >= ranks;
  // At one moment, by one rank: the first heap would change what others see.
  uint64_t available = AvailableMemory();
  MPI_Bcast(&available, 1, MPI_UINT64_T, 0, machine);
  budget_ = options.heap_budget > 0
                ? options.heap_budget
                : available / 10 * 9 / static_cast<uint64_t>(ranks);
  MPI_Comm_free(&machine);
  SP_RETURN_IF_ERROR(status);

  // A node is known by the world rank of its first rank.
  int first = rank_;
  MPI_Bcast(&first, 1, MPI_INT, 0, node_);
  node_of_.resize(size_);
  SP_RETURN_IF_ERROR(
      MpiStatus(MPI_Allgather(&first, 1, MPI_INT, node_of_.data(), 1, MPI_INT,
                              MPI_COMM_WORLD),
                "MPI_Allgather"));
  const std::vector<int> firsts = node_of_;
  nodes_ = 0;
  for (int r = 0; r < size_; ++r) {
    node_of_[r] = firsts[r] == r ? nodes_++ : node_of_[firsts[r]];
    if (firsts[r] == first) node_ranks_.push_back(r);
  }
  return OkStatus();
}

Status MpiSession::OpenHeaps() {
  using Backing = SharedHeapOptions::Backing;
  const Status status = OpenHeapsBackedBy(Backing::kMemfd);
  if (status.code() != StatusCode::kUnavailable) return status;
  return OpenHeapsBackedBy(Backing::kShmFile).WithContext(status.message());
}

Status MpiSession::OpenHeapsBackedBy(SharedHeapOptions::Backing backing) {
  peers_.clear();
  windows_.assign(size_, AddressWindow());
  auto heap = SharedHeap::Create({.budget = budget_, .backing = backing});
  SP_RETURN_IF_ERROR(Agree(MPI_COMM_WORLD, heap.status()));
  heap_ = *std::move(heap);

  std::vector<HeapName> names(node_ranks_.size());
  MPI_Allgather(&heap_->name(), sizeof(HeapName), MPI_BYTE, names.data(),
                sizeof(HeapName), MPI_BYTE, node_);
  Status status;
  for (size_t i = 0; i < names.size() && status.ok(); ++i) {
    const int r = node_ranks_[i];
    if (r == rank_) {
      windows_[r] = {reinterpret_cast<uintptr_t>(heap_->base()),
                     heap_->reservation()};
      continue;
    }
    StatusOr<PeerHeap> peer = PeerHeap::Open(names[i]);
    status = peer.status();
    if (!peer.ok()) break;
    windows_[r] = {reinterpret_cast<uintptr_t>(peer->base()), peer->bytes()};
    peers_.push_back(*std::move(peer));
  }
  // Also tells that everybody has opened everything.
  status = Agree(MPI_COMM_WORLD, status);
  heap_->Unlink();
  return status;
}

Status MpiSession::MakeAbortFlag() {
  const int owner = node_ranks_.front();
  Status status;
  uint64_t offset = 0;
  if (owner == rank_) {
    StatusOr<Buffer> block = heap_->Allocate(sizeof(AbortFlag));
    status = block.status();
    if (block.ok()) {
      abort_block_ = *std::move(block);
      new (abort_block_.data()) AbortFlag;
      offset = abort_block_.data() - heap_->base();
    }
  }
  SP_RETURN_IF_ERROR(Agree(MPI_COMM_WORLD, status));
  MPI_Bcast(&offset, 1, MPI_UINT64_T, 0, node_);
  abort_ = reinterpret_cast<AbortFlag*>(windows_[owner].base + offset);
  waiting_.abort = abort_;
  return OkStatus();
}

void MpiSession::Abort(std::string_view reason) {
  abort_->Raise(reason);
  if (nodes_ == 1) return;
  const std::lock_guard lock(mutex_);
  if (std::exchange(told_others_, true)) return;
  const size_t length = std::min(reason.size(), last_words_.size() - 1);
  std::copy_n(reason.begin(), length, last_words_.begin());
  for (int r = 0; r < size_; ++r) {
    if (OnMyNode(r)) continue;
    // Nobody waits for these: MPI is not ended after an abort.
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Isend(last_words_.data(), static_cast<int>(last_words_.size()),
              MPI_CHAR, r, 0, abort_comm_, &request);
    MPI_Request_free(&request);
  }
}

Status MpiSession::Health() {
  if (nodes_ == 1 || abort_->raised()) [[likely]]
    return abort_->status();
  int found = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Improbe(MPI_ANY_SOURCE, 0, abort_comm_, &found, &message,
              MPI_STATUS_IGNORE);
  if (found != 0) {
    std::array<char, sizeof(last_words_)> words{};
    MPI_Mrecv(words.data(), static_cast<int>(words.size()), MPI_CHAR, &message,
              MPI_STATUS_IGNORE);
    words.back() = '\0';
    abort_->Raise(words.data());
  }
  return abort_->status();
}

void MpiSession::Bury(Buffer block, const std::atomic<uint32_t>* users) {
  const std::lock_guard lock(mutex_);
  graves_.push_back({std::move(block), users});
  std::erase_if(graves_, [](const Grave& grave) {
    return grave.users->load(std::memory_order_acquire) == 0;
  });
}

}  // namespace shardproof
