// Where a request's buffers lie in shared memory, and that every field of it
// arrives. How many bytes each primitive touches is tested by rank_process_test,
// with the primitives themselves.
#include "collectives/backend/nccl/process/staging.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <vector>

#include "collectives/backend/nccl/process/rank_protocol.h"

namespace shardproof {
namespace {

alignas(512) std::array<std::byte, 4096> memory;

TEST(StagingTest, PartsAreApartAndAlignedAsTheyWere) {
  const StagedRequest staged = Stage({.primitive = "all_reduce",
                                      .send = &memory[4],
                                      .recv = &memory[2056],
                                      .count = 10},
                                     0, 2);
  const Staging& s = staged.staging;
  EXPECT_EQ(s.send_at % 512, 4);
  EXPECT_EQ(s.recv_at % 512, 8);
  EXPECT_GE(s.send_at, 512);
  EXPECT_GE(s.recv_at, s.send_at + 40 + 512);
  EXPECT_GE(s.bytes, static_cast<size_t>(s.recv_at) + 40 + 512);
  EXPECT_EQ(s.returned_at, static_cast<size_t>(s.recv_at));
  EXPECT_EQ(s.returned_bytes, 40u);
}

TEST(StagingTest, PartsThatOverlapAreOne) {
  // Of a reduce_scatter in place, rank 1's block lies in what it sends.
  const StagedRequest staged = Stage({.primitive = "reduce_scatter",
                                      .send = &memory[0],
                                      .recv = &memory[40],
                                      .count = 10,
                                      .in_place = true},
                                     1, 2);
  EXPECT_EQ(staged.staging.recv_at, staged.staging.send_at + 40);
  EXPECT_EQ(staged.staging.returned_bytes, 80u);
  EXPECT_EQ(staged.parts[1].bytes, 0u);
}

TEST(StagingTest, NeighboursDoNotOverlap) {
  const StagedRequest staged = Stage({.primitive = "all_reduce",
                                      .send = &memory[0],
                                      .recv = &memory[40],
                                      .count = 10},
                                     0, 2);
  EXPECT_EQ(staged.staging.returned_bytes, 40u);
  EXPECT_FALSE(staged.parts[0].returned);
}

// A rank that does not receive may have any address there.
TEST(StagingTest, WhatIsNotTouchedIsNotCopied) {
  auto* const nowhere = reinterpret_cast<std::byte*>(uintptr_t{64});
  const StagedRequest staged = Stage({.primitive = "reduce",
                                      .send = &memory[0],
                                      .recv = nowhere,
                                      .count = 10,
                                      .root = 1,
                                      .in_place = true},
                                     0, 2);
  std::vector<std::byte> block(staged.staging.bytes);
  staged.CopyIn(block.data());
  staged.CopyOut(block.data());
  EXPECT_EQ(staged.staging.returned_bytes, 0u);
  EXPECT_NE(staged.staging.recv_at, Staging::kNull);
  EXPECT_EQ(Stage({.primitive = "reduce", .send = &memory[0], .root = 1}, 0, 2)
                .staging.recv_at,
            Staging::kNull);
}

TEST(StagingTest, CountsThatCannotBeTouchNothing) {
  const std::vector<int64_t> three = {1, 2, 3};
  const std::vector<int64_t> negative = {1, -2};
  for (const NativeRequest& request : {
           NativeRequest{.primitive = "all_reduce", .count = -1},
           NativeRequest{.primitive = "broadcast", .count = 1, .root = 2},
           NativeRequest{.primitive = "all_gather_v", .recv_counts = three},
           NativeRequest{.primitive = "all_to_all_v",
           .send_counts = negative,
           .recv_counts = negative},
           NativeRequest{.primitive = "sort", .count = 1},
       }) {
    const RequestBytes bytes = BytesOf(request, 0, 2);
    EXPECT_EQ(bytes.send, 0u) << request.primitive;
    EXPECT_EQ(bytes.recv, 0u) << request.primitive;
  }
}

TEST(StagingTest, TheRestIsWhatIsNotReturned) {
  Staging staging;
  staging.bytes = 8;
  staging.returned_at = 2;
  staging.returned_bytes = 3;
  const std::array<std::byte, 8> one = {};
  for (size_t at = 0; at < one.size(); ++at) {
    std::array<std::byte, 8> other = {};
    other[at] = std::byte{1};
    EXPECT_EQ(staging.RestIsEqual(one.data(), other.data()), at >= 2 && at < 5);
  }
}

TEST(RankProtocolTest, EveryFieldArrives) {
  const std::vector<int64_t> lists[] = {{1, 2}, {3}, {}, {4, 5, 6}};
  Staging staging;
  staging.bytes = 4096;
  staging.send_at = 512;
  const NativeRequest sent{.primitive = "all_to_all_v",
                           .count = int64_t{1} << 40,
                           .dtype = DType::kBF16,
                           .op = ReduceOp::kPremulSum,
                           .root = 3,
                           .scale = 0.1,
                           .destination = 5,
                           .source = 6,
                           .in_place = true,
                           .send_counts = lists[0],
                           .send_offsets = lists[1],
                           .recv_counts = lists[2],
                           .recv_offsets = lists[3]};
  const auto got = DecodeMessage(Encode(sent, staging));
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  const NativeRequest& request = (*got)->request;
  EXPECT_EQ((*got)->call, RankCall::kRun);
  EXPECT_EQ((*got)->staging.bytes, 4096u);
  EXPECT_EQ((*got)->staging.send_at, 512);
  EXPECT_EQ((*got)->staging.recv_at, Staging::kNull);
  EXPECT_EQ(request.primitive, sent.primitive);
  EXPECT_EQ(request.count, sent.count);
  EXPECT_EQ(request.dtype, sent.dtype);
  EXPECT_EQ(request.op, sent.op);
  EXPECT_EQ(request.root, sent.root);
  EXPECT_EQ(request.scale, sent.scale);
  EXPECT_EQ(request.destination, sent.destination);
  EXPECT_EQ(request.source, sent.source);
  EXPECT_EQ(request.in_place, sent.in_place);
  const std::span<const int64_t> received[] = {
      request.send_counts, request.send_offsets, request.recv_counts,
      request.recv_offsets};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(std::vector(received[i].begin(), received[i].end()), lists[i]);
  }
}

TEST(RankProtocolTest, AMessageThatIsCutIsNoMessage) {
  const RankSetup setup{.library = "/a/library.so"};
  MessageBytes bytes = Encode(setup);
  EXPECT_EQ((*DecodeMessage(bytes))->setup.library, setup.library);
  while (bytes.size() > 1) {
    bytes.pop_back();
    EXPECT_EQ(DecodeMessage(bytes).status().code(), StatusCode::kInternal);
  }
  EXPECT_EQ(DecodeAnswer({}).status().code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace shardproof
