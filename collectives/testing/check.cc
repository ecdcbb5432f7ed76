#include "collectives/testing/check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "collectives/chunks.h"

namespace shardproof::testing {
namespace {

constexpr int64_t kGuard = 8;      // Elements on either side of a buffer.
constexpr double kUntouched = 56;  // Exact in every type.

// Elements with guards on both sides.
class Guarded {
 public:
  static StatusOr<Guarded> Create(const Communicator& comm,
                                  const CollectiveCheck& check, int64_t count) {
    const auto bytes =
        static_cast<size_t>((count + 2 * kGuard) * SizeOf(check.dtype));
    Guarded made(check.dtype, count);
    if (check.allocated) {
      SP_ASSIGN_OR_RETURN(made.allocated_, comm.Allocate(bytes));
      made.data_ = made.allocated_.data();
    } else {
      made.ordinary_.resize(bytes);
      made.data_ = made.ordinary_.data();
    }
    const std::vector<double> fill(static_cast<size_t>(count + 2 * kGuard),
                                   kUntouched);
    FromDouble(check.dtype, fill.data(), count + 2 * kGuard, made.data_);
    return made;
  }
  std::byte* at(int64_t index) { return At(data_, dtype_, kGuard + index); }
  void Write(int64_t begin, const std::vector<double>& values) {
    FromDouble(dtype_, values.data(), static_cast<int64_t>(values.size()),
               at(begin));
  }
  // With the guards.
  std::vector<double> ReadAll() {
    std::vector<double> values(static_cast<size_t>(count_ + 2 * kGuard));
    ToDouble(dtype_, data_, count_ + 2 * kGuard, values.data());
    return values;
  }

 private:
  Guarded(DType dtype, int64_t count) : dtype_(dtype), count_(count) {}

  DType dtype_;
  int64_t count_;
  std::vector<std::byte> ordinary_;
  Buffer allocated_;
  std::byte* data_ = nullptr;
};

std::vector<double> InputOf(const CollectiveCheck& check, int rank) {
  std::vector<double> values(static_cast<size_t>(check.send_count));
  check.input(rank, 0, values);
  return values;
}

Status Compare(const CollectiveCheck& check, const char* buffer, int rank,
               const std::vector<double>& got,
               const std::vector<double>& want) {
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]))) {
      continue;
    }
    return Internal("{}, {}: rank {}, {}[{}] is {} and should be {}",
                    check.name, Name(check.dtype), rank, buffer,
                    static_cast<int64_t>(i) - kGuard, got[i], want[i]);
  }
  return OkStatus();
}

Status CheckTraffic(const Communicator& comm, const CollectiveCheck& check,
                    const Traffic& mine) {
  SP_ASSIGN_OR_RETURN(
      const std::vector<std::string> all,
      comm.ExchangeControl(fmt::format("{} {}", mine.bytes, mine.messages)));
  Traffic sum;
  for (const std::string& one : all) {
    size_t end = 0;
    sum.bytes += std::stoll(one, &end);
    sum.messages += std::stoll(one.substr(end));
  }
  if (!check.traffic || sum == *check.traffic) return OkStatus();
  return Internal(
      "{}, {}, {} ranks, {} elements: {} bytes in {} messages, and should be "
      "{} in {}",
      check.name, Name(check.dtype), comm.size(), check.send_count, sum.bytes,
      sum.messages, check.traffic->bytes, check.traffic->messages);
}

}  // namespace

Status Check(const Communicator& comm, const CollectiveCheck& check) {
  const int rank = comm.rank();
  const bool in_place = check.in_place_at.has_value();
  const bool recv_longer = check.recv_count >= check.send_count;
  const int64_t send_at = in_place && recv_longer ? *check.in_place_at : 0;
  const int64_t recv_at = in_place && !recv_longer ? *check.in_place_at : 0;
  std::vector<Bounded> expected(static_cast<size_t>(check.recv_count),
                                Bounded{kUntouched});
  const std::vector<double> input = InputOf(check, rank);
  // In place, what is not written is still the input. One of the two offsets
  // is 0.
  for (size_t i = 0; in_place && i < expected.size(); ++i) {
    const size_t at = static_cast<size_t>(recv_at) + i;
    const auto from = static_cast<size_t>(send_at);
    if (at >= from && at - from < input.size()) {
      expected[i].value = input[at - from];
    }
  }
  check.expected(expected);

  for (int repeat = 0; repeat < 2; ++repeat) {
    SP_ASSIGN_OR_RETURN(
        Guarded output,
        Guarded::Create(comm, check,
                        in_place ? std::max(check.send_count, check.recv_count)
                                 : check.recv_count));
    SP_ASSIGN_OR_RETURN(Guarded apart,
                        Guarded::Create(comm, check, check.send_count));
    Guarded& send = in_place ? output : apart;
    send.Write(send_at, input);
    std::vector<double> want = output.ReadAll();
    for (size_t i = 0; i < expected.size(); ++i) {
      want[static_cast<size_t>(kGuard + recv_at) + i] = expected[i].value;
    }
    const std::vector<double> sent = apart.ReadAll();

    SP_RETURN_IF_ERROR(comm.Barrier());
    const Traffic before = comm.traffic();
    SP_RETURN_IF_ERROR(
        check
            .run(check.send_count > 0 ? send.at(send_at) : nullptr,
                 check.recv_count > 0 ? output.at(recv_at) : nullptr)
            .WithContext(check.name));
    const Traffic mine = comm.traffic() - before;
    SP_RETURN_IF_ERROR(Compare(check, "recv", rank, output.ReadAll(), want));
    SP_RETURN_IF_ERROR(Compare(check, "send", rank, apart.ReadAll(), sent));
    SP_RETURN_IF_ERROR(CheckTraffic(comm, check, mine));
  }
  return OkStatus();
}

void ForEachWorld(std::initializer_list<int> sizes,
                  const std::function<Status(const Communicator&)>& body) {
  for (const int size : sizes) {
    SCOPED_TRACE(fmt::format("{} ranks", size));
    StatusOr<std::unique_ptr<ThreadWorld>> world =
        ThreadWorld::Create({.ranks = size, .pin = false});
    ASSERT_TRUE(world.ok()) << world.status().ToString();
    const Status status = (*world)->Run([&](const Communicator& comm) {
      SP_RETURN_IF_ERROR(body(comm));
      if (comm.size() < 3 || comm.size() > 8) return OkStatus();
      SP_ASSIGN_OR_RETURN(const Communicator half,
                          comm.Split(comm.rank() % 2, -comm.rank()));
      return body(half).WithContext("every second rank");
    });
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
}

namespace {

// A hash of (rank, index) in [0, below).
int64_t Hash(int rank, int64_t index, int64_t below) {
  uint64_t x = static_cast<uint64_t>(index) * 0x9e3779b97f4a7c15u +
               static_cast<uint64_t>(rank + 1) * 0xd1b54a32d192ed03u;
  x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
  x ^= x >> 32;
  return static_cast<int64_t>(x % static_cast<uint64_t>(below));
}

// Integers of which `active` ranks at each index have one, of at most `most`,
// times `unit`.
InputFn Sparse(int ranks, int active, int64_t most, double unit) {
  return [=](int rank, int64_t begin, std::span<double> out) {
    for (size_t i = 0; i < out.size(); ++i) {
      const int64_t index = begin + static_cast<int64_t>(i);
      const bool has = (index + rank) % ranks < active;
      out[i] = has ? unit * static_cast<double>(
                                Hash(rank, index, 2 * most + 1) - most)
                   : 0;
    }
  };
}

// Sums of absolute values up to this are exact.
int64_t ExactLimit(DType dtype) {
  return int64_t{1} << std::min(SignificandBits(dtype), 10);
}

InputFn WithoutSign(DType dtype, const InputFn& input) {
  if (dtype != DType::kU8) return input;
  return [input](int rank, int64_t begin, std::span<double> out) {
    input(rank, begin, out);
    for (double& x : out) x = std::abs(x);
  };
}

InputFn PowersOfTwo(DType dtype, int ranks) {
  return [=](int rank, int64_t begin, std::span<double> out) {
    for (size_t i = 0; i < out.size(); ++i) {
      const int64_t index = begin + static_cast<int64_t>(i);
      const int64_t h = Hash(rank, index, 6);
      const bool scales = (index + rank) % ranks < 4;
      const int64_t exponent = scales ? h / 2 - (IsFloat(dtype) ? 1 : 0) : 0;
      out[i] = std::ldexp(h % 2 == 0 ? 1 : -1, static_cast<int>(exponent));
    }
  };
}

}  // namespace

InputFn SmallIntegers(DType dtype, int ranks) {
  const int64_t limit = ExactLimit(dtype) / 2;
  const int active = static_cast<int>(std::min<int64_t>(ranks, limit));
  return WithoutSign(dtype, Sparse(ranks, active, limit / active, 1));
}

InputFn ExactInput(DType dtype, ReduceOp op, int ranks) {
  if (op == ReduceOp::kProd) {
    return WithoutSign(dtype, PowersOfTwo(dtype, ranks));
  }
  if (op != ReduceOp::kAvg) return SmallIntegers(dtype, ranks);
  // One multiple of `ranks` at each index where there is no room for more.
  const int64_t limit = std::max<int64_t>(1, ExactLimit(dtype) / ranks);
  const int active = static_cast<int>(std::min<int64_t>(ranks, limit));
  return WithoutSign(dtype, Sparse(ranks, active, limit / active, ranks));
}

double ExactScale(int rank) {
  constexpr double kScales[] = {2, 1, -1};
  return kScales[rank % 3];
}

Reduction ExactReduction(DType dtype, ReduceOp op, int ranks) {
  Reduction reduction{.op = op,
                      .dtype = dtype,
                      .ranks = ranks,
                      .arithmetic = Arithmetic::For(dtype, ranks),
                      .factors = {}};
  for (int r = 0; r < ranks; ++r) reduction.factors.push_back(ExactScale(r));
  return reduction;
}

Status ForEachReduction(const std::function<Status(int64_t count, DType dtype,
                                                   ReduceOp op)>& body) {
  for (const DType dtype : kAllDTypes) {
    for (const ReduceOp op : kAllReduceOps) {
      SP_RETURN_IF_ERROR(body(7, dtype, op).WithContext(Name(op)));
    }
  }
  for (const int64_t count : {0, 1, 2, 33, 999, 1024}) {
    SP_RETURN_IF_ERROR(body(count, DType::kF32, ReduceOp::kSum));
    SP_RETURN_IF_ERROR(body(count, DType::kBF16, ReduceOp::kAvg));
    SP_RETURN_IF_ERROR(body(count, DType::kI64, ReduceOp::kPremulSum));
    SP_RETURN_IF_ERROR(body(count, DType::kU8, ReduceOp::kMax));
  }
  return OkStatus();
}

Status ForEachCount(
    const std::function<Status(int64_t count, DType dtype)>& body) {
  for (const DType dtype : kAllDTypes) SP_RETURN_IF_ERROR(body(7, dtype));
  for (const int64_t count : {0, 1, 2, 33, 999, 1024}) {
    SP_RETURN_IF_ERROR(body(count, DType::kF64));
    SP_RETURN_IF_ERROR(body(count, DType::kE4M3));
  }
  return OkStatus();
}

}  // namespace shardproof::testing
