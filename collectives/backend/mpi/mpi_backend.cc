#include "collectives/backend/mpi/mpi_backend.h"

#include <cstring>
#include <new>
#include <utility>

#include "collectives/backend/mpi/mpi_agree.h"
#include "collectives/backend/mpi/mpi_native.h"
#include "collectives/backend/mpi/mpi_types.h"
#include "collectives/backend/mpi/mpi_wait.h"

namespace shardproof {

StatusOr<std::shared_ptr<MpiBackend>> MpiBackend::Create(
    std::shared_ptr<MpiSession> session, MPI_Comm comm) {
  std::shared_ptr<MpiBackend> backend(new MpiBackend(std::move(session), comm));
  SP_RETURN_IF_ERROR(Agree(comm, backend->FindPlaces()));
  SP_RETURN_IF_ERROR(backend->ShareControl());
  return backend;
}

MpiBackend::MpiBackend(std::shared_ptr<MpiSession> session, MPI_Comm comm)
    : session_(std::move(session)), comm_(comm) {
  MPI_Comm_rank(comm, &rank_);
  MPI_Comm_size(comm, &size_);
}

MpiBackend::~MpiBackend() {
  if (control_ != nullptr) {
    // Peers may still be on their way out of the last round of the board.
    control_->users.fetch_sub(1, std::memory_order_acq_rel);
    if (control_block_.data() != nullptr) {
      session_->Bury(std::move(control_block_), &control_->users);
    }
  }
  // Collective by the standard, but neither Open MPI nor MPICH waits in it, so
  // ranks may drop their communicators in any order.
  if (!session_->waiting().abort->raised()) MPI_Comm_free(&comm_);
}

// Which ranks are where.
Status MpiBackend::FindPlaces() {
  void* tag_limit = nullptr;
  int known = 0;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &tag_limit, &known);
  largest_tag_ = known != 0 ? *static_cast<int*>(tag_limit) : 32767;

  std::vector<int> ranks(size_);
  for (int r = 0; r < size_; ++r) ranks[r] = r;
  world_of_.resize(size_);
  MPI_Group mine = MPI_GROUP_NULL;
  MPI_Group world = MPI_GROUP_NULL;
  MPI_Comm_group(comm_, &mine);
  MPI_Comm_group(MPI_COMM_WORLD, &world);
  const Status status =
      MpiStatus(MPI_Group_translate_ranks(mine, size_, ranks.data(), world,
                                          world_of_.data()),
                "MPI_Group_translate_ranks");
  MPI_Group_free(&mine);
  MPI_Group_free(&world);
  SP_RETURN_IF_ERROR(status);

  // Nodes are numbered anew, by first appearance among these ranks.
  std::vector<int> number(session_->nodes(), -1);
  topology_.nodes = 0;
  local_of_.assign(size_, -1);
  for (int r = 0; r < size_; ++r) {
    int& node = number[session_->node_of(world_of_[r])];
    if (node < 0) node = topology_.nodes++;
    topology_.node_of.push_back(node);
    if (session_->OnMyNode(world_of_[r])) {
      local_of_[r] = static_cast<int>(local_.size());
      local_.push_back(r);
    }
  }
  return OkStatus();
}

Status MpiBackend::ShareControl() {
  const auto locals = static_cast<int>(local_.size());
  const bool one_node = topology_.nodes == 1;
  const size_t board_at = sizeof(Control) + locals * sizeof(OpRecord);
  const size_t bytes =
      board_at + (one_node ? NodeBoard::BytesNeeded(locals) : 0);

  Status status;
  uint64_t offset = 0;
  if (local_.front() == rank_) {
    StatusOr<Buffer> block = session_->heap().Allocate(bytes);
    status = block.status();
    if (block.ok()) {
      control_block_ = *std::move(block);
      std::memset(control_block_.data(), 0, bytes);
      auto* control = new (control_block_.data()) Control;
      control->users.store(static_cast<uint32_t>(locals));
      for (int i = 0; i < locals; ++i) {
        new (control_block_.data() + sizeof(Control) + i * sizeof(OpRecord))
            OpRecord;
      }
      offset = control_block_.data() - session_->heap().base();
    }
  }
  SP_RETURN_IF_ERROR(Agree(comm_, status));
  // The exchange orders the owner's stores before everybody's loads.
  std::vector<uint64_t> offsets(size_);
  SP_RETURN_IF_ERROR(
      MpiStatus(MPI_Allgather(&offset, 1, MPI_UINT64_T, offsets.data(), 1,
                              MPI_UINT64_T, comm_),
                "MPI_Allgather"));

  const int owner = local_.front();
  auto* const base = reinterpret_cast<std::byte*>(
      session_->window(world_of_[owner]).base + offsets[owner]);
  control_ = reinterpret_cast<Control*>(base);
  records_ = reinterpret_cast<OpRecord*>(base + sizeof(Control));
  if (one_node) {
    std::vector<AddressWindow> windows;
    windows.reserve(size_);
    for (const int world_rank : world_of_) {
      windows.push_back(session_->window(world_rank));
    }
    board_.emplace(base + board_at, rank_, size_, std::move(windows),
                   session_->waiting());
  }
  return OkStatus();
}

StatusOr<std::shared_ptr<Backend>> MpiBackend::Split(int color, int key) {
  // MPI_Comm_split cannot be interrupted. So nobody begins it before everybody
  // is here, and until then an abort is seen.
  SP_RETURN_IF_ERROR(session_->Health());
  MPI_Request everybody = MPI_REQUEST_NULL;
  SP_RETURN_IF_ERROR(
      MpiStatus(MPI_Ibarrier(comm_, &everybody), "MPI_Ibarrier"));
  MpiPatience patience(*session_);
  int here = 0;
  while (true) {
    SP_RETURN_IF_ERROR(
        MpiStatus(MPI_Test(&everybody, &here, MPI_STATUS_IGNORE), "MPI_Test"));
    if (here != 0) break;
    SP_RETURN_IF_ERROR(patience.Pause());
  }

  MPI_Comm part = MPI_COMM_NULL;
  SP_RETURN_IF_ERROR(MpiStatus(
      MPI_Comm_split(comm_, color < 0 ? MPI_UNDEFINED : color, key, &part),
      "MPI_Comm_split"));
  if (part == MPI_COMM_NULL) return std::shared_ptr<Backend>();
  SP_ASSIGN_OR_RETURN(std::shared_ptr<MpiBackend> backend,
                      Create(session_, part));
  return std::shared_ptr<Backend>(std::move(backend));
}

StatusOr<Buffer> MpiBackend::Allocate(size_t bytes) {
  return session_->heap().Allocate(bytes);
}

Status MpiBackend::Native(const NativeRequest& request) {
  if (session_->waiting().abort->raised()) [[unlikely]]
    return session_->Health();
  return RunMpiNative(comm_, request);
}

const OpRecord* MpiBackend::Progress(int r) const {
  return local_of_[r] < 0 ? nullptr : &records_[local_of_[r]];
}

}  // namespace shardproof
