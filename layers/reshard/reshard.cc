#include "layers/reshard/reshard.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "layers/tensor_parallel/agree.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {
namespace {

std::string Describe(const ReshardConfig& config) {
  const ReshardedParameter& p = config.parameter;
  std::string text = fmt::format("reshard {} [{}, {}, {}] {}", Name(p.cut),
                                 p.layers, p.rows, p.columns, Name(p.dtype));
  if (p.cut == ParameterCut::kQkv) {
    text += fmt::format(", {} heads and {} KV heads of {}", p.heads, p.kv_heads,
                        p.head_dim);
  }
  if (p.placement != StagePlacement::kEveryLayer) {
    text += p.placement == StagePlacement::kFirstStage ? ", on the first stage"
                                                       : ", on the last stage";
  }
  return fmt::format("{} from {} to {}", text, Describe(p, config.from),
                     Describe(p, config.to));
}

// Of one shard that this rank has.
Status CheckShard(const ReshardConfig& config, ShardParts parts,
                  const SavedShard& saved) {
  const ReshardedParameter& p = config.parameter;
  const std::string says = Describe(p, saved.layout);
  const std::string wanted = Describe(p, config.from);
  if (says != wanted) {
    return InvalidArgument("{} was saved at {}, not at {}",
                           ShardName(saved.layout, saved.shard), says, wanted);
  }
  if (saved.shard < 0 || saved.shard >= config.from.shards()) {
    return InvalidArgument("there is no shard {}: at {} there are {}",
                           saved.shard, wanted, config.from.shards());
  }
  const int64_t bytes =
      parts(p, config.from, saved.shard).Elements(p) * SizeOf(p.dtype);
  if (saved.bytes != bytes) {
    return InvalidArgument("{} has {} bytes, not {}",
                           ShardName(config.from, saved.shard), saved.bytes,
                           bytes);
  }
  return OkStatus();
}

// Which rank has each saved shard; the same on every rank, errors too.
StatusOr<std::vector<int>> FindOwners(const Communicator& comm,
                                      const ShardLayout& from,
                                      const std::vector<SavedShard>& saved) {
  std::string mine(saved.size() * sizeof(int), '\0');
  for (size_t i = 0; i < saved.size(); ++i) {
    std::memcpy(mine.data() + i * sizeof(int), &saved[i].shard, sizeof(int));
  }
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                      comm.ExchangeControl(mine));
  // Of as many as there are and one more, at the most: without shards enough
  // one of these is missing, however many the layout has.
  size_t found = 0;
  for (const std::string& one : all) found += one.size() / sizeof(int);
  std::vector<int> owners(
      std::min(static_cast<size_t>(from.shards()), found + 1), -1);
  for (size_t r = 0; r < all.size(); ++r) {
    for (size_t i = 0; i < all[r].size(); i += sizeof(int)) {
      int shard = 0;
      std::memcpy(&shard, all[r].data() + i, sizeof(int));
      if (static_cast<size_t>(shard) >= owners.size()) continue;
      int& owner = owners[static_cast<size_t>(shard)];
      if (owner >= 0) {
        return InvalidArgument("{} is there twice: on rank {} and on rank {}",
                               ShardName(from, shard), owner, r);
      }
      owner = static_cast<int>(r);
    }
  }
  for (size_t n = 0; n < owners.size(); ++n) {
    if (owners[n] < 0) {
      return InvalidArgument("no rank has {}",
                             ShardName(from, static_cast<int>(n)));
    }
  }
  return owners;
}

// Calls f(offset within the move, in the saved shard, in the new one) for every
// run of it.
template <class F>
void ForEachRun(const ReshardMove& move, F f) {
  int64_t at = 0;
  for (int64_t l = 0; l < move.layers; ++l) {
    for (int64_t i = 0; i < move.rows; ++i, at += move.length) {
      const auto place = [&](const StridedRuns& runs) {
        return runs.begin + l * runs.layer_stride + i * runs.row_stride;
      };
      f(at, place(move.from), place(move.to));
    }
  }
}

}  // namespace

struct Reshard::State {
  Communicator comm;
  DType dtype = DType::kF32;
  CollectiveFamily collectives;
  ReshardPlan plan;
  int64_t loaded_elements = 0;
  size_t saved_shards = 0;  // Of this rank.
  std::vector<int> slots;   // Of each saved shard, among this rank's; or -1.
  // What this rank sends, gets, has already and leaves zero, ordered by the
  // peer and then as planned: both sides have the same order.
  std::vector<ReshardMove> sent, received, kept, zeros;
  std::vector<int64_t> send_counts, recv_counts;
  Buffer send, recv;

  void Sort(int ranks, std::span<const int> owners);
  Status Allocate();
  Status Execute(std::span<const void* const> saved, void* loaded) const;

  size_t Bytes(int64_t elements) const {
    return static_cast<size_t>(elements * SizeOf(dtype));
  }
  const void* SavedOf(std::span<const void* const> saved,
                      const ReshardMove& move) const {
    const int slot = slots[static_cast<size_t>(move.from_shard)];
    return saved[static_cast<size_t>(slot)];
  }
};

void Reshard::State::Sort(int ranks, std::span<const int> owners) {
  const int me = comm.rank();
  for (int peer = 0; peer < ranks; ++peer) {
    for (const ReshardMove& move : plan.moves) {
      if (move.from_shard < 0) {
        if (peer == me && move.to_shard == me) zeros.push_back(move);
        continue;
      }
      const int owner = owners[static_cast<size_t>(move.from_shard)];
      if (owner == me && move.to_shard == peer) {
        (peer == me ? kept : sent).push_back(move);
      } else if (owner == peer && move.to_shard == me) {
        received.push_back(move);
      }
    }
    send_counts.push_back(plan.counts[static_cast<size_t>(me * ranks + peer)]);
    recv_counts.push_back(plan.counts[static_cast<size_t>(peer * ranks + me)]);
  }
}

Status Reshard::State::Allocate() {
  const auto total = [](const std::vector<int64_t>& counts) {
    return Blocks::Listed(counts).Total();
  };
  SP_ASSIGN_OR_RETURN(send, comm.Allocate(Bytes(total(send_counts))));
  SP_ASSIGN_OR_RETURN(recv, comm.Allocate(Bytes(total(recv_counts))));
  return OkStatus();
}

Status Reshard::State::Execute(std::span<const void* const> saved,
                               void* loaded) const {
  const auto copy = [this](void* to, int64_t at, const void* from,
                           int64_t begin, int64_t count) {
    std::memcpy(At(to, dtype, at), At(from, dtype, begin), Bytes(count));
  };
  int64_t packed = 0;
  for (const ReshardMove& move : sent) {
    const void* const shard = SavedOf(saved, move);
    ForEachRun(move, [&](int64_t at, int64_t from, int64_t /*to*/) {
      copy(send.data(), packed + at, shard, from, move.length);
    });
    packed += move.elements();
  }
  SP_RETURN_IF_ERROR(collectives.all_to_all(comm, {.send = send.data(),
                                                   .recv = recv.data(),
                                                   .send_counts = send_counts,
                                                   .recv_counts = recv_counts,
                                                   .dtype = dtype}));
  int64_t unpacked = 0;
  for (const ReshardMove& move : received) {
    ForEachRun(move, [&](int64_t at, int64_t /*from*/, int64_t to) {
      copy(loaded, to, recv.data(), unpacked + at, move.length);
    });
    unpacked += move.elements();
  }
  for (const ReshardMove& move : kept) {
    const void* const shard = SavedOf(saved, move);
    ForEachRun(move, [&](int64_t /*at*/, int64_t from, int64_t to) {
      copy(loaded, to, shard, from, move.length);
    });
  }
  for (const ReshardMove& move : zeros) {
    ForEachRun(move, [&](int64_t /*at*/, int64_t /*from*/, int64_t to) {
      std::memset(At(loaded, dtype, to), 0, Bytes(move.length));
    });
  }
  return OkStatus();
}

Reshard::Reshard(std::shared_ptr<const State> state)
    : state_(std::move(state)) {}

StatusOr<Reshard> Reshard::Create(const Communicator& comm,
                                  const ReshardConfig& config,
                                  const std::vector<SavedShard>& saved,
                                  const CollectiveFamily& collectives,
                                  const ReshardRules& rules) {
  const std::string text = Describe(config);
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  SP_RETURN_IF_ERROR(
      CheckLayout(config.parameter, config.from)
          .WithContext(fmt::format("{}: the saved layout", text)));
  Status mine;
  for (const SavedShard& shard : saved) {
    if (mine.ok()) mine = CheckShard(config, rules.from, shard);
  }
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, mine).WithContext(text));
  StatusOr<std::vector<int>> owners = FindOwners(comm, config.from, saved);
  SP_RETURN_IF_ERROR(owners.status().WithContext(text));

  auto state = std::make_shared<State>();
  state->comm = comm;
  state->dtype = config.parameter.dtype;
  state->collectives = collectives;
  StatusOr<ReshardPlan> plan = PlanReshard(config, *owners, comm.size(), rules);
  SP_RETURN_IF_ERROR(plan.status().WithContext(text));
  state->plan = *std::move(plan);
  if (comm.rank() < config.to.shards()) {
    state->loaded_elements = rules.to(config.parameter, config.to, comm.rank())
                                 .Elements(config.parameter);
  }
  state->saved_shards = saved.size();
  state->slots.assign(owners->size(), -1);
  for (size_t i = 0; i < saved.size(); ++i) {
    state->slots[static_cast<size_t>(saved[i].shard)] = static_cast<int>(i);
  }
  state->Sort(comm.size(), *owners);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, state->Allocate()).WithContext(text));
  return Reshard(std::move(state));
}

Status Reshard::Run(std::span<const void* const> saved, void* loaded,
                    const Stream& stream) const {
  if (saved.size() != state_->saved_shards) {
    const Status wrong = InvalidArgument(
        "{} saved shards on rank {}, which has {}", saved.size(),
        state_->comm.rank(), state_->saved_shards);
    // The others wait for what this rank does not send.
    state_->comm.Abort(wrong.ToString());
    return wrong;
  }
  if (stream.is_inline()) return state_->Execute(saved, loaded);
  return stream.Run(
      [state = state_,
       shards = std::vector<const void*>(saved.begin(), saved.end()),
       loaded] { return state->Execute(shards, loaded); });
}

int64_t Reshard::loaded_elements() const { return state_->loaded_elements; }

int64_t Reshard::working_bytes() const {
  return static_cast<int64_t>(state_->send.bytes() + state_->recv.bytes());
}

const ReshardPlan& Reshard::plan() const { return state_->plan; }

}  // namespace shardproof
