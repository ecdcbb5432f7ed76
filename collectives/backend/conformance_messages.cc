// Messages: contents, order, matching, lengths, traffic.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "collectives/backend/conformance.h"

namespace shardproof::conformance {
namespace {

// Around the eager limits of the backends, and above.
constexpr size_t kSizes[] = {0,    1,     7,     48,     49,
                             4096, 16384, 65537, 262144, (1 << 20) + 3};

Status RingShift(const Communicator& comm) {
  const int p = comm.size();
  const int me = comm.rank();
  for (int shift = 1; shift <= p; ++shift) {
    const int next = (me + shift) % p;
    const int previous = (me + p - shift % p) % p;
    for (const size_t bytes : kSizes) {
      std::vector<std::byte> out(bytes);
      std::vector<std::byte> in(bytes);
      Fill(out, me, next, shift);
      SP_RETURN_IF_ERROR(
          comm.SendRecv(out.data(), bytes, next, in.data(), bytes, previous));
      SP_RETURN_IF_ERROR(Verify(in, previous, me, shift, "SendRecv"));
    }
  }
  return OkStatus();
}

// Blocking calls, which must not need each other's progress.
Status SendThenReceive(const Communicator& comm) {
  const int p = comm.size();
  const int me = comm.rank();
  if (p == 1) return OkStatus();
  for (const size_t bytes : kSizes) {
    std::vector<std::byte> data(bytes);
    if (me > 0) {
      SP_RETURN_IF_ERROR(comm.Recv(data.data(), bytes, me - 1, 5));
      SP_RETURN_IF_ERROR(Verify(data, 0, 0, 11, "a token through all ranks"));
    } else {
      Fill(data, 0, 0, 11);
    }
    SP_RETURN_IF_ERROR(comm.Send(data.data(), bytes, (me + 1) % p, 5));
    if (me == 0) {
      std::vector<std::byte> back(bytes);
      SP_RETURN_IF_ERROR(comm.Recv(back.data(), bytes, p - 1, 5));
      SP_RETURN_IF_ERROR(Verify(back, 0, 0, 11, "a token through all ranks"));
    }
  }
  return OkStatus();
}

// Everything to everybody at once, large and small.
Status ManyAtOnce(const Communicator& comm) {
  constexpr size_t kBytes[] = {100000, 1, 333, 5000};
  const int p = comm.size();
  const int me = comm.rank();
  std::vector<std::vector<std::byte>> out;
  std::vector<std::vector<std::byte>> in;
  std::vector<Request> requests;
  for (int r = 0; r < p; ++r) {
    for (int k = 0; k < 4; ++k) {
      out.emplace_back(kBytes[k]);
      in.emplace_back(kBytes[k]);
      Fill(out.back(), me, r, k);
      SP_ASSIGN_OR_RETURN(Request receive,
                          comm.Irecv(in.back().data(), kBytes[k], r, k));
      SP_ASSIGN_OR_RETURN(Request send,
                          comm.Isend(out.back().data(), kBytes[k], r, k));
      requests.push_back(receive);
      requests.push_back(send);
    }
  }
  SP_RETURN_IF_ERROR(comm.WaitAll(requests));
  for (int r = 0; r < p; ++r) {
    for (int k = 0; k < 4; ++k) {
      SP_RETURN_IF_ERROR(Verify(in[4 * r + k], r, me, k, "many at once"));
    }
  }
  return OkStatus();
}

// Of one sender and tag: in the order sent. Of several tags: as asked for.
Status InOrder(const Communicator& comm) {
  constexpr int kMessages = 50;
  const int p = comm.size();
  const int me = comm.rank();
  const int next = (me + 1) % p;
  const int previous = (me + p - 1) % p;
  std::array<std::array<int, kMessages>, 2> sent;
  std::vector<Request> sends;
  for (int i = 0; i < kMessages; ++i) {
    for (int tag = 0; tag < 2; ++tag) {
      sent[tag][i] = me * 1000 + tag * 100 + i;
      SP_ASSIGN_OR_RETURN(Request send,
                          comm.Isend(&sent[tag][i], sizeof(int), next, tag));
      sends.push_back(send);
    }
  }
  for (const int tag : {1, 0}) {
    for (int i = 0; i < kMessages; ++i) {
      int got = -1;
      SP_RETURN_IF_ERROR(comm.Recv(&got, sizeof(got), previous, tag));
      if (const int want = previous * 1000 + tag * 100 + i; got != want) {
        return Internal("message {} of tag {} says {}, not {}", i, tag, got,
                        want);
      }
    }
  }
  return comm.WaitAll(sends);
}

// A length that differs is an error of the receiver, whatever protocol a
// message of that size takes, and what follows it arrives.
Status LengthMismatch(const Communicator& comm) {
  struct Lengths {
    size_t sent, expected;
  };
  constexpr Lengths kLengths[] = {
      {8, 16}, {16, 8}, {1 << 20, 1 << 19}, {1 << 19, 1 << 20}, {100000, 7}};
  const int me = comm.rank();
  if (comm.size() == 1) return OkStatus();
  for (const Lengths& lengths : kLengths) {
    std::vector<std::byte> data(std::max(lengths.sent, lengths.expected));
    if (me == 0) {
      // A sender may be told, or not.
      const Status status = comm.Send(data.data(), lengths.sent, 1, 3);
      if (!status.ok() && status.code() != StatusCode::kDataLoss) return status;
    } else if (me == 1) {
      const Status status = comm.Recv(data.data(), lengths.expected, 0, 3);
      if (status.code() != StatusCode::kDataLoss) {
        return Internal("{} bytes sent and {} expected gave {}", lengths.sent,
                        lengths.expected, status.ToString());
      }
    }
    if (me <= 1) {
      int token = me;
      SP_RETURN_IF_ERROR(comm.SendRecv(&me, sizeof(me), 1 - me, &token,
                                       sizeof(token), 1 - me, 3));
      if (token != 1 - me) return Internal("the next message is lost");
    }
  }
  return OkStatus();
}

Status RefusesNonsense(const Communicator& comm) {
  int value = 0;
  const Status statuses[] = {
      comm.Send(&value, sizeof(value), comm.size()),
      comm.Send(&value, sizeof(value), -1),
      comm.Recv(&value, sizeof(value), comm.size()),
      comm.Send(&value, sizeof(value), 0, -1),
      comm.Send(nullptr, 4, 0),
  };
  for (const Status& status : statuses) {
    if (status.code() != StatusCode::kInvalidArgument) {
      return Internal("nonsense gave {}", status.ToString());
    }
  }
  return OkStatus();
}

Status ExpectTraffic(const Traffic& got, const Traffic& want,
                     std::string_view what) {
  if (got == want) return OkStatus();
  return Internal("{} counted {} bytes in {} messages, not {} in {}", what,
                  got.bytes, got.messages, want.bytes, want.messages);
}

Status CountsSends(const Communicator& comm) {
  const int p = comm.size();
  const int me = comm.rank();
  const Traffic before = comm.traffic();
  std::array<std::byte, 100> out{};
  std::array<std::byte, 100> in{};
  SP_RETURN_IF_ERROR(comm.SendRecv(out.data(), 100, (me + 1) % p, in.data(),
                                   100, (me + p - 1) % p));
  SP_RETURN_IF_ERROR(comm.SendRecv(out.data(), 0, (me + 1) % p, in.data(), 0,
                                   (me + p - 1) % p));
  SP_RETURN_IF_ERROR(comm.SendRecv(out.data(), 9, me, in.data(), 9, me));
  const Traffic expected =
      p == 1 ? Traffic{} : Traffic{.bytes = 100, .messages = 1};
  SP_RETURN_IF_ERROR(
      ExpectTraffic(comm.traffic() - before, expected, "a shift"));
  const Traffic then = comm.traffic();
  SP_RETURN_IF_ERROR(comm.Barrier());
  SP_RETURN_IF_ERROR(comm.ExchangeControl("x").status());
  return ExpectTraffic(comm.traffic() - then, {}, "control");
}

Status ControlText(const Communicator& comm) {
  for (const size_t bytes : {size_t{0}, size_t{5}, size_t{40000}}) {
    const std::string mine(bytes + comm.rank(),
                           static_cast<char>('a' + comm.rank() % 26));
    SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                        comm.ExchangeControl(mine));
    for (int r = 0; r < comm.size(); ++r) {
      if (all[r] != std::string(bytes + r, static_cast<char>('a' + r % 26))) {
        return Internal("the text of rank {} has {} bytes, or wrong ones", r,
                        all[r].size());
      }
    }
  }
  return OkStatus();
}

constexpr ConformanceCheck kChecks[] = {
    {"RingShift", &RingShift},           {"SendThenReceive", &SendThenReceive},
    {"ManyAtOnce", &ManyAtOnce},         {"InOrder", &InOrder},
    {"LengthMismatch", &LengthMismatch}, {"RefusesNonsense", &RefusesNonsense},
    {"CountsSends", &CountsSends},       {"ControlText", &ControlText},
};

}  // namespace

std::span<const ConformanceCheck> Messages() { return kChecks; }

}  // namespace shardproof::conformance
