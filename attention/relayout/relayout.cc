#include "attention/relayout/relayout.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "attention/sharded/sharded_attention.h"
#include "layers/tensor_parallel/agree.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {
namespace {

LayoutShape Dealt(const RelayoutConfig& c, SequenceLayout layout, int ranks) {
  return {.layout = layout, .tokens = c.tokens, .ranks = ranks};
}

// The rank of each token.
std::vector<int> RankOfEach(const LayoutShape& shape) {
  std::vector<int> owner(static_cast<size_t>(shape.tokens));
  const auto runs = RunsOfRanks(shape);
  for (size_t r = 0; r < runs.size(); ++r) {
    for (const int64_t position : Positions(runs[r])) {
      owner[static_cast<size_t>(position)] = static_cast<int>(r);
    }
  }
  return owner;
}

Status Check(const Communicator& comm, const RelayoutConfig& c) {
  const std::string text =
      fmt::format("{} x {} tokens of {} {} from {} to {}", c.sequences,
                  c.tokens, c.width, Name(c.dtype), Name(c.from), Name(c.to));
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  if (std::min({c.sequences, c.tokens, c.width}) < 0) {
    return InvalidArgument("{}: a size is negative", text);
  }
  for (const SequenceLayout layout : {c.from, c.to}) {
    SP_RETURN_IF_ERROR(
        CheckLayout(Dealt(c, layout, comm.size())).WithContext(text));
  }
  return OkStatus();
}

}  // namespace

class Relayout::State {
 public:
  State(const Communicator& comm, const RelayoutConfig& config,
        const CollectiveFamily& collectives);
  Status Allocate();
  Status Run(const void* x, void* y);
  const std::vector<int64_t>& positions() const { return positions_; }
  int64_t working_bytes() const {
    return static_cast<int64_t>(packed_.bytes() + arrived_.bytes());
  }

 private:
  int64_t row_bytes() const { return config_.width * SizeOf(config_.dtype); }
  int64_t sequences() const { return config_.sequences; }

  Communicator comm_;
  RelayoutConfig config_;
  CollectiveFamily collectives_;
  // Rows of a sequence in the order in which they are sent, rank by rank, and in
  // which they arrive.
  std::vector<int64_t> sent_, received_;
  std::vector<int64_t> positions_;
  // Of each rank, in rows of a sequence and in elements of all.
  std::vector<int64_t> rows_to_, rows_from_, send_counts_, recv_counts_;
  Buffer packed_, arrived_;
};

Relayout::State::State(const Communicator& comm, const RelayoutConfig& config,
                       const CollectiveFamily& collectives)
    : comm_(comm),
      config_(config),
      collectives_(collectives),
      rows_to_(static_cast<size_t>(comm.size())),
      rows_from_(rows_to_.size()) {
  const LayoutShape from = Dealt(config, config.from, comm.size());
  const LayoutShape to = Dealt(config, config.to, comm.size());
  const auto rank = static_cast<size_t>(comm.rank());
  const std::vector<int64_t> before = Positions(RunsOfRanks(from)[rank]);
  positions_ = Positions(RunsOfRanks(to)[rank]);
  // Rows by the rank at the other end, those for one rank by position.
  const auto order = [](const std::vector<int64_t>& positions,
                        const std::vector<int>& other,
                        std::vector<int64_t>& rows) {
    std::vector<int64_t> sorted(positions.size());
    std::iota(sorted.begin(), sorted.end(), 0);
    const auto key = [&](int64_t row) {
      const int64_t position = positions[static_cast<size_t>(row)];
      return std::pair(other[static_cast<size_t>(position)], position);
    };
    std::sort(sorted.begin(), sorted.end(),
              [&](int64_t a, int64_t b) { return key(a) < key(b); });
    for (const int64_t row : sorted) {
      ++rows[static_cast<size_t>(key(row).first)];
    }
    return sorted;
  };
  sent_ = order(before, RankOfEach(to), rows_to_);
  received_ = order(positions_, RankOfEach(from), rows_from_);
  for (size_t r = 0; r < rows_to_.size(); ++r) {
    send_counts_.push_back(rows_to_[r] * config.sequences * config.width);
    recv_counts_.push_back(rows_from_[r] * config.sequences * config.width);
  }
}

Status Relayout::State::Allocate() {
  const auto bytes = [&](const std::vector<int64_t>& rows) {
    return static_cast<size_t>(std::ssize(rows) * sequences() * row_bytes());
  };
  SP_ASSIGN_OR_RETURN(packed_, comm_.Allocate(bytes(sent_)));
  SP_ASSIGN_OR_RETURN(arrived_, comm_.Allocate(bytes(received_)));
  return OkStatus();
}

Status Relayout::State::Run(const void* x, void* y) {
  const OpScope op(comm_, {.label = "relayout",
                           .dtype = config_.dtype,
                           .count = std::ssize(sent_) * config_.width});
  SP_RETURN_IF_ERROR(op.status());
  // Calls f(row of a rank's tokens, place in its message) for all of them.
  const auto each = [&](const std::vector<int64_t>& order,
                        const std::vector<int64_t>& rows, const auto& f) {
    if (row_bytes() == 0) return;
    size_t first = 0;
    int64_t place = 0;
    for (const int64_t count : rows) {
      for (int64_t s = 0; s < sequences(); ++s) {
        for (int64_t i = 0; i < count; ++i) {
          f(s * std::ssize(order) + order[first + static_cast<size_t>(i)],
            place++);
        }
      }
      first += static_cast<size_t>(count);
    }
  };
  const auto bytes = static_cast<size_t>(row_bytes());
  each(sent_, rows_to_, [&](int64_t row, int64_t place) {
    std::memcpy(
        packed_.data() + static_cast<size_t>(place) * bytes,
        static_cast<const std::byte*>(x) + static_cast<size_t>(row) * bytes,
        bytes);
  });
  SP_RETURN_IF_ERROR(
      collectives_.all_to_all(comm_, {.send = packed_.data(),
                                      .recv = arrived_.data(),
                                      .send_counts = send_counts_,
                                      .recv_counts = recv_counts_,
                                      .dtype = config_.dtype}));
  each(received_, rows_from_, [&](int64_t row, int64_t place) {
    std::memcpy(static_cast<std::byte*>(y) + static_cast<size_t>(row) * bytes,
                arrived_.data() + static_cast<size_t>(place) * bytes, bytes);
  });
  return OkStatus();
}

Relayout::Relayout(std::shared_ptr<State> state) : state_(std::move(state)) {}

StatusOr<Relayout> Relayout::Create(const Communicator& comm,
                                    const RelayoutConfig& config,
                                    const CollectiveFamily& collectives) {
  SP_RETURN_IF_ERROR(Check(comm, config));
  auto state = std::make_shared<State>(comm, config, collectives);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, state->Allocate()));
  return Relayout(std::move(state));
}

Status Relayout::Run(const void* x, void* y, const Stream& stream) const {
  return stream.Run([state = state_, x, y] { return state->Run(x, y); });
}
const std::vector<int64_t>& Relayout::positions() const {
  return state_->positions();
}
int64_t Relayout::working_bytes() const { return state_->working_bytes(); }

Cost RelayoutCost(int ranks, const RelayoutConfig& config,
                  const CollectiveFamily& collectives) {
  const std::vector<int> from = RankOfEach(Dealt(config, config.from, ranks));
  const std::vector<int> to = RankOfEach(Dealt(config, config.to, ranks));
  std::vector<int64_t> counts(static_cast<size_t>(ranks) *
                              static_cast<size_t>(ranks));
  for (size_t i = 0; i < from.size(); ++i) {
    counts[static_cast<size_t>(from[i] * ranks + to[i])] +=
        config.sequences * config.width;
  }
  // Through buffers of its own.
  return collectives.all_to_all_cost(ranks, counts, config.dtype,
                                     Memory::kShared);
}

}  // namespace shardproof
