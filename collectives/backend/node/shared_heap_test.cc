#include "collectives/backend/node/shared_heap.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "collectives/backend/node/available_memory.h"

namespace shardproof {
namespace {

using Backing = SharedHeapOptions::Backing;

constexpr size_t kMib = size_t{1} << 20;

std::shared_ptr<SharedHeap> MakeHeap(size_t reservation, size_t budget,
                                     Backing backing = Backing::kMemfd) {
  auto heap = SharedHeap::Create(
      {.reservation = reservation, .budget = budget, .backing = backing});
  EXPECT_TRUE(heap.ok()) << heap.status().ToString();
  return *heap;
}

bool Inside(const SharedHeap& heap, const Buffer& buffer) {
  return buffer.data() >= heap.base() &&
         buffer.data() + buffer.bytes() <= heap.base() + heap.reservation();
}

// Bytes of the file that take memory.
size_t Resident(const SharedHeap& heap) {
  struct stat facts {};
  EXPECT_EQ(stat(heap.name().path.data(), &facts), 0);
  return static_cast<size_t>(facts.st_blocks) * 512;
}

TEST(SharedHeapTest, AlignsBlocks) {
  const auto heap = MakeHeap(64 * kMib, 64 * kMib);
  std::vector<Buffer> buffers;
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{129}, 2 * kMib - 1,
                             2 * kMib, 2 * kMib + 1, 7 * kMib, size_t{1}}) {
    auto buffer = heap->Allocate(bytes);
    ASSERT_TRUE(buffer.ok()) << buffer.status().ToString();
    EXPECT_EQ(buffer->bytes(), bytes);
    EXPECT_TRUE(Inside(*heap, *buffer));
    const size_t alignment =
        bytes >= 2 * kMib ? 2 * kMib : SharedHeap::kSmallAlignment;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % alignment, 0u);
    std::memset(buffer->data(), 0x5a, bytes);
    buffers.push_back(*std::move(buffer));
  }
  for (size_t i = 0; i < buffers.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      EXPECT_TRUE(buffers[i].data() >= buffers[j].data() + buffers[j].bytes() ||
                  buffers[j].data() >= buffers[i].data() + buffers[i].bytes())
          << i << " and " << j << " overlap";
    }
  }
}

TEST(SharedHeapTest, GivesMemoryBack) {
  const auto heap = MakeHeap(64 * kMib, 64 * kMib);
  auto buffer = heap->Allocate(16 * kMib);
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(heap->in_use(), 16 * kMib);
  // Large blocks are there before anybody touches them.
  EXPECT_GE(Resident(*heap), 16 * kMib);
  const std::byte* const place = buffer->data();
  buffer = Buffer();
  EXPECT_EQ(heap->in_use(), 0u);
  EXPECT_EQ(Resident(*heap), 0u);
  auto again = heap->Allocate(16 * kMib);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->data(), place);
}

TEST(SharedHeapTest, RefusesWhatDoesNotFit) {
  const auto heap = MakeHeap(64 * kMib, 10 * kMib);
  auto first = heap->Allocate(6 * kMib);
  ASSERT_TRUE(first.ok());
  for (const size_t bytes :
       {6 * kMib, 4 * kMib + 1, size_t{1} << 40, ~size_t{0}}) {
    const auto second = heap->Allocate(bytes);
    ASSERT_EQ(second.status().code(), StatusCode::kOutOfMemory);
    // How much was asked for, and how much there is.
    const std::string message(second.status().message());
    EXPECT_NE(message.find("4 MiB left of its 10 MiB"), std::string::npos)
        << message;
    EXPECT_NE(message.find("asked for"), std::string::npos) << message;
  }
  // A refusal takes nothing.
  EXPECT_TRUE(heap->Allocate(4 * kMib).ok());
}

// The budget was made while there was more memory: the kernel's present
// estimate counts as well. A SIGBUS or the kernel's killer would end the test.
TEST(SharedHeapTest, RefusesMoreThanTheMachineHas) {
  const size_t much = 2 * AvailableMemory();
  const auto heap = MakeHeap(2 * much, 2 * much);
  const auto buffer = heap->Allocate(much);
  EXPECT_EQ(buffer.status().code(), StatusCode::kOutOfMemory);
}

TEST(SharedHeapTest, BuffersOutliveTheHandle) {
  auto heap = MakeHeap(64 * kMib, 64 * kMib);
  auto buffer = heap->Allocate(1000);
  ASSERT_TRUE(buffer.ok());
  heap.reset();
  std::memset(buffer->data(), 1, buffer->bytes());
  EXPECT_EQ(buffer->data()[999], std::byte{1});
}

// Bytes that this process maps as huge pages of shared memory, within a range.
size_t HugeBytes(const std::byte* data, size_t bytes) {
  std::ifstream maps("/proc/self/smaps");
  const auto begin = reinterpret_cast<uintptr_t>(data);
  size_t total = 0;
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long low = 0;
    unsigned long high = 0;
    size_t kib = 0;
    char to = 0;
    std::string name;
    if (std::istringstream(line) >> std::hex >> low >> to >> high) {
      inside = low < begin + bytes && begin < high;
    } else if (inside && std::istringstream(line) >> name >> kib &&
               name == "ShmemPmdMapped:") {
      total += kib * 1024;
    }
  }
  return total;
}

// Whether the kernel gives huge pages on request, found without the heap.
bool KernelCollapses() {
  constexpr int kMadvCollapse = 25;
  const FileDescriptor file(memfd_create("probe", MFD_CLOEXEC));
  if (ftruncate(file.get(), 4 * kMib) != 0) return false;
  auto mapping = Mapping::Create(file, 4 * kMib, true);
  if (!mapping.ok()) return false;
  std::memset(mapping->base(), 1, 4 * kMib);
  return madvise(mapping->base(), 4 * kMib, kMadvCollapse) == 0;
}

TEST(SharedHeapTest, TakesHugePages) {
  if (!KernelCollapses()) GTEST_SKIP() << "this kernel gives no huge pages";
  const auto heap = MakeHeap(64 * kMib, 64 * kMib);
  auto buffer = heap->Allocate(16 * kMib);
  ASSERT_TRUE(buffer.ok());
  // One at least: memory may be in pieces.
  EXPECT_GE(HugeBytes(buffer->data(), buffer->bytes()), 2 * kMib);
  const auto plain =
      SharedHeap::Create({.reservation = 64 * kMib, .huge_pages = false});
  ASSERT_TRUE(plain.ok());
  auto small_pages = (*plain)->Allocate(16 * kMib);
  ASSERT_TRUE(small_pages.ok());
  EXPECT_EQ((*plain)->in_use(), 16 * kMib);
}

TEST(SharedHeapTest, IsThreadSafe) {
  const auto heap = MakeHeap(64 * kMib, 64 * kMib);
  std::vector<std::thread> threads;
  std::vector<int> damaged(4, 0);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 300; ++i) {
        auto buffer = heap->Allocate(i % 50 == 0 ? 2 * kMib : 100 + i);
        if (!buffer.ok()) {
          ++damaged[t];
          continue;
        }
        std::memset(buffer->data(), t + 1, buffer->bytes());
        std::this_thread::yield();
        for (size_t k = 0; k < buffer->bytes(); k += 37) {
          if (buffer->data()[k] != static_cast<std::byte>(t + 1)) ++damaged[t];
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(damaged, std::vector<int>(4, 0));
  EXPECT_EQ(heap->in_use(), 0u);
}

class PeerHeapTest : public testing::TestWithParam<Backing> {};
INSTANTIATE_TEST_SUITE_P(Backings, PeerHeapTest,
                         testing::Values(Backing::kMemfd, Backing::kShmFile));

// A child process that has nothing of the parent's heap but its name.
TEST_P(PeerHeapTest, AnotherProcessReadsAndWrites) {
  const auto heap = MakeHeap(64 * kMib, 64 * kMib, GetParam());
  auto small = heap->Allocate(100);
  auto large = heap->Allocate(4 * kMib);
  ASSERT_TRUE(small.ok() && large.ok());
  std::strcpy(small->as<char>(), "from the parent");
  const size_t small_offset = small->data() - heap->base();
  const size_t large_offset = large->data() - heap->base();
  const pid_t child = fork();
  if (child == 0) {
    auto peer = PeerHeap::Open(heap->name());
    if (!peer.ok()) _exit(2);
    if (std::strcmp(reinterpret_cast<char*>(peer->base() + small_offset),
                    "from the parent") != 0) {
      _exit(3);
    }
    std::memset(peer->base() + large_offset, 0x42, 4 * kMib);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  ASSERT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(large->data()[0], std::byte{0x42});
  EXPECT_EQ(large->data()[4 * kMib - 1], std::byte{0x42});
}

TEST(PeerHeapErrorsTest, SaysWhatIsWrong) {
  const auto heap = MakeHeap(64 * kMib, 64 * kMib);
  HeapName wrong_file = heap->name();
  wrong_file.inode += 1;
  const auto other = PeerHeap::Open(wrong_file);
  ASSERT_EQ(other.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(other.status().message().find("another file"),
            std::string_view::npos);
  HeapName nowhere = heap->name();
  std::strcpy(nowhere.path.data(), "/proc/0/fd/1");
  EXPECT_EQ(PeerHeap::Open(nowhere).status().code(), StatusCode::kUnavailable);
}

TEST(SharedHeapTest, LeavesNoFileBehind) {
  std::string path;
  {
    const auto heap = MakeHeap(64 * kMib, 64 * kMib, Backing::kShmFile);
    path = heap->name().path.data();
    EXPECT_EQ(access(path.c_str(), F_OK), 0);
    heap->Unlink();
    EXPECT_NE(access(path.c_str(), F_OK), 0);
    EXPECT_TRUE(heap->Allocate(4 * kMib).ok());
  }
  {
    const auto heap = MakeHeap(64 * kMib, 64 * kMib, Backing::kShmFile);
    path = heap->name().path.data();
  }
  EXPECT_NE(access(path.c_str(), F_OK), 0);
}

}  // namespace
}  // namespace shardproof
