// Memory, streams and events, on the host today and on a GPU through the same types.
#ifndef SHARDPROOF_COLLECTIVES_DEVICE_H_
#define SHARDPROOF_COLLECTIVES_DEVICE_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "reference/status.h"

namespace shardproof {

enum class DeviceKind { kHost, kCuda };

// Owned device memory, at least 64-byte aligned (2 MiB from 2 MiB up). Moves; frees when destroyed.
class Buffer {
 public:
  Buffer() = default;
  // `owner` keeps the memory alive and releases it in its deleter.
  Buffer(std::shared_ptr<void> owner, std::byte* data, size_t bytes)
      : owner_(std::move(owner)), data_(data), bytes_(bytes) {}
  Buffer(Buffer&& other) noexcept
      : owner_(std::move(other.owner_)),
        data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    owner_ = std::move(other.owner_);
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::shared_ptr<void> owner_;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

// Ordinary host memory that peers on other processes cannot address, for tests of the staged paths.
StatusOr<Buffer> AllocateOrdinary(size_t bytes);

class StreamImpl;
class EventImpl;

// A point in a stream. Copyable handle; waiting for a default-constructed event returns at once.
class Event {
 public:
  Event() = default;
  explicit Event(std::shared_ptr<EventImpl> impl) : impl_(std::move(impl)) {}
  // Blocks the calling thread until the work recorded before the event is done.
  Status Synchronize() const;
  bool Done() const;

 private:
  friend class Stream;
  std::shared_ptr<EventImpl> impl_;
};

// An in-order queue of work. On the host a created stream is served by a progress thread of its own, so that what is
// queued there overlaps what the caller computes; the inline stream runs work at once on the caller's thread and
// costs nothing. On a GPU a stream is a CUDA stream.
//
//     SP_ASSIGN_OR_RETURN(Stream comm_stream, Stream::Create("gradients"));
//     SP_RETURN_IF_ERROR(AllReduce(comm, args, comm_stream));   // returns at once
//     Compute();
//     SP_RETURN_IF_ERROR(comm_stream.Synchronize());            // the first error of the queued work
//
// One communicator must be used by one stream at a time; Communicator::Duplicate gives another for a second stream.
class Stream {
 public:
  Stream() = default;  // The inline stream.
  static Stream Inline() { return Stream(); }
  static StatusOr<Stream> Create(const std::string& name);

  bool is_inline() const { return impl_ == nullptr; }
  DeviceKind device() const { return DeviceKind::kHost; }

  // Runs `work` after everything queued before it. After a failure, later work is dropped until Synchronize.
  template <class Work>
  Status Run(Work&& work) const {
    if (impl_ == nullptr) [[likely]] {
      return std::forward<Work>(work)();
    }
    Enqueue(std::forward<Work>(work));
    return Status();
  }
  // Waits until the queue is empty; returns and clears its first error.
  Status Synchronize() const;
  // An event that is done once everything queued so far is.
  StatusOr<Event> Record() const;
  // Work queued after this starts only when `event` is done.
  Status Wait(const Event& event) const;

 private:
  explicit Stream(std::shared_ptr<StreamImpl> impl) : impl_(std::move(impl)) {}
  void Enqueue(std::function<Status()> work) const;
  std::shared_ptr<StreamImpl> impl_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_DEVICE_H_
