#include "collectives/backend/thread/mailbox.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <numeric>
#include <thread>
#include <vector>

namespace shardproof {
namespace {

using std::chrono::milliseconds;

constexpr size_t kLarge = Channel::kPieceBytes * 5 + 123;

std::vector<std::byte> Pattern(size_t bytes, int seed) {
  std::vector<std::byte> data(bytes);
  uint32_t x = 12345u + seed;
  for (std::byte& b : data)
    b = static_cast<std::byte>((x = x * 1664525u + 1013904223u) >> 24);
  return data;
}

class Mailbox : public ::testing::TestWithParam<bool> {
 protected:
  AbortFlag abort_;
  const Waiting how_{.abort = &abort_, .spin = GetParam()};
  Channel channel_{3, 5};
};
INSTANTIATE_TEST_SUITE_P(SpinOrNot, Mailbox, ::testing::Bool());

TEST_P(Mailbox, SmallSendsNeverWait) {
  const std::vector<std::byte> first = Pattern(Channel::kSmallBytes, 1);
  std::vector<std::byte> data = first;
  const auto send = channel_.StartSend(data.data(), data.size(), 7, how_);
  ASSERT_TRUE(send.ok());
  EXPECT_EQ(*send, nullptr);                          // Complete,
  std::fill(data.begin(), data.end(), std::byte{0});  // so this is ours again.
  std::vector<std::byte> in(first.size());
  const auto receive = channel_.StartReceive(in.data(), in.size(), 7, how_);
  ASSERT_TRUE(receive.ok());
  EXPECT_EQ(*receive, nullptr);
  EXPECT_EQ(in, first);
}

TEST_P(Mailbox, ASmallSendFillsAPostedReceive) {
  const std::vector<std::byte> out = Pattern(100, 2);
  std::vector<std::byte> in(100);
  const auto receive = channel_.StartReceive(in.data(), in.size(), 7, how_);
  ASSERT_TRUE(receive.ok());
  ASSERT_NE(*receive, nullptr);
  auto done = channel_.Test(*receive, how_);
  ASSERT_TRUE(done.ok());
  EXPECT_FALSE(*done);
  ASSERT_EQ(*channel_.StartSend(out.data(), out.size(), 7, how_), nullptr);
  done = channel_.Test(*receive, how_);
  ASSERT_TRUE(done.ok());
  EXPECT_TRUE(*done);
  EXPECT_EQ(in, out);
}

TEST_P(Mailbox, EitherSideFinishesALargeMessageAlone) {
  const std::vector<std::byte> out = Pattern(kLarge, 3);
  for (const bool sender_first : {true, false}) {
    for (const bool sender_waits : {true, false}) {
      std::vector<std::byte> in(kLarge);
      Message* send = nullptr;
      if (sender_first) send = *channel_.StartSend(out.data(), kLarge, 0, how_);
      Message* const receive =
          *channel_.StartReceive(in.data(), kLarge, 0, how_);
      if (!sender_first)
        send = *channel_.StartSend(out.data(), kLarge, 0, how_);
      ASSERT_NE(send, nullptr);
      ASSERT_EQ(send, receive);
      EXPECT_TRUE(channel_.Wait(sender_waits ? send : receive, how_).ok());
      EXPECT_EQ(in, out);
      const auto other = channel_.Test(sender_waits ? receive : send, how_);
      ASSERT_TRUE(other.ok());
      EXPECT_TRUE(*other);
    }
  }
}

TEST_P(Mailbox, BothSidesCopyOneMessage) {
  const std::vector<std::byte> out = Pattern(kLarge, 4);
  std::vector<std::byte> in(kLarge);
  for (int round = 0; round < 50; ++round) {
    std::fill(in.begin(), in.end(), std::byte{0});
    std::thread sender([&] {
      const auto send = channel_.StartSend(out.data(), kLarge, round, how_);
      ASSERT_TRUE(send.ok());
      EXPECT_TRUE(channel_.Wait(*send, how_).ok());
    });
    const auto receive = channel_.StartReceive(in.data(), kLarge, round, how_);
    ASSERT_TRUE(receive.ok());
    EXPECT_TRUE(channel_.Wait(*receive, how_).ok());
    EXPECT_EQ(in, out);
    sender.join();
  }
}

TEST_P(Mailbox, TagsAreMatchedInOrder) {
  // Sent: tags 1 2 1 2. Received: 2 1 1 2.
  const int values[] = {10, 20, 11, 21};
  const int tags[] = {1, 2, 1, 2};
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(channel_.StartSend(&values[i], 4, tags[i], how_).ok());
  }
  const int order[] = {2, 1, 1, 2};
  const int expected[] = {20, 10, 11, 21};
  for (int i = 0; i < 4; ++i) {
    int value = 0;
    ASSERT_EQ(*channel_.StartReceive(&value, 4, order[i], how_), nullptr);
    EXPECT_EQ(value, expected[i]);
  }
  // The same with the receives first.
  int in[4] = {};
  Message* receives[4];
  for (int i = 0; i < 4; ++i) {
    receives[i] = *channel_.StartReceive(&in[i], 4, order[i], how_);
  }
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(channel_.StartSend(&values[i], 4, tags[i], how_).ok());
  }
  for (int i = 3; i >= 0; --i) {
    ASSERT_TRUE(channel_.Wait(receives[i], how_).ok());
    EXPECT_EQ(in[i], expected[i]);
  }
}

TEST_P(Mailbox, EmptyMessagesAreMessages) {
  ASSERT_EQ(*channel_.StartSend(nullptr, 0, 1, how_), nullptr);
  EXPECT_EQ(*channel_.StartReceive(nullptr, 0, 1, how_), nullptr);
}

TEST_P(Mailbox, BothSidesLearnThatLengthsDiffer) {
  constexpr std::string_view kSmall =
      "rank 3 sent 8 bytes with tag 9 to rank 5, which expected 12";
  std::vector<std::byte> big(kLarge);
  char out[8] = {}, in[12] = {};
  // A small send is over before anyone can know.
  ASSERT_TRUE(channel_.StartSend(out, 8, 9, how_).ok());
  auto receive = channel_.StartReceive(in, 12, 9, how_);
  EXPECT_EQ(receive.status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(receive.status().message(), kSmall);

  receive = channel_.StartReceive(in, 12, 9, how_);
  ASSERT_TRUE(receive.ok());
  EXPECT_EQ(channel_.StartSend(out, 8, 9, how_).status().message(), kSmall);
  EXPECT_EQ(channel_.Wait(*receive, how_).message(), kSmall);

  const auto send = channel_.StartSend(big.data(), kLarge, 9, how_);
  ASSERT_TRUE(send.ok());
  EXPECT_EQ(channel_.StartReceive(big.data(), 5000, 9, how_).status().code(),
            StatusCode::kDataLoss);
  const Status told = channel_.Wait(*send, how_);
  EXPECT_EQ(told.code(), StatusCode::kDataLoss);
  EXPECT_NE(told.message().find("which expected 5000"), std::string_view::npos);

  // The channel goes on.
  ASSERT_TRUE(channel_.StartSend(out, 8, 9, how_).ok());
  EXPECT_TRUE(channel_.StartReceive(in, 8, 9, how_).ok());
}

TEST_P(Mailbox, AbortEndsWaitsAndForgetsTheBuffers) {
  {
    std::vector<std::byte> in(100), out(kLarge);
    const auto receive = channel_.StartReceive(in.data(), 100, 1, how_);
    const auto send = channel_.StartSend(out.data(), kLarge, 2, how_);
    std::thread aborter([&] {
      std::this_thread::sleep_for(milliseconds(10));
      abort_.Raise("stop");
    });
    EXPECT_EQ(channel_.Wait(*receive, how_).message(), "stop");
    EXPECT_EQ(channel_.Wait(*send, how_).code(), StatusCode::kAborted);
    aborter.join();
  }
  // Nothing matches what was given up, with an unaborted peer either.
  AbortFlag other;
  const Waiting late{.abort = &other, .spin = true};
  char byte = 1;
  EXPECT_EQ(*channel_.StartSend(&byte, 1, 1, late), nullptr);
  const auto unmatched = channel_.StartReceive(&byte, 1, 2, late);
  ASSERT_TRUE(unmatched.ok());
  const auto done = channel_.Test(*unmatched, late);
  ASSERT_TRUE(done.ok());
  EXPECT_FALSE(*done);
  EXPECT_EQ(channel_.StartSend(&byte, 1, 1, how_).status().code(),
            StatusCode::kAborted);
}

TEST_P(Mailbox, NobodyCopiesIntoABufferThatWasGivenUp) {
  // The receiver leaves in the middle of a message. AddressSanitizer sees a
  // piece that comes too late.
  for (int round = 0; round < 60; ++round) {
    AbortFlag abort;
    const Waiting how{.abort = &abort, .spin = GetParam()};
    Channel channel(0, 1);
    const std::vector<std::byte> out(kLarge);
    std::thread sender([&] {
      const auto send = channel.StartSend(out.data(), kLarge, 0, how);
      if (send.ok()) static_cast<void>(channel.Wait(*send, how));
    });
    std::thread aborter([&] { abort.Raise("stop"); });
    {
      std::vector<std::byte> in(kLarge);
      const auto receive = channel.StartReceive(in.data(), kLarge, 0, how);
      if (receive.ok()) {
        StatusOr<bool> done = false;
        while (done.ok() && !*done) done = channel.Test(*receive, how);
        EXPECT_TRUE(done.ok() || done.status().code() == StatusCode::kAborted);
      }
    }
    sender.join();
    aborter.join();
  }
}

TEST_P(Mailbox, ManyInFlight) {
  constexpr int kMessages = 600;
  std::thread sender([&] {
    std::deque<std::vector<std::byte>> buffers;
    std::vector<Message*> sends;
    for (int i = 0; i < kMessages; ++i) {
      const auto& data =
          buffers.emplace_back(Pattern(i % 7 == 0 ? 9000 : i % 50 + 4, i));
      const auto send =
          channel_.StartSend(data.data(), data.size(), i % 3, how_);
      ASSERT_TRUE(send.ok());
      if (*send != nullptr) sends.push_back(*send);
    }
    for (Message* send : sends) EXPECT_TRUE(channel_.Wait(send, how_).ok());
  });
  for (const int tag : {2, 0, 1}) {
    for (int i = tag; i < kMessages; i += 3) {
      std::vector<std::byte> in(i % 7 == 0 ? 9000 : i % 50 + 4);
      const auto receive =
          channel_.StartReceive(in.data(), in.size(), tag, how_);
      ASSERT_TRUE(receive.ok());
      if (*receive != nullptr) {
        ASSERT_TRUE(channel_.Wait(*receive, how_).ok());
      }
      ASSERT_EQ(in, Pattern(in.size(), i)) << "message " << i;
    }
  }
  sender.join();
}

}  // namespace
}  // namespace shardproof
