// MPI's collectives behind our requests, against plain loops. Runs under mpirun
// with any number of ranks.
#include "collectives/backend/mpi/mpi_native.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>
#include <climits>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "collectives/backend/mpi/mpi_test_main.h"
#include "reference/dtype.h"

namespace shardproof {
namespace {

int Rank() { return TestWorld().world().rank(); }
int Size() { return TestWorld().world().size(); }

// Small, so that every sum is exact in every type, different for every rank,
// and not periodic within a block.
double Input(int rank, int64_t i) {
  return static_cast<double>((i * i + 3 * i + 5 * rank + 1) % 7 + rank % 2);
}

// Elements of one type, set and read as doubles. Starts with a value that no
// input has.
class Array {
 public:
  static constexpr double kUntouched = 16;

  Array(DType dtype, int64_t count)
      : dtype_(dtype), bytes_(count * SizeOf(dtype)) {
    for (int64_t i = 0; i < count; ++i) Set(i, kUntouched);
  }
  int64_t count() const {
    return static_cast<int64_t>(bytes_.size()) / SizeOf(dtype_);
  }
  void* At(int64_t i) { return bytes_.data() + i * SizeOf(dtype_); }
  void Set(int64_t i, double value) { FromDouble(dtype_, &value, 1, At(i)); }
  double Get(int64_t i) {
    double value = 0;
    ToDouble(dtype_, At(i), 1, &value);
    return value;
  }
  // This rank's inputs first to first + n, at `at`.
  void Load(int64_t at, int64_t n, int64_t first = 0) {
    for (int64_t i = 0; i < n; ++i) Set(at + i, Input(Rank(), first + i));
  }

 private:
  DType dtype_;
  std::vector<std::byte> bytes_;
};

// What a combination is tried with. A limit of 5 takes the ways for counts
// beyond an int.
struct Trial {
  DType dtype;
  int64_t count;
  int64_t limit;
  bool in_place;
  int root;

  std::string Name() const {
    return std::string(shardproof::Name(dtype)) + " x " +
           std::to_string(count) + " limit " + std::to_string(limit) +
           (in_place ? " in place" : "") + " root " + std::to_string(root);
  }
};

void ForEachTrial(const std::function<void(const Trial&)>& body) {
  for (const DType dtype : kAllDTypes) {
    for (const int64_t count : {0, 1, 7, 23}) {
      for (const int64_t limit : {int64_t{INT_MAX}, int64_t{5}}) {
        for (const bool in_place : {false, true}) {
          for (const int root : {0, Size() - 1}) {
            const Trial trial{dtype, count, limit, in_place, root};
            SCOPED_TRACE(trial.Name());
            body(trial);
          }
        }
      }
    }
  }
}

// Runs the request with the trial's facts filled in.
Status CallMpi(const Trial& trial, NativeRequest request) {
  request.count = trial.count;
  request.dtype = trial.dtype;
  request.root = trial.root;
  request.in_place = trial.in_place;
  return RunMpiNative(MPI_COMM_WORLD, request, trial.limit);
}

bool Reducible(DType dtype) { return !IsFloat(dtype) || SizeOf(dtype) >= 4; }

// False, with the check made, where MPI must refuse.
bool ReducesOrRefuses(const Trial& trial, const Status& status) {
  if (Reducible(trial.dtype)) {
    EXPECT_TRUE(status.ok()) << status.ToString();
    return status.ok();
  }
  EXPECT_EQ(status.code(), StatusCode::kUnsupported) << status.ToString();
  return false;
}

double Fold(ReduceOp op, int64_t i) {
  double value = Input(0, i);
  for (int r = 1; r < Size(); ++r) {
    const double next = Input(r, i);
    value = op == ReduceOp::kSum   ? value + next
            : op == ReduceOp::kMax ? std::max(value, next)
                                   : std::min(value, next);
  }
  return value;
}

constexpr ReduceOp kOps[] = {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin};

TEST(MpiNativeTest, AllReduce) {
  ForEachTrial([](const Trial& trial) {
    for (const ReduceOp op : kOps) {
      Array send(trial.dtype, trial.count);
      Array out(trial.dtype, trial.count);
      send.Load(0, trial.count);
      Array& recv = trial.in_place ? send : out;
      const Status status = CallMpi(trial, {.primitive = "all_reduce",
                                            .send = send.At(0),
                                            .recv = recv.At(0),
                                            .op = op});
      if (!ReducesOrRefuses(trial, status)) continue;
      for (int64_t i = 0; i < trial.count; ++i) {
        ASSERT_EQ(recv.Get(i), Fold(op, i)) << Name(op) << " at " << i;
      }
    }
  });
}

TEST(MpiNativeTest, Reduce) {
  ForEachTrial([](const Trial& trial) {
    const bool at_root = Rank() == trial.root;
    Array send(trial.dtype, trial.count);
    Array out(trial.dtype, trial.count);
    send.Load(0, trial.count);
    Array& recv = trial.in_place ? send : out;
    const Status status =
        CallMpi(trial, {.primitive = "reduce",
                        .send = send.At(0),
                        .recv = at_root ? recv.At(0) : nullptr});
    if (!ReducesOrRefuses(trial, status) || !at_root) return;
    for (int64_t i = 0; i < trial.count; ++i) {
      ASSERT_EQ(recv.Get(i), Fold(ReduceOp::kSum, i)) << "at " << i;
    }
  });
}

TEST(MpiNativeTest, ReduceScatter) {
  ForEachTrial([](const Trial& trial) {
    Array send(trial.dtype, trial.count * Size());
    Array recv(trial.dtype, trial.count);
    send.Load(0, trial.count * Size());
    const Status status = CallMpi(
        trial,
        {.primitive = "reduce_scatter",
         .send = send.At(0),
         .recv = trial.in_place ? send.At(Rank() * trial.count) : recv.At(0)});
    if (Reducible(trial.dtype) && trial.count > 0 &&
        (trial.in_place || trial.count > trial.limit)) {
      ASSERT_EQ(status.code(), StatusCode::kUnsupported);
      return;
    }
    if (!ReducesOrRefuses(trial, status)) return;
    for (int64_t i = 0; i < trial.count; ++i) {
      ASSERT_EQ(recv.Get(i), Fold(ReduceOp::kSum, Rank() * trial.count + i));
    }
  });
}

TEST(MpiNativeTest, Broadcast) {
  ForEachTrial([](const Trial& trial) {
    Array send(trial.dtype, trial.count);
    Array out(trial.dtype, trial.count);
    if (Rank() == trial.root) send.Load(0, trial.count);
    Array& recv = trial.in_place ? send : out;
    const Status status = CallMpi(
        trial,
        {.primitive = "broadcast", .send = send.At(0), .recv = recv.At(0)});
    ASSERT_TRUE(status.ok()) << status.ToString();
    for (int64_t i = 0; i < trial.count; ++i) {
      ASSERT_EQ(recv.Get(i), Input(trial.root, i));
    }
  });
}

TEST(MpiNativeTest, AllGather) {
  ForEachTrial([](const Trial& trial) {
    const int64_t n = trial.count;
    Array send(trial.dtype, n);
    Array recv(trial.dtype, n * Size());
    send.Load(0, n);
    recv.Load(Rank() * n, trial.in_place ? n : 0);
    const Status status = CallMpi(
        trial, {.primitive = "all_gather",
                .send = trial.in_place ? recv.At(Rank() * n) : send.At(0),
                .recv = recv.At(0)});
    ASSERT_TRUE(status.ok()) << status.ToString();
    for (int r = 0; r < Size(); ++r) {
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_EQ(recv.Get(r * n + i), Input(r, i)) << "from " << r;
      }
    }
  });
}

TEST(MpiNativeTest, Gather) {
  ForEachTrial([](const Trial& trial) {
    const int64_t n = trial.count;
    const bool at_root = Rank() == trial.root;
    Array send(trial.dtype, n);
    Array recv(trial.dtype, n * Size());
    send.Load(0, n);
    recv.Load(Rank() * n, trial.in_place ? n : 0);
    const bool lies_there = trial.in_place && at_root;
    const Status status =
        CallMpi(trial, {.primitive = "gather",
                        .send = lies_there ? recv.At(Rank() * n) : send.At(0),
                        .recv = at_root ? recv.At(0) : nullptr});
    ASSERT_TRUE(status.ok()) << status.ToString();
    for (int r = 0; r < Size() && at_root; ++r) {
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_EQ(recv.Get(r * n + i), Input(r, i)) << "from " << r;
      }
    }
  });
}

TEST(MpiNativeTest, Scatter) {
  ForEachTrial([](const Trial& trial) {
    const int64_t n = trial.count;
    const bool at_root = Rank() == trial.root;
    Array send(trial.dtype, n * Size());
    Array recv(trial.dtype, n);
    if (at_root) send.Load(0, n * Size());
    const bool lies_there = trial.in_place && at_root;
    const Status status =
        CallMpi(trial, {.primitive = "scatter",
                        .send = at_root ? send.At(0) : nullptr,
                        .recv = lies_there ? send.At(Rank() * n) : recv.At(0)});
    ASSERT_TRUE(status.ok()) << status.ToString();
    for (int64_t i = 0; i < n; ++i) {
      const double got = lies_there ? send.Get(Rank() * n + i) : recv.Get(i);
      ASSERT_EQ(got, Input(trial.root, Rank() * n + i));
    }
  });
}

TEST(MpiNativeTest, AllToAll) {
  ForEachTrial([](const Trial& trial) {
    const int64_t n = trial.count;
    Array send(trial.dtype, n * Size());
    Array out(trial.dtype, n * Size());
    send.Load(0, n * Size());
    Array& recv = trial.in_place ? send : out;
    const Status status = CallMpi(
        trial,
        {.primitive = "all_to_all", .send = send.At(0), .recv = recv.At(0)});
    ASSERT_TRUE(status.ok()) << status.ToString();
    for (int r = 0; r < Size(); ++r) {
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_EQ(recv.Get(r * n + i), Input(r, Rank() * n + i));
      }
    }
  });
}

TEST(MpiNativeTest, SendRecv) {
  ForEachTrial([](const Trial& trial) {
    // Down a line: the ends have nobody on one side.
    const int source = Rank() - 1;
    const int destination = Rank() + 1 < Size() ? Rank() + 1 : -1;
    Array send(trial.dtype, trial.count);
    Array out(trial.dtype, trial.count);
    send.Load(0, trial.count);
    Array& recv = trial.in_place ? send : out;
    const Status status = CallMpi(trial, {.primitive = "send_recv",
                                          .send = send.At(0),
                                          .recv = recv.At(0),
                                          .destination = destination,
                                          .source = source});
    ASSERT_TRUE(status.ok()) << status.ToString();
    for (int64_t i = 0; i < trial.count; ++i) {
      const double expected = source >= 0      ? Input(source, i)
                              : trial.in_place ? Input(Rank(), i)
                                               : Array::kUntouched;
      ASSERT_EQ(recv.Get(i), expected);
    }
  });
}

// Unequal blocks: rank r has r % 3 * 4 elements, and a gap of one before each.
struct Uneven {
  std::vector<int64_t> counts, offsets;
  int64_t extent = 0;

  Uneven() {
    for (int r = 0; r < Size(); ++r) {
      counts.push_back(r % 3 * 4);
      offsets.push_back(extent + 1);
      extent += counts.back() + 1;
    }
  }
  int64_t packed() const {
    return std::accumulate(counts.begin(), counts.end(), int64_t{0});
  }
};

TEST(MpiNativeTest, GatherForms) {
  const Uneven blocks;
  const int64_t mine = blocks.counts[Rank()];
  for (const bool all : {true, false}) {
    for (const bool in_place : {false, true}) {
      const Trial trial{DType::kBF16, 0, INT_MAX, in_place, Size() - 1};
      SCOPED_TRACE(trial.Name());
      const bool has_output = all || Rank() == trial.root;
      const bool lies_there = in_place && has_output;
      Array send(trial.dtype, mine);
      Array recv(trial.dtype, blocks.extent);
      send.Load(0, mine);
      recv.Load(blocks.offsets[Rank()], lies_there ? mine : 0);
      const Status status = CallMpi(
          trial,
          {.primitive = all ? "all_gather_v" : "gather_v",
           .send = lies_there ? recv.At(blocks.offsets[Rank()]) : send.At(0),
           .recv = has_output ? recv.At(0) : nullptr,
           .recv_counts = blocks.counts,
           .recv_offsets = blocks.offsets});
      ASSERT_TRUE(status.ok()) << status.ToString();
      for (int r = 0; r < Size() && has_output; ++r) {
        EXPECT_EQ(recv.Get(blocks.offsets[r] - 1), Array::kUntouched);
        for (int64_t i = 0; i < blocks.counts[r]; ++i) {
          ASSERT_EQ(recv.Get(blocks.offsets[r] + i), Input(r, i));
        }
      }
    }
  }
}

TEST(MpiNativeTest, ScatterForm) {
  const Uneven blocks;
  for (const bool packed : {false, true}) {
    const Trial trial{DType::kI32, 0, INT_MAX, false, Size() - 1};
    Array send(trial.dtype, blocks.extent);
    Array recv(trial.dtype, blocks.counts[Rank()]);
    if (Rank() == trial.root) send.Load(0, blocks.extent);
    const Status status = CallMpi(
        trial,
        {.primitive = "scatter_v",
         .send = send.At(0),
         .recv = recv.At(0),
         .send_counts = blocks.counts,
         .send_offsets = packed ? std::span<const int64_t>()
                                : std::span<const int64_t>(blocks.offsets)});
    ASSERT_TRUE(status.ok()) << status.ToString();
    int64_t first = 0;
    for (int r = 0; r < Rank(); ++r) first += blocks.counts[r];
    if (!packed) first = blocks.offsets[Rank()];
    for (int64_t i = 0; i < recv.count(); ++i) {
      ASSERT_EQ(recv.Get(i), Input(trial.root, first + i));
    }
  }
}

TEST(MpiNativeTest, ReduceScatterForm) {
  const Uneven blocks;
  const Trial trial{DType::kF64, 0, INT_MAX, false, 0};
  Array send(trial.dtype, blocks.packed());
  Array recv(trial.dtype, blocks.counts[Rank()]);
  send.Load(0, blocks.packed());
  const Status status = CallMpi(trial, {.primitive = "reduce_scatter_v",
                                        .send = send.At(0),
                                        .recv = recv.At(0),
                                        .recv_counts = blocks.counts});
  ASSERT_TRUE(status.ok()) << status.ToString();
  int64_t first = 0;
  for (int r = 0; r < Rank(); ++r) first += blocks.counts[r];
  for (int64_t i = 0; i < recv.count(); ++i) {
    ASSERT_EQ(recv.Get(i), Fold(ReduceOp::kSum, first + i));
  }
}

TEST(MpiNativeTest, AllToAllForm) {
  // Rank s has s + 2 d elements for rank d.
  std::vector<int64_t> out;
  std::vector<int64_t> in;
  for (int r = 0; r < Size(); ++r) {
    out.push_back(Rank() + 2 * r);
    in.push_back(r + 2 * Rank());
  }
  Array send(DType::kE4M3, std::accumulate(out.begin(), out.end(), int64_t{0}));
  Array recv(DType::kE4M3, std::accumulate(in.begin(), in.end(), int64_t{0}));
  send.Load(0, send.count());
  Trial trial{DType::kE4M3, 0, INT_MAX, false, 0};
  NativeRequest request{.primitive = "all_to_all_v",
                        .send = send.At(0),
                        .recv = recv.At(0),
                        .send_counts = out,
                        .recv_counts = in};
  const Status status = CallMpi(trial, request);
  ASSERT_TRUE(status.ok()) << status.ToString();
  int64_t at = 0;
  for (int s = 0; s < Size(); ++s) {
    int64_t first = 0;
    for (int d = 0; d < Rank(); ++d) first += s + 2 * d;
    for (int64_t i = 0; i < in[s]; ++i) {
      ASSERT_EQ(recv.Get(at++), Input(s, first + i)) << "from " << s;
    }
  }
  trial.in_place = true;
  EXPECT_EQ(CallMpi(trial, request).code(), StatusCode::kUnsupported);
}

TEST(MpiNativeTest, Barrier) {
  EXPECT_TRUE(RunMpiNative(MPI_COMM_WORLD, {.primitive = "barrier"}).ok());
}

TEST(MpiNativeTest, RefusesWhatMpiHasNot) {
  float value = 1;
  NativeRequest request{.primitive = "all_reduce",
                        .send = &value,
                        .recv = &value,
                        .count = 1,
                        .in_place = true};
  for (const ReduceOp op : {ReduceOp::kAvg, ReduceOp::kPremulSum}) {
    request.op = op;
    const Status status = RunMpiNative(MPI_COMM_WORLD, request);
    EXPECT_EQ(status.code(), StatusCode::kUnsupported);
    EXPECT_NE(status.message().find(Name(op)), std::string_view::npos);
  }
  request.primitive = "all_shuffle";
  EXPECT_EQ(RunMpiNative(MPI_COMM_WORLD, request).code(),
            StatusCode::kUnsupported);
  request = {.primitive = "broadcast", .root = Size()};
  EXPECT_EQ(RunMpiNative(MPI_COMM_WORLD, request).code(),
            StatusCode::kInvalidArgument);
  request = {.primitive = "gather_v", .recv_counts = {}};
  EXPECT_EQ(RunMpiNative(MPI_COMM_WORLD, request).code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace shardproof
