#include "attention/speed/ring_speed.h"

#include <fmt/core.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attention/kernels/tile_product.h"
#include "attention/ring/ring.h"
#include "collectives/backend/thread/thread_world.h"
#include "layers/speed/side_by_side.h"
#include "reference/flash_attention.h"
#include "reference/random.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

constexpr SequenceLayout kLayouts[] = {SequenceLayout::kContiguous,
                                       SequenceLayout::kStriped,
                                       SequenceLayout::kZigzag};
constexpr double kMiB = 1024.0 * 1024.0;

// The options with what a question takes where nothing was asked for.
RingSpeedOptions With(RingSpeedOptions o, int ranks, int64_t tokens,
                      int64_t heads) {
  if (o.ranks == 0) o.ranks = ranks;
  if (o.tokens == 0) o.tokens = o.smoke ? 64 * o.ranks : tokens;
  if (o.heads == 0) o.heads = heads;
  return o;
}

ShardedAttentionConfig ConfigOf(const RingSpeedOptions& o,
                                SequenceLayout layout) {
  return {.tokens = o.tokens,
          .heads = o.heads,
          .kv_heads = 1,
          .head_dim = o.head_dim,
          .layout = layout,
          .visibility = {.causal = true},
          .dtype = o.dtype};
}

// Rows of the tokens of `runs`, as they are in the whole tensor.
Tensor RowsOf(DType dtype, int64_t width, const std::vector<TokenRun>& runs,
              const char* name) {
  Tensor t(dtype, {CountTokens(runs), width});
  int64_t row = 0;
  for (const int64_t position : Positions(runs)) {
    Fill(Uniform(dtype, 1.5), {.seed = 7, .tensor = TensorId(name)},
         position * width, width,
         t.bytes().data() + row++ * width * SizeOf(dtype));
  }
  return t;
}

// A rank of a ring and what it has.
class Worker {
 public:
  static StatusOr<std::unique_ptr<Worker>> Create(
      const Communicator& comm, const ShardedAttentionConfig& config,
      RingMode mode) {
    SP_ASSIGN_OR_RETURN(RingAttention ring,
                        RingAttention::Create(comm, config, mode));
    return std::make_unique<Worker>(comm, config, std::move(ring));
  }
  Worker(const Communicator& comm, const ShardedAttentionConfig& config,
         RingAttention ring)
      : config_(config),
        ring_(std::move(ring)),
        runs_(RunsOfRanks(
            config.LayoutOver(comm.size()))[static_cast<size_t>(comm.rank())]),
        q_(RowsOf(config.dtype, q_width(), runs_, "q")),
        k_(RowsOf(config.dtype, k_width(), runs_, "k")),
        v_(RowsOf(config.dtype, k_width(), runs_, "v")),
        d_o_(RowsOf(config.dtype, q_width(), runs_, "do")),
        o_(config.dtype, q_.shape()),
        dq_(config.dtype, q_.shape()),
        dk_(config.dtype, k_.shape()),
        dv_(config.dtype, k_.shape()),
        lse_(Accumulator(config.dtype), {config.heads, q_.shape()[0]}) {}

  Status Forward() {
    return ring_.Forward({q_.raw(), k_.raw(), v_.raw(), o_.raw(), lse_.raw()});
  }
  Status Backward() {
    return ring_.Backward({q_.raw(), k_.raw(), v_.raw(), o_.raw(), lse_.raw(),
                           d_o_.raw(), dq_.raw(), dk_.raw(), dv_.raw()});
  }
  Status Both() {
    SP_RETURN_IF_ERROR(Forward());
    return Backward();
  }

  // Some queries' O and LSE against the reference; dQ too where that takes
  // seconds.
  Status Check(int ranks) const;

  const RingAttention& ring() const { return ring_; }
  // Of q, k, v, dO and all results.
  int64_t tensor_bytes() const {
    int64_t bytes = 0;
    for (const Tensor* t :
         {&q_, &k_, &v_, &d_o_, &o_, &dq_, &dk_, &dv_, &lse_}) {
      bytes += t->num_bytes();
    }
    return bytes;
  }

 private:
  int64_t q_width() const { return config_.heads * config_.head_dim; }
  int64_t k_width() const { return config_.kv_heads * config_.head_dim; }

  ShardedAttentionConfig config_;
  RingAttention ring_;
  std::vector<TokenRun> runs_;
  Tensor q_, k_, v_, d_o_;
  Tensor o_, dq_, dk_, dv_, lse_;
};

Status Expect(const Bounded& want, const Tensor& got, int64_t at,
              const char* what) {
  double value = 0;
  ToDouble(got.dtype(), got.bytes().data() + at * SizeOf(got.dtype()), 1,
           &value);
  if (std::abs(value - want.value) <= want.worst) return OkStatus();
  return Internal("{} is {} and must be {} within {}", what, value, want.value,
                  want.worst);
}

Status Worker::Check(int ranks) const {
  const std::vector<int64_t> positions = Positions(runs_);
  if (positions.empty()) return OkStatus();
  // The first, and that at the beginning of the last run.
  std::vector<int64_t> rows = {0};
  if (runs_.size() > 1) rows.push_back(runs_[0].count);
  constexpr int64_t kLong = int64_t{1} << 15;
  const bool gradients = config_.tokens < kLong;
  const TokenRun all = {.count = config_.tokens};
  const Tensor k = RowsOf(config_.dtype, k_width(), {all}, "k");
  const Tensor v = RowsOf(config_.dtype, k_width(), {all}, "v");
  for (const int64_t row : rows) {
    const int64_t position = positions[static_cast<size_t>(row)];
    const TokenRun one = {.offset = position, .count = 1};
    const Tensor q = RowsOf(config_.dtype, q_width(), {one}, "q");
    const Tensor d_o = RowsOf(config_.dtype, q_width(), {one}, "do");
    FlashInputs in = {.heads = config_.heads,
                      .kv_heads = config_.kv_heads,
                      .heads_per_kv = config_.heads_per_kv(),
                      .head_dim = config_.head_dim,
                      .scale = config_.Scale(),
                      .q = q.view(),
                      .k = k.view(),
                      .v = v.view()};
    if (gradients) in.d_o = d_o.view();
    const IndexRange seen = KeysSeen(config_.visibility, position, all);
    std::vector<int64_t>& list = in.seen.emplace_back();
    for (int64_t j = seen.first; j < seen.last; ++j) list.push_back(j);
    FlashArithmetic a = FlashArithmetic::For(config_.dtype);
    a.products = ProductType(config_.dtype);
    if (a.products != DType::kBF16) {
      a.exp_error = 4 * UnitRoundoff(Accumulator(config_.dtype));
    }
    a.o = config_.dtype;
    a.tiles = (config_.tokens + 255) / 256;
    a.merges = RingMerges(ranks, config_);
    const FlashResult want = FlashReference(in, a);
    const bool narrow = config_.dtype != Accumulator(config_.dtype);
    for (int64_t e = 0; e < q_width(); ++e) {
      const int64_t at = row * q_width() + e;
      SP_RETURN_IF_ERROR(Expect(want.o.at(0, e), o_, at, "O"));
      if (!gradients) continue;
      const Bounded dq = want.dq.at(0, e);
      SP_RETURN_IF_ERROR(
          Expect(narrow ? Rounded(dq, config_.dtype) : dq, dq_, at, "dQ"));
    }
    for (int64_t h = 0; h < config_.heads; ++h) {
      SP_RETURN_IF_ERROR(
          Expect(want.lse.at(h, 0), lse_, h * q_.shape()[0] + row, "LSE"));
    }
  }
  return OkStatus();
}

// The ranks of one ring.
class Ring {
 public:
  static StatusOr<std::unique_ptr<Ring>> Create(
      ThreadWorld& world, const ShardedAttentionConfig& config, RingMode mode) {
    auto ring = std::make_unique<Ring>(world);
    SP_RETURN_IF_ERROR(world.Run([&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(ring->workers_[static_cast<size_t>(comm.rank())],
                          Worker::Create(comm, config, mode));
      return OkStatus();
    }));
    return ring;
  }
  explicit Ring(ThreadWorld& world)
      : world_(world), workers_(static_cast<size_t>(world.ranks())) {}

  Status Run(Status (Worker::*pass)()) {
    return world_.Run(
        [&](const Communicator& comm) { return (worker(comm).*pass)(); });
  }
  Status Check() {
    return world_.Run([&](const Communicator& comm) {
      const bool end = comm.rank() == 0 || comm.rank() == comm.size() - 1;
      return end ? worker(comm).Check(comm.size()) : OkStatus();
    });
  }
  const Worker& rank(int r) const { return *workers_[static_cast<size_t>(r)]; }
  int ranks() const { return world_.ranks(); }

 private:
  Worker& worker(const Communicator& comm) {
    return *workers_[static_cast<size_t>(comm.rank())];
  }
  ThreadWorld& world_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

// Of the last pass: computing of a rank, in the mean, and of the slowest rank in
// each step, which the others wait for.
struct Computed {
  double mean = 0;
  double slowest = 0;
};
Computed ComputedBy(const Ring& ring) {
  Computed c;
  const auto ranks = static_cast<size_t>(ring.ranks());
  for (size_t t = 0; t < ranks; ++t) {
    double most = 0;
    for (int r = 0; r < ring.ranks(); ++r) {
      const double s = ring.rank(r).ring().steps()[t].compute;
      c.mean += s / static_cast<double>(ranks);
      most = std::max(most, s);
    }
    c.slowest += most;
  }
  return c;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void PrintShape(const char* question, const RingSpeedOptions& o) {
  fmt::print("{}: {} ranks, {} tokens, causal, {} heads of {}, 1 KV head, {}\n",
             question, o.ranks, o.tokens, o.heads, o.head_dim, Name(o.dtype));
}

StatusOr<std::unique_ptr<ThreadWorld>> WorldOf(const RingSpeedOptions& o) {
  return ThreadWorld::Create({.ranks = o.ranks});
}

// A field of /proc/self/status, in bytes; 0 where there is none.
int64_t StatusField(const std::string& name) {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != name + ":") continue;
    int64_t kib = 0;
    status >> kib;
    return kib * 1024;
  }
  return 0;
}

}  // namespace

Status BalanceSpeed(const RingSpeedOptions& asked) {
  const RingSpeedOptions o = With(asked, 4, 8192, 4);
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<ThreadWorld> world, WorldOf(o));
  PrintShape("balance", o);
  fmt::print(
      "  counted: pairs of all ranks over P times the most of a rank in each "
      "step.\n  measured: the same of the processor time of each step, both "
      "passes, median of {}.\n  A contiguous causal ring is capped at P / (2P "
      "- "
      "1) = {:.3f}.\n",
      o.rounds, o.ranks / (2.0 * o.ranks - 1));
  fmt::print("  {:<12} {:>8} {:>9} {:>9} {:>12}\n", "layout", "counted",
             "forward", "backward", "contiguous x");
  double contiguous = 0;
  for (const SequenceLayout layout : kLayouts) {
    const ShardedAttentionConfig config = ConfigOf(o, layout);
    SP_ASSIGN_OR_RETURN(
        const double counted,
        RingEfficiency(config.LayoutOver(o.ranks), config.visibility));
    SP_ASSIGN_OR_RETURN(const std::unique_ptr<Ring> ring,
                        Ring::Create(*world, config, RingMode::kOverlapped));
    std::vector<double> forward, backward;
    for (int round = 0; round <= o.rounds; ++round) {
      SP_RETURN_IF_ERROR(ring->Run(&Worker::Forward));
      const Computed f = ComputedBy(*ring);
      SP_RETURN_IF_ERROR(ring->Run(&Worker::Backward));
      const Computed b = ComputedBy(*ring);
      if (round == 0) continue;  // Caches are warm after it.
      forward.push_back(f.mean / f.slowest);
      backward.push_back(b.mean / b.slowest);
    }
    SP_RETURN_IF_ERROR(ring->Check());
    if (layout == SequenceLayout::kContiguous) contiguous = counted;
    fmt::print("  {:<12} {:>8.3f} {:>9.3f} {:>9.3f} {:>11.2f}x\n", Name(layout),
               counted, Median(forward), Median(backward),
               counted / contiguous);
  }
  return OkStatus();
}

Status OverlapSpeed(const RingSpeedOptions& asked) {
  const RingSpeedOptions o = With(asked, 2, 8192, 4);
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<ThreadWorld> world, WorldOf(o));
  PrintShape("overlap", o);
  fmt::print(
      "  Milliseconds of both passes, medians of {}: compute is a rank's "
      "processor time in the mean,\n  imbalance what the slowest of each step "
      "takes longer, exposed what is left of the wall's.\n  More ranks than "
      "cores make exposed meaningless.\n",
      o.rounds);
  fmt::print("  {:<12} {:<15} {:>8} {:>8} {:>10} {:>8}\n", "layout", "mode",
             "wall", "compute", "imbalance", "exposed");
  constexpr std::pair<RingMode, const char*> kModes[] = {
      {RingMode::kInTurn, "in turn"},
      {RingMode::kOverlapped, "overlapped"},
      {RingMode::kMessageThread, "message thread"}};
  for (const SequenceLayout layout : kLayouts) {
    const ShardedAttentionConfig config = ConfigOf(o, layout);
    std::vector<std::unique_ptr<Ring>> rings;
    std::vector<std::vector<Computed>> computed(std::size(kModes));
    std::vector<std::function<Status()>> ways;
    for (size_t m = 0; m < std::size(kModes); ++m) {
      SP_ASSIGN_OR_RETURN(std::unique_ptr<Ring> ring,
                          Ring::Create(*world, config, kModes[m].first));
      Ring* const r = ring.get();
      ways.emplace_back([r, m, &computed]() -> Status {
        SP_RETURN_IF_ERROR(r->Run(&Worker::Forward));
        const Computed f = ComputedBy(*r);
        SP_RETURN_IF_ERROR(r->Run(&Worker::Backward));
        const Computed b = ComputedBy(*r);
        computed[m].push_back({f.mean + b.mean, f.slowest + b.slowest});
        return OkStatus();
      });
      rings.push_back(std::move(ring));
    }
    SP_ASSIGN_OR_RETURN(const std::vector<Times> times,
                        SideBySide(ways, o.rounds));
    for (size_t m = 0; m < std::size(kModes); ++m) {
      SP_RETURN_IF_ERROR(rings[m]->Check());
      std::vector<double> mean, slowest;
      for (const Computed& c : computed[m]) {
        mean.push_back(c.mean);
        slowest.push_back(c.slowest);
      }
      const double wall = times[m].median, compute = Median(mean),
                   slow = Median(slowest);
      fmt::print("  {:<12} {:<15} {:>8.1f} {:>8.1f} {:>10.1f} {:>8.1f}\n",
                 Name(layout), kModes[m].second, 1e3 * wall, 1e3 * compute,
                 1e3 * (slow - compute), 1e3 * (wall - slow));
    }
  }
  return OkStatus();
}

Status LengthSpeed(const RingSpeedOptions& asked) {
  RingSpeedOptions o = With(asked, 8, 131072, 2);
  PrintShape("length", o);
  fmt::print(
      "  Zigzag, both passes once. Memory in MiB of all ranks together: the "
      "tensors they hold, what the\n  formula of rotating_attention.h says "
      "that the ring works in, what it asked for with the kernel's own,\n  and "
      "what the process grew by at most.\n");
  fmt::print("  {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7}\n", "tokens",
             "seconds", "tensors", "formula", "asked for", "sum", "grown",
             "/half");
  double before = 0;
  for (const int64_t tokens : {o.tokens / 2, o.tokens}) {
    o.tokens = tokens;
    const ShardedAttentionConfig config = ConfigOf(o, SequenceLayout::kZigzag);
    const int64_t base = StatusField("VmRSS");
    // Starts the high-water mark anew; where it cannot, it stays too high.
    std::ofstream("/proc/self/clear_refs") << "5";
    SP_ASSIGN_OR_RETURN(const std::unique_ptr<ThreadWorld> world, WorldOf(o));
    SP_ASSIGN_OR_RETURN(const std::unique_ptr<Ring> ring,
                        Ring::Create(*world, config, RingMode::kOverlapped));
    const auto begin = std::chrono::steady_clock::now();
    SP_RETURN_IF_ERROR(ring->Run(&Worker::Both));
    const std::chrono::duration<double> took =
        std::chrono::steady_clock::now() - begin;
    const auto grown = static_cast<double>(StatusField("VmHWM") - base) / kMiB;
    double tensors = 0, formula = 0, working = 0;
    const RotationConfig rotation =
        RotationOver(o.ranks, config, RingMode::kOverlapped);
    for (int r = 0; r < o.ranks; ++r) {
      tensors += static_cast<double>(ring->rank(r).tensor_bytes()) / kMiB;
      formula += static_cast<double>(RotationBytes(rotation, r)) / kMiB;
      working +=
          static_cast<double>(ring->rank(r).ring().working_bytes()) / kMiB;
    }
    SP_RETURN_IF_ERROR(ring->Check());
    fmt::print(
        "  {:>8} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>7}\n",
        tokens, took.count(), tensors, formula, working, tensors + working,
        grown, before > 0 ? fmt::format("{:.2f}x", grown / before) : "");
    std::fflush(stdout);
    before = grown;
  }
  return OkStatus();
}

}  // namespace shardproof
