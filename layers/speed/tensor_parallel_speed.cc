#include <fmt/core.h>

#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "layers/speed/parallel_speed.h"
#include "layers/speed/side_by_side.h"
#include "layers/transformer_block/transformer_block.h"
#include "reference/random.h"

namespace shardproof {
namespace {

// A block of a whole matrix [rows, columns].
struct Piece {
  int64_t columns = 0;
  Chunk rows;
  Chunk cols;
};

// The block of the stream `name`, as if the whole matrix were filled with it:
// numbers of d.dtype, stored as `dtype`.
void FillPiece(const Distribution& d, std::string_view name, const Piece& piece,
               DType dtype, std::byte* to) {
  const StreamKey key = {.seed = 1, .tensor = TensorId(name)};
  std::vector<double> row(static_cast<size_t>(piece.cols.count));
  for (int64_t i = 0; i < piece.rows.count; ++i) {
    FillDouble(d, key,
               (piece.rows.begin + i) * piece.columns + piece.cols.begin,
               piece.cols.count, row.data());
    FromDouble(dtype, row.data(), piece.cols.count, to);
    to += piece.cols.count * SizeOf(dtype);
  }
}

// One rank: its block, and memory that its peers can address. Its inputs are
// numbers of the type `inputs`.
class Worker {
 public:
  static StatusOr<Worker> Create(const Communicator& comm,
                                 const TransformerBlockConfig& c,
                                 DType inputs) {
    SP_ASSIGN_OR_RETURN(TransformerBlock block,
                        TransformerBlock::Create(comm, c));
    Worker worker(comm, c, std::move(block));
    worker.MakeWeights(inputs);
    const Piece all = {c.hidden, {0, c.tokens()}, {0, c.hidden}};
    for (Buffer* b : {&worker.x_, &worker.y_, &worker.dy_, &worker.dx_}) {
      SP_ASSIGN_OR_RETURN(*b, comm.Allocate(static_cast<size_t>(
                                  c.tokens() * c.hidden * SizeOf(c.dtype))));
    }
    FillPiece(Uniform(inputs), "x", all, c.dtype, worker.x_.data());
    FillPiece(Uniform(inputs), "dy", all, c.dtype, worker.dy_.data());
    return worker;
  }

  Status Step() {
    const auto weights = PartsOf<const void>(weights_);
    SP_RETURN_IF_ERROR(block_.Forward(x_.data(), weights, y_.data()));
    return block_.Backward(x_.data(), weights, dy_.data(), dx_.data(),
                           PartsOf<void>(gradients_));
  }

  // y and dx, one after the other.
  std::vector<double> Results() const {
    const int64_t n = config_.tokens() * config_.hidden;
    std::vector<double> values(static_cast<size_t>(2 * n));
    ToDouble(config_.dtype, y_.data(), n, values.data());
    ToDouble(config_.dtype, dx_.data(), n, values.data() + n);
    return values;
  }

 private:
  using Bytes = std::vector<std::byte>;

  Worker(const Communicator& comm, const TransformerBlockConfig& config,
         TransformerBlock block)
      : config_(config),
        block_(std::move(block)),
        features_(
            BalancedChunk(config.intermediate, comm.size(), comm.rank())) {}

  void MakeWeights(DType inputs) {
    const int64_t h = config_.hidden, d = config_.head_dim;
    const int64_t width = config_.heads * d;
    const HeadShare& share = block_.share();
    const Chunk all = {0, h};
    const Chunk queries = {share.heads.begin * d, share.heads.count * d};
    const Chunk keys = {share.kv_heads.begin * d, share.kv_heads.count * d};
    // A product of `terms` terms is about as large as what it is made of. More
    // pieces than one lie behind one another in one tensor.
    const auto add = [&](int64_t terms,
                         std::initializer_list<std::string_view> names,
                         std::initializer_list<Piece> pieces) {
      Bytes bytes;
      const Piece* piece = pieces.begin();
      for (const std::string_view name : names) {
        const size_t begin = bytes.size();
        bytes.resize(begin +
                     static_cast<size_t>(piece->rows.count * piece->cols.count *
                                         SizeOf(config_.dtype)));
        FillPiece(Uniform(inputs, 1 / std::sqrt(static_cast<double>(terms))),
                  name, *piece++, config_.dtype, bytes.data() + begin);
      }
      gradients_.emplace_back(bytes.size());
      weights_.push_back(std::move(bytes));
    };
    add(1, {"norm1"}, {{h, {0, 1}, all}});
    add(1, {"norm2"}, {{h, {0, 1}, all}});
    add(h, {"q", "k", "v"},
        {{h, queries, all}, {h, keys, all}, {h, keys, all}});
    add(width, {"out"}, {{width, all, queries}});
    add(h, {"gate"}, {{h, features_, all}});
    add(h, {"up"}, {{h, features_, all}});
    add(config_.intermediate, {"down"},
        {{config_.intermediate, all, features_}});
  }

  template <class Void, class Tensors>
  static TransformerBlockParts<Void> PartsOf(Tensors& t) {
    return {
        .norm1_weight = t[0].data(),
        .attention = {.w_qkv = t[2].data(), .w_out = t[3].data()},
        .norm2_weight = t[1].data(),
        .mlp = {
            .w_gate = t[4].data(), .w_up = t[5].data(), .w_down = t[6].data()}};
  }

  TransformerBlockConfig config_;
  TransformerBlock block_;
  Chunk features_;
  std::vector<Bytes> weights_, gradients_;
  Buffer x_, y_, dy_, dx_;
};

// A world and its workers.
class Run {
 public:
  static StatusOr<std::unique_ptr<Run>> Create(
      int ranks, const TransformerBlockConfig& config, DType inputs) {
    auto run = std::make_unique<Run>();
    SP_ASSIGN_OR_RETURN(run->world_, ThreadWorld::Create({.ranks = ranks}));
    run->workers_.resize(static_cast<size_t>(ranks));
    SP_RETURN_IF_ERROR(
        run->world_->Run([&](const Communicator& comm) -> Status {
          SP_ASSIGN_OR_RETURN(run->workers_[static_cast<size_t>(comm.rank())],
                              Worker::Create(comm, config, inputs));
          return OkStatus();
        }));
    return run;
  }
  Status Step() {
    return world_->Run([this](const Communicator& comm) {
      return workers_[static_cast<size_t>(comm.rank())]->Step();
    });
  }
  std::vector<double> Results() const { return workers_[0]->Results(); }

 private:
  std::unique_ptr<ThreadWorld> world_;
  std::vector<std::optional<Worker>> workers_;
};

// |a - b| / |b|.
double Distance(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / size);
}

}  // namespace

Status TensorParallelSpeed(DType dtype, const SpeedOptions& options) {
  TransformerBlockConfig config = {.length = 512,
                                   .hidden = 4096,
                                   .heads = 32,
                                   .kv_heads = 8,
                                   .head_dim = 128,
                                   .intermediate = 14336,
                                   .norm = NormKind::kRmsNorm,
                                   .activation = Activation::kSwiGlu,
                                   .rope_theta = 500000,
                                   .dtype = dtype};
  if (options.smoke) {
    config.length = 16;
    config.hidden = config.intermediate = 64;
    config.head_dim = 4;
  }
  // What both are compared with, in a wider type. Conformance is the case's
  // business; here, that the ranks err no more than twice as much as one does
  // shows that they have computed the same.
  std::vector<double> wide;
  {
    TransformerBlockConfig wider = config;
    wider.dtype = dtype == DType::kF32 ? DType::kF64 : DType::kF32;
    SP_ASSIGN_OR_RETURN(const auto run, Run::Create(1, wider, dtype));
    SP_RETURN_IF_ERROR(run->Step());
    wide = run->Results();
  }
  SP_ASSIGN_OR_RETURN(const auto one, Run::Create(1, config, dtype));
  SP_ASSIGN_OR_RETURN(const auto several,
                      Run::Create(options.ranks, config, dtype));
  SP_RETURN_IF_ERROR(one->Step());
  SP_RETURN_IF_ERROR(several->Step());
  const double error = Distance(one->Results(), wide);
  const double errors = Distance(several->Results(), wide);
  if (!(errors <= 2 * error)) {
    return Internal("{} ranks err by {:.3g} of the results, one by {:.3g}",
                    options.ranks, errors, error);
  }
  SP_ASSIGN_OR_RETURN(
      const std::vector<Times> t,
      SideBySide({[&] { return one->Step(); }, [&] { return several->Step(); }},
                 options.rounds));
  fmt::print(
      "transformer_block {} [{} x {}]: 1 rank {:.1f} ms, {} ranks {:.1f} ms "
      "(quartiles {:.1f} to {:.1f}): {:.2f}x\n",
      Name(dtype), config.tokens(), config.hidden, t[0].median * 1e3,
      options.ranks, t[1].median * 1e3, t[1].first_quartile * 1e3,
      t[1].third_quartile * 1e3, t[0].median / t[1].median);
  return OkStatus();
}

}  // namespace shardproof
