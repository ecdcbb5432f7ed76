#include "layers/kernels/cuda/device/gpu_call.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace shardproof::cuda {
namespace {

constexpr int kEmulatedBlocks = 2;
constexpr int kEmulatedThreads = 2 * kLanes;

constexpr size_t kAlignment = 64;
constexpr size_t kFirstChunk = size_t{64} << 10;

constexpr size_t RoundedUp(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Rows from one place to another, with other distances between them.
void CopyRows(std::byte* to, int64_t to_stride, const std::byte* from,
              int64_t from_stride, const GpuCall::Rows& rows) {
  for (int64_t i = 0; i < rows.count; ++i) {
    std::memcpy(to + i * to_stride, from + i * from_stride,
                static_cast<size_t>(rows.bytes));
  }
}

}  // namespace

StatusOr<std::byte*> Scratch::Take(Gpu& gpu, int64_t bytes) {
  const size_t size = RoundedUp(static_cast<size_t>(bytes));
  if (chunks_.empty() || chunks_.back().bytes() - used_ < size) {
    const size_t least =
        chunks_.empty() ? kFirstChunk : 2 * chunks_.back().bytes();
    SP_ASSIGN_OR_RETURN(Buffer chunk, gpu.Allocate(std::max(size, least)));
    chunks_.push_back(std::move(chunk));
    used_ = 0;
  }
  std::byte* const at = chunks_.back().data() + used_;
  used_ += size;
  return at;
}

void Scratch::Reset() {
  if (chunks_.size() > 1) chunks_.erase(chunks_.begin(), chunks_.end() - 1);
  used_ = 0;
}

GpuLanes::GpuLanes(GpuLanesOptions options) : options_(std::move(options)) {}

LaunchShape GpuLanes::Limited(LaunchShape shape) const {
  if (!options_.gpus->emulated()) return shape;
  const int blocks = std::min(kEmulatedBlocks, gpu().info().multiprocessors);
  return {std::min(shape.blocks, blocks),
          std::min(shape.threads, kEmulatedThreads)};
}

StatusOr<std::unique_ptr<GpuLane>> GpuLanes::Take() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    SP_RETURN_IF_ERROR(health_);
    if (!idle_.empty()) {
      std::unique_ptr<GpuLane> lane = std::move(idle_.back());
      idle_.pop_back();
      return lane;
    }
  }
  auto lane = std::make_unique<GpuLane>();
  SP_ASSIGN_OR_RETURN(lane->stream, gpu().NewStream());
  return lane;
}

void GpuLanes::GiveBack(std::unique_ptr<GpuLane> lane) {
  lane->scratch.Reset();
  const std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(std::move(lane));
}

void GpuLanes::Abandon(std::unique_ptr<GpuLane> lane, const Status& why) {
  const std::lock_guard<std::mutex> lock(mutex_);
  abandoned_.push_back(std::move(lane));
  if (health_.ok()) health_ = why;
}

GpuCall::GpuCall(GpuLanes& lanes, const WorldHealth* health)
    : lanes_(lanes), health_(health) {
  StatusOr<std::unique_ptr<GpuLane>> lane = lanes.Take();
  if (lane.ok()) {
    lane_ = *std::move(lane);
  } else {
    status_ = lane.status();
  }
}

GpuCall::~GpuCall() {
  if (lane_ != nullptr) static_cast<void>(Finish());
}

bool GpuCall::Addresses(const void* data) const {
  return lanes_.options_.gpus->Addresses(data);
}

void GpuCall::CopyIn(const Piece& piece) {
  CopyRows(piece.inside, piece.rows.bytes, piece.outside, piece.rows.stride,
           piece.rows);
}

GpuCall::Staged GpuCall::Stage(void* data, const Rows& rows, bool in,
                               bool out) {
  if (!status_.ok()) return {};
  const int64_t bytes = rows.count * rows.bytes;
  if (data == nullptr || bytes == 0 || Addresses(data)) {
    return {data, rows.stride};
  }
  auto* const outside = static_cast<std::byte*>(data);
  for (Piece& piece : pieces_) {
    if (piece.outside != outside || piece.rows.count != rows.count ||
        piece.rows.bytes != rows.bytes) {
      continue;
    }
    if (in && !piece.in) CopyIn(piece);
    piece.in = piece.in || in;
    piece.out = piece.out || out;
    return {piece.inside, rows.bytes};
  }
  auto* const inside = static_cast<std::byte*>(MakeBytes(bytes, false));
  if (inside == nullptr) return {};
  lanes_.staged_bytes_ += bytes;
  pieces_.push_back({outside, inside, rows, in, out});
  if (in) CopyIn(pieces_.back());
  return {inside, rows.bytes};
}

void* GpuCall::MakeBytes(int64_t bytes, bool zeros) {
  if (!status_.ok()) return nullptr;
  StatusOr<std::byte*> made = lane_->scratch.Take(lanes_.gpu(), bytes);
  if (!made.ok()) {
    status_ = made.status().WithContext("scratch for the kernels of a layer");
    return nullptr;
  }
  if (zeros) std::memset(*made, 0, static_cast<size_t>(bytes));
  return *made;
}

void GpuCall::Launch(const GridLaunch& launch) {
  if (!status_.ok()) return;
  {
    // The first launch of a kernel loads it, which may wait for whatever runs:
    // not for one part of a collective whose others are not launched yet.
    const std::lock_guard<std::mutex> lock(*lanes_.options_.gpus->launching());
    status_ = lane_->stream->Launch(launch);
  }
  if (!status_.ok()) {
    status_ = status_.WithContext(launch.name);
    return;
  }
  launched_ = launch.name;
  ++lanes_.launches_;
}

// Not under the lock of launches: libraries allocate, which takes it.
void GpuCall::Queue(const std::string& name,
                    const std::function<Status(GpuStream&)>& work) {
  if (!status_.ok()) return;
  launched_ = name;  // Something may be under way even where it fails.
  status_ = work(*lane_->stream).WithContext(name);
  if (status_.ok()) ++lanes_.launches_;
}

// What was launched before an error may be under way.
Waited GpuCall::Wait() {
  if (launched_.empty()) return {};
  const GpuLanesOptions& options = lanes_.options_;
  Waited waited =
      AwaitLaunches(*lane_->stream, {options.timeout, options.grace},
                    health_ == nullptr ? nullptr : *health_);
  for (Status* const status : {&waited.status, &waited.unended}) {
    *status = status->WithContext(launched_).WithContext(
        NameOf(*options.gpus, options.gpu));
  }
  return waited;
}

Status GpuCall::Finish() {
  if (lane_ == nullptr) return status_;
  const auto [waited, unended] = Wait();
  if (!unended.ok()) {
    lanes_.Abandon(std::move(lane_), unended);
    return status_.ok() ? waited : status_;
  }
  if (status_.ok()) status_ = waited;
  for (const Piece& piece : pieces_) {
    if (!status_.ok()) break;
    if (!piece.out) continue;
    CopyRows(piece.outside, piece.rows.stride, piece.inside, piece.rows.bytes,
             piece.rows);
  }
  lanes_.GiveBack(std::move(lane_));
  return status_;
}

}  // namespace shardproof::cuda
