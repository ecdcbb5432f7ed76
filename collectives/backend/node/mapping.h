// Owners of a file descriptor and of a range of mapped memory.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NODE_MAPPING_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NODE_MAPPING_H_

#include <cstddef>
#include <utility>

#include "reference/status.h"

namespace shardproof {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// Memory shared with whoever else maps the same file.
class Mapping {
 public:
  Mapping() = default;
  // Maps the first `bytes` (a multiple of the page size) of `file`, for reading
  // and writing, at a multiple of 2 MiB: a huge page is mapped as one only
  // where file offset and address agree in their low 21 bits. With `huge_pages`
  // the kernel is asked for huge pages, which it may refuse silently.
  // kUnavailable when the address space does not suffice (ulimit -v).
  static StatusOr<Mapping> Create(const FileDescriptor& file, size_t bytes,
                                  bool huge_pages);
  Mapping(Mapping&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Mapping();

  std::byte* base() const { return base_; }
  size_t bytes() const { return bytes_; }

 private:
  Mapping(std::byte* base, size_t bytes) : base_(base), bytes_(bytes) {}
  std::byte* base_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NODE_MAPPING_H_
