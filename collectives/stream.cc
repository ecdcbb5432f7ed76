// The host stream: a queue served by a thread of its own.
#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "collectives/current_rank.h"
#include "collectives/device.h"
#include "reference/affinity.h"

namespace shardproof {

class EventImpl {
 public:
  void Complete(Status status) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      status_ = std::move(status);
      done_ = true;
    }
    changed_.notify_all();
  }
  Status Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
    return status_;
  }
  bool done() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return done_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  Status status_;
};

namespace {

// Shared by the handles and the thread, so that a stream whose last handle goes
// away on its own thread (captured in its own work) needs no one to join it.
class Queue {
 public:
  struct Item {
    std::function<Status()> work;
    std::shared_ptr<EventImpl> event;  // Completed instead of work.
  };

  void Push(Item item) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      items_.push_back(std::move(item));
    }
    changed_.notify_all();
  }

  void Close() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }

  Status Drain() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return items_.empty() && !busy_; });
    return std::exchange(error_, Status());
  }

  // The thread: until closed and empty.
  void Serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return closed_ || !items_.empty(); });
      if (items_.empty()) return;
      busy_ = true;
      {
        const Item item = std::move(items_.front());
        items_.pop_front();
        if (item.event != nullptr) {
          item.event->Complete(error_);
        } else if (error_.ok()) {
          lock.unlock();
          Status status = item.work();
          lock.lock();
          if (!status.ok()) error_ = std::move(status);
        }
        // What the work captured goes before the stream looks idle, and not
        // under the lock: it may be a handle of a stream.
        lock.unlock();
      }
      lock.lock();
      busy_ = false;
      if (items_.empty()) changed_.notify_all();
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<Item> items_;
  bool busy_ = false;
  bool closed_ = false;
  Status error_;  // The first since the last Drain.
};

}  // namespace

class StreamImpl {
 public:
  StreamImpl() : queue_(std::make_shared<Queue>()) {}
  ~StreamImpl() {
    queue_->Close();
    if (!thread_.joinable()) return;
    if (thread_.get_id() == std::this_thread::get_id()) {
      thread_.detach();
    } else {
      thread_.join();
    }
  }
  StreamImpl(const StreamImpl&) = delete;
  StreamImpl& operator=(const StreamImpl&) = delete;

  Status Start(const std::string& name) {
    // The only way in which std::thread reports that the system refused.
    try {
      thread_ = std::thread([queue = queue_, name, rank = CurrentRank()] {
        SetCurrentRank(rank);
        UseEveryCore();  // Not only the one that its rank computes on.
        // The system takes 15 characters.
        pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
        queue->Serve();
      });
    } catch (const std::system_error& error) {
      return Unavailable("cannot start a thread for stream {}: {}", name,
                         error.what());
    }
    return OkStatus();
  }
  Queue& queue() { return *queue_; }

 private:
  std::shared_ptr<Queue> queue_;
  std::thread thread_;
};

Status Event::Synchronize() const {
  return impl_ == nullptr ? OkStatus() : impl_->Wait();
}

bool Event::Done() const { return impl_ == nullptr || impl_->done(); }

StatusOr<Stream> Stream::Create(const std::string& name) {
  auto impl = std::make_shared<StreamImpl>();
  SP_RETURN_IF_ERROR(impl->Start(name));
  return Stream(std::move(impl));
}

void Stream::Enqueue(std::function<Status()> work) const {
  impl_->queue().Push({.work = std::move(work), .event = nullptr});
}

Status Stream::Synchronize() const {
  return impl_ == nullptr ? OkStatus() : impl_->queue().Drain();
}

StatusOr<Event> Stream::Record() const {
  if (impl_ == nullptr) return Event();
  auto event = std::make_shared<EventImpl>();
  impl_->queue().Push({.work = nullptr, .event = event});
  return Event(std::move(event));
}

Status Stream::Wait(const Event& event) const {
  // An error of the other stream is that stream's to report.
  if (event.impl_ == nullptr) return OkStatus();
  if (impl_ == nullptr) {
    static_cast<void>(event.impl_->Wait());
    return OkStatus();
  }
  Enqueue([other = event.impl_] {
    static_cast<void>(other->Wait());
    return OkStatus();
  });
  return OkStatus();
}

}  // namespace shardproof
