#include "collectives/backend/cuda/testing/kernel_call.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "reference/random.h"

namespace shardproof::cuda::testing {
namespace {

constexpr int64_t kMostCount = 128;
// Around every buffer, and room for what lies off alignment.
constexpr size_t kGuardBytes = 64;

// Draws one number after the other.
class Draw {
 public:
  explicit Draw(uint64_t seed)
      : key_{.seed = seed, .tensor = TensorId("draw")} {}
  int64_t Below(int64_t bound) {
    return static_cast<int64_t>(RandomBits(key_, index_++) %
                                static_cast<uint64_t>(bound));
  }
  template <class T, size_t n>
  T Of(const T (&choices)[n]) {
    return choices[Below(static_cast<int64_t>(n))];
  }

 private:
  StreamKey key_;
  uint64_t index_ = 0;
};

}  // namespace

std::string_view Name(Primitive primitive) {
  constexpr std::string_view kNames[] = {
      "AllReduceOneShot", "AllReduceTwoShot", "ReduceScatter",
      "Reduce",           "AllGather",        "Broadcast",
      "AllToAll",         "SendRecv",         "Barrier"};
  return kNames[static_cast<int>(primitive)];
}

std::string Describe(const Instance& instance) {
  std::string out = fmt::format(
      "seed {}, {} ranks x {} blocks x {} threads, slow rank {}, first round "
      "{}, slots of {} bytes",
      instance.schedule.seed, instance.grid.ranks, instance.grid.blocks,
      instance.grid.threads, instance.schedule.slow_rank, instance.first_round,
      instance.slot_bytes);
  for (const Call& call : instance.calls) {
    out += fmt::format(
        "\n  {} of {} {}, {}, root {}, shift {}{}{}, {} bytes off alignment{}",
        Name(call.primitive), call.count, Name(call.dtype), Name(call.op),
        call.root, call.shift, call.wraps ? "" : " to the end",
        call.in_place ? ", in place" : "", call.misaligned,
        call.evenly ? "" : " and more by rank");
  }
  return out;
}

Instance DrawInstance(Primitive primitive, uint64_t seed) {
  Draw draw(seed);
  Instance out;
  constexpr int kRanks[] = {1, 2, 2, 3, 3, 4, 4, 5, 8};
  out.grid = {.ranks = draw.Of(kRanks),
              .blocks = 1 + static_cast<int>(draw.Below(3)),
              .threads = 1 + static_cast<int>(draw.Below(4))};
  out.schedule = {.seed = seed, .preempt_one_in = 6};
  if (draw.Below(4) == 0) {
    out.schedule.slow_rank = static_cast<int>(draw.Below(out.grid.ranks));
  }
  constexpr uint32_t kRounds[] = {0, 0xfffffffeu, 0xfffffffdu, 41};
  out.first_round = draw.Of(kRounds);
  constexpr int64_t kSlots[] = {64, 128, 1024};
  out.slot_bytes = draw.Of(kSlots);
  for (int i = 0; i < 3; ++i) {
    constexpr DType kTypes[] = {DType::kF32,  DType::kBF16, DType::kF16,
                                DType::kE4M3, DType::kE5M2, DType::kI32};
    constexpr int64_t kCounts[] = {0, 1, 7, 16, 33, 64, 100, kMostCount - 1};
    constexpr int kOffsets[] = {0, 0, 0, 4, 8, 12};
    constexpr ReduceOp kOps[] = {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kAvg,
                                 ReduceOp::kPremulSum};
    Call call;
    call.primitive = primitive;
    call.dtype = draw.Of(kTypes);
    call.op = draw.Of(kOps);
    call.count = draw.Of(kCounts);
    call.root = static_cast<int>(draw.Below(out.grid.ranks));
    call.in_place = draw.Below(3) == 0;
    call.shift = static_cast<int>(draw.Below(out.grid.ranks));
    call.wraps = draw.Below(2) == 0;
    call.misaligned = draw.Of(kOffsets);
    call.evenly = draw.Below(4) != 0;
    out.calls.push_back(call);
  }
  return out;
}

size_t CallData::ArenaBytes(const Instance& instance) {
  // kMostCount elements of the largest type for each rank, and a multiple of 8.
  return static_cast<size_t>(instance.grid.ranks * kMostCount *
                             int64_t{sizeof(float)}) +
         4 * kGuardBytes;
}

CallData::CallData(const Instance& instance, int number)
    : call_(instance.calls[number]),
      ranks_(instance.grid.ranks),
      number_(number),
      seed_(instance.schedule.seed),
      send_offset_(ranks_),
      recv_offset_(ranks_),
      before_(ranks_) {
  Place();
  for (int rank = 0; rank < ranks_; ++rank) {
    for (const Arena arena : {kSend, kRecv}) {
      Bytes& bytes = before_[rank][arena];
      bytes.resize(ArenaBytes(instance));
      const StreamKey key = {
          .seed = seed_,
          .tensor = TensorId(arena == kSend ? "send" : "recv"),
          .rank = static_cast<uint64_t>(rank + 100 * number)};
      for (size_t i = 0; i < bytes.size(); i += sizeof(uint64_t)) {
        const uint64_t bits = RandomBits(key, i);
        std::memcpy(bytes.data() + i, &bits, sizeof(bits));
      }
    }
  }
  FillInputs();
  after_ = before_;
  Expect();
}

void CallData::Place() {
  const int64_t n = call_.count;
  const bool blocks_in = call_.primitive == Primitive::kReduceScatter ||
                         call_.primitive == Primitive::kAllToAll;
  const bool blocks_out = call_.primitive == Primitive::kAllGather ||
                          call_.primitive == Primitive::kAllToAll;
  const bool nothing = call_.primitive == Primitive::kBarrier;
  send_count_ = nothing ? 0 : n * (blocks_in ? ranks_ : 1);
  recv_count_ = nothing ? 0 : n * (blocks_out ? ranks_ : 1);
  send_arena_ = call_.in_place ? kRecv : kSend;
  for (int rank = 0; rank < ranks_; ++rank) {
    const size_t off =
        kGuardBytes +
        static_cast<size_t>((call_.misaligned + (call_.evenly ? 0 : 4 * rank)) %
                            16);
    send_offset_[rank] = recv_offset_[rank] = off;
    if (!call_.in_place) continue;
    const auto block = static_cast<size_t>(rank * n * SizeOf(call_.dtype));
    if (blocks_in && !blocks_out) recv_offset_[rank] += block;
    if (blocks_out && !blocks_in) send_offset_[rank] += block;
  }
}

double CallData::Scale(int rank) const {
  // Powers of two and others; whole numbers, which is what integers make of them.
  constexpr double kScales[] = {1, 3, -2, 5, 0.5, 7, -1, 1.25};
  return kScales[rank % 8];
}

template <class T>
void CallData::FillValues(int rank) {
  const StreamKey key = {.seed = seed_,
                         .tensor = TensorId("x"),
                         .rank = static_cast<uint64_t>(rank + 100 * number_)};
  for (int64_t i = 0; i < send_count_; ++i) {
    // In [-4, 4) with all bits of the type, so that the order of additions shows.
    const uint64_t bits = RandomBits(key, static_cast<uint64_t>(i));
    T value;
    if constexpr (std::is_integral_v<T>) {
      value = static_cast<T>(bits);
    } else {
      value = static_cast<T>(static_cast<float>(bits >> 40) * 0x1p-21f - 4.0f);
    }
    std::memcpy(before_[rank][send_arena_].data() + send_offset_[rank] +
                    i * int64_t{sizeof(T)},
                &value, sizeof(T));
  }
}

void CallData::FillInputs() {
  if (!Reduces(call_.primitive)) return;  // Random bytes are as good as any.
  for (int rank = 0; rank < ranks_; ++rank) {
    Visit(call_.dtype,
          [&]<class T>(TypeTag<T> /*type*/) { FillValues<T>(rank); });
  }
}

const std::byte* CallData::Sent(int rank, int64_t element) const {
  return before_[rank][send_arena_].data() + send_offset_[rank] +
         element * SizeOf(call_.dtype);
}
std::byte* CallData::Received(int rank, int64_t element) {
  return after_[rank][kRecv].data() + recv_offset_[rank] +
         element * SizeOf(call_.dtype);
}

template <class T>
void CallData::ExpectFold(int rank, int64_t from, int64_t count) {
  using Wide = std::conditional_t<
      std::is_integral_v<T>, uint64_t,
      std::conditional_t<std::is_same_v<T, double>, double, float>>;
  for (int64_t i = 0; i < count; ++i) {
    Wide sum = 0;
    for (int s = 0; s < ranks_; ++s) {
      T x;
      std::memcpy(&x, Sent(s, from + i), sizeof(T));
      Wide wide;
      if constexpr (std::is_integral_v<T>) {
        // Modulo 2^64, of which the low bits are kept: the sign does not matter.
        wide = static_cast<std::make_unsigned_t<T>>(x);
      } else {
        wide = static_cast<Wide>(x);
      }
      if (call_.op == ReduceOp::kPremulSum) {
        if constexpr (std::is_integral_v<T>) {
          wide *= static_cast<uint64_t>(static_cast<int64_t>(Scale(s)));
        } else {
          wide *= static_cast<Wide>(Scale(s));
        }
      }
      if (s == 0) {
        sum = wide;
      } else if (call_.op == ReduceOp::kMax) {
        if constexpr (std::is_integral_v<T>) {
          sum = static_cast<T>(sum) < static_cast<T>(wide) ? wide : sum;
        } else {
          sum = std::max(sum, wide);
        }
      } else {
        sum += wide;
      }
    }
    T result;
    if constexpr (std::is_integral_v<T>) {
      result = static_cast<T>(sum);
      if (call_.op == ReduceOp::kAvg) {
        result = static_cast<T>(result / ranks_);
      }
    } else {
      if (call_.op == ReduceOp::kAvg) sum /= static_cast<Wide>(ranks_);
      result = static_cast<T>(sum);
    }
    std::memcpy(Received(rank, i), &result, sizeof(T));
  }
}

void CallData::ExpectCopy(int from, int64_t from_element, int to,
                          int64_t to_element, int64_t count) {
  std::memcpy(Received(to, to_element), Sent(from, from_element),
              static_cast<size_t>(count * SizeOf(call_.dtype)));
}

void CallData::Expect() {
  const int64_t n = call_.count;
  for (int rank = 0; rank < ranks_; ++rank) {
    const int source = rank - call_.shift;
    switch (call_.primitive) {
      case Primitive::kAllReduceOneShot:
      case Primitive::kAllReduceTwoShot:
      case Primitive::kReduceScatter:
      case Primitive::kReduce:
        if (call_.primitive == Primitive::kReduce && rank != call_.root) break;
        Visit(call_.dtype, [&]<class T>(TypeTag<T> /*type*/) {
          ExpectFold<T>(
              rank, call_.primitive == Primitive::kReduceScatter ? rank * n : 0,
              n);
        });
        break;
      case Primitive::kAllGather:
        for (int s = 0; s < ranks_; ++s) ExpectCopy(s, 0, rank, s * n, n);
        break;
      case Primitive::kBroadcast:
        ExpectCopy(call_.root, 0, rank, 0, n);
        break;
      case Primitive::kAllToAll:
        for (int s = 0; s < ranks_; ++s) {
          ExpectCopy(s, rank * n, rank, s * n, n);
        }
        break;
      case Primitive::kSendRecv:
        if (source >= 0 || call_.wraps) {
          ExpectCopy((source + ranks_) % ranks_, 0, rank, 0, n);
        }
        break;
      case Primitive::kBarrier:
        break;
    }
  }
}

}  // namespace shardproof::cuda::testing
