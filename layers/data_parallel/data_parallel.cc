#include "layers/data_parallel/data_parallel.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "collectives/chunks.h"
#include "layers/kernels/divide.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {
namespace {

constexpr int64_t kAlignment = 64;  // Bytes.

std::vector<int> OrderOf(const DataParallelConfig& config) {
  return config.order.empty()
             ? ReverseOrder(static_cast<int>(config.counts.size()))
             : config.order;
}

GradientBuckets Pack(const DataParallelConfig& config,
                     std::span<const int> order) {
  const int64_t size = SizeOf(config.dtype);
  return GradientBuckets::Pack(config.counts, order, config.bucket_bytes / size,
                               kAlignment / size);
}

Status CheckOrder(std::span<const int> order, size_t parameters) {
  std::vector<int> sorted(order.begin(), order.end());
  std::sort(sorted.begin(), sorted.end());
  std::vector<int> all = ReverseOrder(static_cast<int>(parameters));
  std::reverse(all.begin(), all.end());
  if (sorted == all) return OkStatus();
  return InvalidArgument("an order of {} parameters names {} once each: {}",
                         parameters, parameters, fmt::join(order, " "));
}

Status Check(const Communicator& comm, const DataParallelConfig& config) {
  const std::string text = fmt::format(
      "data_parallel of {} parameters in {}, {} bytes to a bucket{}{}",
      config.counts.size(), Name(config.dtype), config.bucket_bytes,
      config.overlap ? ", overlapped" : "", config.average ? ", averaged" : "");
  SP_RETURN_IF_ERROR(
      AgreeOnLayer(comm, fmt::format("{}; counts {}; order {}", text,
                                     fmt::join(config.counts, " "),
                                     fmt::join(config.order, " "))));
  SP_RETURN_IF_ERROR(CheckLayerType(config.dtype).WithContext(text));
  if (config.bucket_bytes <= 0) {
    return InvalidArgument("{}: a bucket must hold something", text);
  }
  for (size_t i = 0; i < config.counts.size(); ++i) {
    if (config.counts[i] < 0) {
      return InvalidArgument("{}: parameter {} has {} elements", text, i,
                             config.counts[i]);
    }
  }
  return CheckOrder(OrderOf(config), config.counts.size()).WithContext(text);
}

// What a rank knows of one parameter in the step.
struct Progress {
  bool written = false;
  bool closed = false;  // In the last micro-batch.
};

}  // namespace

struct DataParallel::State {
  Communicator comm;
  DataParallelConfig config;
  CollectiveFamily collectives;
  GradientBuckets layout;
  Buffer buffer, spare;  // `spare` is of use when rebuilding only.
  Buffer tokens;         // One int64: this rank's, then all ranks'.
  std::vector<Progress> progress;
  std::vector<int> missing;  // Of each bucket, parameters that are not closed.
  std::vector<Event> reduced;
  size_t next = 0;  // The first bucket that is not under way.
  int64_t counted = 0;
  bool last = false;
  bool finished = true;
  Stream stream;  // Ends first: its work uses all of the above.

  void* At(int64_t element) const {
    return shardproof::At(static_cast<void*>(buffer.data()), config.dtype,
                          element);
  }
  int64_t Bytes(int parameter) const {
    return config.counts[static_cast<size_t>(parameter)] * SizeOf(config.dtype);
  }
  void* Gradient(int parameter) const {
    return At(layout.slot(parameter).begin);
  }
  Status CheckParameter(int parameter) const {
    if (parameter >= 0 && static_cast<size_t>(parameter) < progress.size()) {
      return OkStatus();
    }
    return InvalidArgument("parameter {} of {}", parameter, progress.size());
  }

  void Lay(GradientBuckets next_layout) {
    layout = std::move(next_layout);
    reduced.assign(layout.buckets().size(), Event());
    ExpectAll();
  }
  void ExpectAll() {
    missing.clear();
    for (const GradientBucket& b : layout.buckets()) {
      missing.push_back(b.parameters);
    }
    next = 0;
  }

  Status CountTokens();
  Status Launch();
  Status Close(int parameter);
};

// First of all, so that every bucket can be divided when it arrives.
Status DataParallel::State::CountTokens() {
  if (!config.average) return OkStatus();
  *tokens.as<int64_t>() = counted;
  return stream.Run([this] {
    return collectives.all_reduce(comm, {.send = tokens.data(),
                                         .recv = tokens.data(),
                                         .count = 1,
                                         .dtype = DType::kI64});
  });
}

// Every full bucket that has no bucket before it that is not.
Status DataParallel::State::Launch() {
  for (; next < missing.size() && missing[next] == 0; ++next) {
    const GradientBucket& bucket = layout.buckets()[next];
    void* const data = At(bucket.begin);
    SP_RETURN_IF_ERROR(stream.Run([this, data,
                                   count = bucket.count]() -> Status {
      const DType dtype = config.dtype;
      SP_RETURN_IF_ERROR(collectives.all_reduce(
          comm, {.send = data, .recv = data, .count = count, .dtype = dtype}));
      if (!config.average) return OkStatus();
      const int64_t all = std::max<int64_t>(1, *tokens.as<int64_t>());
      return Divide(Stream::Inline(), dtype, count, data,
                    static_cast<double>(all));
    }));
    SP_ASSIGN_OR_RETURN(reduced[next], stream.Record());
  }
  return OkStatus();
}

Status DataParallel::State::Close(int parameter) {
  progress[static_cast<size_t>(parameter)].closed = true;
  --missing[static_cast<size_t>(layout.slot(parameter).bucket)];
  return Launch();
}

DataParallel::DataParallel(std::unique_ptr<State> state)
    : state_(std::move(state)) {}
DataParallel::DataParallel(DataParallel&&) noexcept = default;
DataParallel& DataParallel::operator=(DataParallel&&) noexcept = default;
DataParallel::~DataParallel() = default;

StatusOr<DataParallel> DataParallel::Create(
    const Communicator& replicas, const DataParallelConfig& config,
    const CollectiveFamily& collectives) {
  SP_RETURN_IF_ERROR(Check(replicas, config));
  auto state = std::make_unique<State>();
  state->comm = replicas;
  state->config = config;
  state->collectives = collectives;
  state->progress.resize(config.counts.size());
  state->Lay(Pack(config, OrderOf(config)));
  SP_ASSIGN_OR_RETURN(state->buffer,
                      replicas.Allocate(static_cast<size_t>(
                          state->layout.extent() * SizeOf(config.dtype))));
  SP_ASSIGN_OR_RETURN(state->tokens, replicas.Allocate(sizeof(int64_t)));
  if (config.overlap) {
    SP_ASSIGN_OR_RETURN(state->comm, replicas.Duplicate());
    SP_ASSIGN_OR_RETURN(state->stream, Stream::Create("gradients"));
  }
  return DataParallel(std::move(state));
}

Status DataParallel::BeginStep() {
  State& s = *state_;
  if (s.last && !s.finished) {
    return InvalidArgument("a step begins before the last one is finished");
  }
  std::fill(s.progress.begin(), s.progress.end(), Progress());
  std::fill(s.reduced.begin(), s.reduced.end(), Event());
  s.ExpectAll();
  s.counted = 0;
  s.last = s.finished = false;
  return OkStatus();
}

Status DataParallel::BeginMicroBatch(int64_t tokens, bool last) {
  State& s = *state_;
  if (s.last) {
    return InvalidArgument("a micro-batch after the last one of a step");
  }
  s.counted += tokens;
  s.last = last;
  return last ? s.CountTokens() : OkStatus();
}

StatusOr<DataParallel::Target> DataParallel::Open(int parameter) {
  State& s = *state_;
  SP_RETURN_IF_ERROR(s.CheckParameter(parameter));
  Progress& p = s.progress[static_cast<size_t>(parameter)];
  if (p.closed) {
    return InvalidArgument(
        "the gradient of parameter {} is closed and may be on its way",
        parameter);
  }
  return Target{s.Gradient(parameter), std::exchange(p.written, true)};
}

Status DataParallel::Close(int parameter, const Stream& stream) {
  State& s = *state_;
  SP_RETURN_IF_ERROR(s.CheckParameter(parameter));
  if (!s.last) return OkStatus();
  const Progress& p = s.progress[static_cast<size_t>(parameter)];
  if (!p.written || p.closed) {
    return InvalidArgument("the gradient of parameter {} is closed {}",
                           parameter, p.closed ? "twice" : "but never opened");
  }
  SP_ASSIGN_OR_RETURN(const Event written, stream.Record());
  SP_RETURN_IF_ERROR(s.stream.Wait(written));
  return s.Close(parameter);
}

Status DataParallel::Finish(const Stream& stream) {
  State& s = *state_;
  if (!s.last || s.finished) {
    return InvalidArgument("a step is finished {}",
                           s.last ? "twice" : "before its last micro-batch");
  }
  s.finished = true;
  SP_ASSIGN_OR_RETURN(const Event written, stream.Record());
  SP_RETURN_IF_ERROR(s.stream.Wait(written));
  for (size_t i = 0; i < s.progress.size(); ++i) {
    if (s.progress[i].closed) continue;
    const int parameter = static_cast<int>(i);
    // What lies there is of a step before.
    if (!s.progress[i].written && s.Bytes(parameter) > 0) {
      std::memset(s.Gradient(parameter), 0,
                  static_cast<size_t>(s.Bytes(parameter)));
    }
    s.progress[i].written = true;
    SP_RETURN_IF_ERROR(s.Close(parameter));
  }
  return s.stream.Synchronize();
}

Status DataParallel::WaitFor(int bucket) const {
  const State& s = *state_;
  if (bucket < 0 || static_cast<size_t>(bucket) >= s.next) {
    return InvalidArgument("bucket {} is not under way", bucket);
  }
  return s.reduced[static_cast<size_t>(bucket)].Synchronize();
}

void* DataParallel::gradient(int parameter) const {
  return state_->progress[static_cast<size_t>(parameter)].written
             ? state_->Gradient(parameter)
             : nullptr;
}

const std::vector<GradientBucket>& DataParallel::buckets() const {
  return state_->layout.buckets();
}

Status DataParallel::Rebuild(std::span<const int> order) {
  State& s = *state_;
  // Equal on all ranks, and the stream may be using the communicator.
  if (s.last && !s.finished) {
    return InvalidArgument(
        "buckets are rebuilt while they may be on their way");
  }
  SP_RETURN_IF_ERROR(AgreeOnLayer(
      s.comm, fmt::format("buckets in the order {}", fmt::join(order, " "))));
  SP_RETURN_IF_ERROR(CheckOrder(order, s.progress.size()));
  GradientBuckets layout = Pack(s.config, order);
  const auto bytes =
      static_cast<size_t>(layout.extent() * SizeOf(s.config.dtype));
  if (s.spare.bytes() < bytes) {
    SP_ASSIGN_OR_RETURN(s.spare, s.comm.Allocate(bytes));
  }
  for (size_t i = 0; i < s.progress.size(); ++i) {
    const int parameter = static_cast<int>(i);
    if (!s.progress[i].written || s.Bytes(parameter) == 0) continue;
    std::memcpy(At(static_cast<void*>(s.spare.data()), s.config.dtype,
                   layout.slot(parameter).begin),
                s.Gradient(parameter), static_cast<size_t>(s.Bytes(parameter)));
  }
  std::swap(s.buffer, s.spare);
  s.Lay(std::move(layout));
  return OkStatus();
}

Cost DataParallelStepCost(int replicas, const DataParallelConfig& config,
                          const CollectiveFamily& collectives) {
  Cost cost;
  if (config.average) {
    cost += collectives.all_reduce_cost(replicas, 1, DType::kI64,
                                        collectives.memory);
  }
  const GradientBuckets layout = Pack(config, OrderOf(config));
  for (const GradientBucket& bucket : layout.buckets()) {
    cost += collectives.all_reduce_cost(replicas, bucket.count, config.dtype,
                                        collectives.memory);
  }
  return cost;
}

}  // namespace shardproof
