#include "collectives/interceptor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "collectives/communicator.h"

namespace shardproof {
namespace {

// Writes down every call.
class Recorder : public Interceptor {
 public:
  Status OnBegin(Op& op) override {
    Note("begin {} #{}", op.label.view(), op.sequence);
    return OkStatus();
  }
  void OnEnd(const Op& op) override {
    Note("end {} root {}", op.label.view(), op.root);
  }
  void OnDepart(const Op& op, int rank) override {
    Note("depart {} {}", op.label.view(), rank);
  }
  const std::byte* OnLoad(const Op& op, int rank, int peer,
                          const std::byte* data, size_t bytes) override {
    Note("load {} {}->{} {}", op.label.view(), rank, peer, bytes);
    return data;
  }
  std::byte* OnStore(const Op& op, int rank, int peer, std::byte* data,
                     size_t bytes) override {
    Note("store {} {}->{} {}", op.label.view(), rank, peer, bytes);
    return data;
  }
  void OnSend(const Op& op, int rank, int destination,
              std::span<const std::byte> payload) override {
    Note("send {} {}->{} {}", op.label.view(), rank, destination,
         payload.size());
  }
  void OnReceive(const Op& op, int rank, int source,
                 std::span<std::byte> payload) override {
    Note("receive {} {}<-{} {}", op.label.view(), rank, source, payload.size());
  }

  std::vector<std::string> Take() { return std::exchange(calls_, {}); }

 private:
  template <typename... Args>
  void Note(fmt::format_string<Args...> format, Args&&... args) {
    calls_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
  std::vector<std::string> calls_;
};

using Calls = std::vector<std::string>;

void RunTwo(const std::function<Status(const Communicator&)>& rank_main) {
  const Status status = RunThreads(2, rank_main);
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(InterceptorTest, SeesEverythingThatCrosses) {
  RunTwo([](const Communicator& comm) -> Status {
    Recorder recorder;
    comm.Intercept(&recorder);
    const int me = comm.rank(), other = 1 - me;
    int in = 0, out = me;
    {
      const OpScope op(comm, {.label = "op", .root = 1});
      SP_RETURN_IF_ERROR(op.status());
      SP_ASSIGN_OR_RETURN(const Peers peers, comm.Meet({&out, 4, &in, 4}));
      peers.Read(other, 0, 4);
      peers.Read(me, 0, 4);  // One's own is nobody's business.
      peers.Write(other, 0, 4);
      SP_RETURN_IF_ERROR(comm.Sync());
      peers.ReadBack(other, 0, 2);
      SP_RETURN_IF_ERROR(comm.Depart(peers));
    }
    EXPECT_EQ(recorder.Take(),
              (Calls{"begin op #1", fmt::format("load op {}->{} 4", me, other),
                     fmt::format("store op {}->{} 4", me, other),
                     fmt::format("load op {}->{} 2", me, other),
                     fmt::format("depart op {}", me), "end op root 1"}));

    SP_RETURN_IF_ERROR(comm.SendRecv(&out, 4, other, &in, 4, other));
    Calls calls = recorder.Take();
    EXPECT_EQ(calls, (Calls{fmt::format("send none {}->{} 4", me, other),
                            fmt::format("receive none {}<-{} 4", me, other)}));
    // Neither barriers nor control data.
    SP_RETURN_IF_ERROR(comm.Barrier());
    SP_RETURN_IF_ERROR(comm.ExchangeControl(std::string(40000, 'x')).status());
    EXPECT_EQ(recorder.Take(), Calls());
    comm.Intercept(nullptr);
    const OpScope op(comm, {.label = "unseen"});
    EXPECT_EQ(recorder.Take(), Calls());
    return op.status();
  });
}

TEST(InterceptorTest, IsInheritedByPartsSplitLater) {
  RunTwo([](const Communicator& comm) -> Status {
    Recorder recorder;
    SP_ASSIGN_OR_RETURN(const Communicator before, comm.Duplicate());
    comm.Intercept(&recorder);
    SP_ASSIGN_OR_RETURN(const Communicator after, comm.Duplicate());
    { const OpScope op(before, {.label = "before"}); }
    EXPECT_EQ(recorder.Take(), Calls());
    { const OpScope op(after, {.label = "after"}); }
    EXPECT_EQ(recorder.Take(), (Calls{"begin after #1", "end after root -1"}));
    return OkStatus();
  });
}

TEST(InterceptorTest, AFailedOperationDoesNotEnd) {
  RunTwo([](const Communicator& comm) -> Status {
    Recorder recorder;
    comm.Intercept(&recorder);
    {
      const OpScope outer(comm, {.label = "outer"});
      const OpScope inner(comm, {.label = "inner"});
      EXPECT_FALSE(comm.Send(nullptr, 1, 0).ok());
    }
    EXPECT_EQ(recorder.Take(), (Calls{"begin outer #1", "begin inner #2"}));
    { const OpScope next(comm, {.label = "next"}); }
    EXPECT_EQ(recorder.Take(), (Calls{"begin next #3", "end next root -1"}));
    return OkStatus();
  });
}

// Changes what it sees.
class Saboteur : public Interceptor {
 public:
  Status OnBegin(Op& op) override {
    if (op.label.view() == "refused") return Internal("refused by the test");
    if (op.root >= 0) ++op.root;
    return OkStatus();
  }
  const std::byte* OnLoad(const Op&, int, int, const std::byte*,
                          size_t) override {
    return reinterpret_cast<const std::byte*>(&doctored_);
  }
  std::byte* OnStore(const Op&, int, int, std::byte*, size_t) override {
    return redirected_;
  }
  void OnReceive(const Op&, int, int, std::span<std::byte> payload) override {
    std::reverse(payload.begin(), payload.end());
  }

 private:
  const int doctored_ = 4711;
  std::byte redirected_[4] = {};
};

TEST(InterceptorTest, MayChangeRootsBuffersAndMessages) {
  RunTwo([](const Communicator& comm) -> Status {
    Saboteur saboteur;
    comm.Intercept(&saboteur);
    const int other = 1 - comm.rank();
    const OpScope op(comm, {.label = "op", .root = 0});
    SP_RETURN_IF_ERROR(op.status());
    EXPECT_EQ(op.root(), 1);

    const int mine = 5;
    int into = 6;
    SP_ASSIGN_OR_RETURN(const Peers eager, comm.MeetEager(&mine, 4));
    EXPECT_EQ(*reinterpret_cast<const int*>(eager.Read(other, 0, 4)), 4711);
    EXPECT_EQ(*reinterpret_cast<const int*>(eager.Read(comm.rank(), 0, 4)), 5);
    SP_ASSIGN_OR_RETURN(const Peers peers, comm.Meet({&mine, 4, &into, 4}));
    EXPECT_EQ(*reinterpret_cast<const int*>(peers.Read(other, 0, 4)), 4711);
    EXPECT_EQ(*reinterpret_cast<const int*>(peers.ReadBack(other, 0, 4)), 4711);
    std::memset(peers.Write(other, 0, 4), 0xff, 4);
    SP_RETURN_IF_ERROR(comm.Depart(peers));
    EXPECT_EQ(into, 6);

    // Large and small, complete at once or later: changed once each.
    for (const size_t bytes : {size_t{4}, size_t{50000}}) {
      std::string out(bytes, 'x'), in(bytes, ' ');
      out.front() = 'a';
      SP_RETURN_IF_ERROR(
          comm.SendRecv(out.data(), bytes, other, in.data(), bytes, other));
      EXPECT_EQ(in.back(), 'a');
      EXPECT_EQ(in.front(), 'x');
      SP_RETURN_IF_ERROR(comm.Barrier());
      SP_RETURN_IF_ERROR(comm.Isend(out.data(), 4, other, 1).status());
      SP_RETURN_IF_ERROR(comm.Barrier());
      SP_ASSIGN_OR_RETURN(Request request, comm.Irecv(in.data(), 4, other, 1));
      SP_RETURN_IF_ERROR(comm.Wait(request));
      SP_RETURN_IF_ERROR(comm.Wait(request));
      EXPECT_EQ(in.substr(0, 4), "xxxa");
    }
    return OkStatus();
  });
}

TEST(InterceptorTest, ARefusedOperationWasNeverEntered) {
  RunTwo([](const Communicator& comm) -> Status {
    Saboteur saboteur;
    comm.Intercept(&saboteur);
    { const OpScope op(comm, {.label = "first"}); }
    {
      const OpScope op(comm, {.label = "refused"});
      EXPECT_EQ(op.status().message(), "refused by the test");
      EXPECT_EQ(comm.backend().Progress(comm.rank())->entered.load(), 1u);
    }
    const OpScope op(comm, {.label = "third"});
    EXPECT_EQ(comm.backend().Progress(comm.rank())->entered.load(), 3u);
    return op.status();
  });
}

}  // namespace
}  // namespace shardproof
