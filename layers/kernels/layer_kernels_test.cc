// That the functions of this folder ask the kernels of their rank first, each
// the one of its name, and compute on the host what these leave to it.
#include "layers/kernels/layer_kernels.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "collectives/rank_context.h"
#include "layers/kernels/activation.h"

namespace shardproof {
namespace {

// Says by name what it was asked for, and leaves it to the host or answers.
class Asked final : public LayerKernels {
 public:
  explicit Asked(Done answer) : answer_(std::move(answer)) {}
  const std::vector<std::string>& names() const { return names_; }
  std::thread::id thread() const { return thread_; }

  Done Gelu(DType, int64_t, const void*, void*) override { return Say("Gelu"); }
  Done GeluBackward(DType, int64_t, const void*, const void*, void*) override {
    return Say("GeluBackward");
  }
  Done SwiGlu(DType, int64_t, const void*, const void*, void*) override {
    return Say("SwiGlu");
  }
  Done SwiGluBackward(DType, int64_t, const void*, const void*, const void*,
                      void*, void*) override {
    return Say("SwiGluBackward");
  }
  Done ColumnSum(DType, int64_t, int64_t, const void*, void*) override {
    return Say("ColumnSum");
  }
  Done AddBias(DType, int64_t, int64_t, const void*, void*) override {
    return Say("AddBias");
  }
  Done CrossEntropyLocal(const CrossEntropyShape&, const void*, const int64_t*,
                         void*, void*) override {
    return Say("CrossEntropyLocal");
  }
  Done CrossEntropyRescale(const CrossEntropyShape&, const void*,
                           const int64_t*, const void*, const void*,
                           void*) override {
    return Say("CrossEntropyRescale");
  }
  Done CrossEntropyLoss(const CrossEntropyShape&, const int64_t*, void*, void*,
                        double* total) override {
    *total += answer_.has_value() ? 42 : 0;
    return Say("CrossEntropyLoss");
  }
  Done CrossEntropyGradient(const CrossEntropyShape&, const void*,
                            const int64_t*, const void*, const void*,
                            const CrossEntropyUpstream&, void*) override {
    return Say("CrossEntropyGradient");
  }
  Done Dropout(const DropoutArgs&) override { return Say("Dropout"); }
  Done EmbeddingLookup(const EmbeddingShape&, const int64_t*, const void*,
                       void*) override {
    return Say("EmbeddingLookup");
  }
  Done EmbeddingGradient(const EmbeddingShape&, const int64_t*, const void*,
                         bool, const EmbeddingScratch&, void*) override {
    return Say("EmbeddingGradient");
  }
  Done Gemm(const GemmArgs&) override { return Say("Gemm"); }
  Done GatherRows(DType, const GatherRowsArgs&) override {
    return Say("GatherRows");
  }
  Done CombineRows(DType, const CombineRowsArgs&) override {
    return Say("CombineRows");
  }
  Done RowDots(DType, const RowDotsArgs&) override { return Say("RowDots"); }
  Done Normalize(const NormRows&, const NormalizeArgs&) override {
    return Say("Normalize");
  }
  Done NormalizeBackward(const NormRows&,
                         const NormalizeBackwardArgs&) override {
    return Say("NormalizeBackward");
  }
  Done RoundSums(DType, int64_t, const void*, void*) override {
    return Say("RoundSums");
  }
  Done AddSquares(DType, int64_t, const void*, SquareSum*) override {
    return Say("AddSquares");
  }
  Done SgdStep(const SgdArgs&) override { return Say("SgdStep"); }
  Done AdamStep(const AdamArgs&) override { return Say("AdamStep"); }
  Done WidenParameters(DType, int64_t, const void*, void*) override {
    return Say("WidenParameters");
  }
  Done Rope(const RopeTable&, RopeDirection, const RopeArgs&) override {
    return Say("Rope");
  }
  Done Softmax(const SoftmaxShape&, void*, void*) override {
    return Say("Softmax");
  }
  Done SoftmaxBackward(const SoftmaxShape&, const void*, const void*,
                       void*) override {
    return Say("SoftmaxBackward");
  }

 private:
  Done Say(const char* name) {
    names_.emplace_back(name);
    thread_ = std::this_thread::get_id();
    return answer_;
  }

  const Done answer_;
  std::vector<std::string> names_;
  std::thread::id thread_;
};

// Two rows of two columns of f32, and everything else that a function takes.
struct Memory {
  std::vector<float> a = {1, 2, 3, 4}, b = {5, 6, 7, 8}, c = {1, 1, 2, 2};
  std::vector<float> max = {4, 8}, inverse = {0.5, 0.25};
  std::vector<float> out = std::vector<float>(4, -1);
  std::vector<float> more = std::vector<float>(4, -1);
  std::vector<int64_t> ids = {1, 0}, order = {-1, -1}, starts = {-1, -1, -1};
  SquareSum squares;
  double total = -1;

  bool operator==(const Memory& o) const {
    return a == o.a && b == o.b && c == o.c && max == o.max &&
           inverse == o.inverse && out == o.out && more == o.more &&
           squares.sum == o.squares.sum && total == o.total;
  }
};

using Call = std::function<Status(const Stream&, Memory&)>;
struct Function {
  std::string name;
  Call call;
};

// Each writes something on the host.
std::vector<Function> Functions() {
  constexpr DType kF32 = DType::kF32;
  const CrossEntropyShape loss = {
      .tokens = 2, .columns = 2, .valid = 2, .vocabulary = 2};
  const EmbeddingShape embedding = {.tokens = 2, .hidden = 2, .rows = 2};
  const NormRows rows = {.rows = 2, .columns = 2};
  const SoftmaxShape softmax = {.rows = 2, .columns = 2};
  const auto tensors = [](Memory& m) {
    return UpdateTensors{.n = 4,
                         .parameter = m.out.data(),
                         .gradient = m.a.data(),
                         .first = m.b.data(),
                         .second = m.c.data()};
  };
  const auto table = std::make_shared<RopeTable>(
      *RopeTable::Create({.head_dim = 2}, std::vector<int64_t>{1, 2}));
  const Shape square = {2, 2};
  return {
      {"Gelu",
       [](const Stream& s, Memory& m) {
         return Gelu(s, kF32, 4, m.a.data(), m.out.data());
       }},
      {"GeluBackward",
       [](const Stream& s, Memory& m) {
         return GeluBackward(s, kF32, 4, m.a.data(), m.b.data(), m.out.data());
       }},
      {"SwiGlu",
       [](const Stream& s, Memory& m) {
         return SwiGlu(s, kF32, 4, m.a.data(), m.b.data(), m.out.data());
       }},
      {"SwiGluBackward",
       [](const Stream& s, Memory& m) {
         return SwiGluBackward(s, kF32, 4, m.a.data(), m.b.data(), m.c.data(),
                               m.out.data(), m.more.data());
       }},
      {"ColumnSum",
       [](const Stream& s, Memory& m) {
         return ColumnSum(s, kF32, 2, 2, m.a.data(), m.out.data());
       }},
      {"AddBias",
       [](const Stream& s, Memory& m) {
         return AddBias(s, kF32, 2, 2, m.a.data(), m.out.data());
       }},
      {"CrossEntropyLocal",
       [=](const Stream&, Memory& m) {
         return CrossEntropyLocal(loss, m.a.data(), m.ids.data(), m.out.data(),
                                  m.more.data());
       }},
      {"CrossEntropyRescale",
       [=](const Stream&, Memory& m) {
         return CrossEntropyRescale(loss, m.a.data(), m.ids.data(),
                                    m.inverse.data(), m.max.data(),
                                    m.out.data());
       }},
      {"CrossEntropyLoss",
       [=](const Stream&, Memory& m) -> Status {
         SP_ASSIGN_OR_RETURN(
             m.total,
             CrossEntropyLoss(loss, m.ids.data(), m.b.data(), m.out.data()));
         return OkStatus();
       }},
      {"CrossEntropyGradient",
       [=](const Stream&, Memory& m) {
         return CrossEntropyGradient(loss, m.a.data(), m.ids.data(),
                                     m.max.data(), m.inverse.data(),
                                     {.upstream = m.c.data()}, m.out.data());
       }},
      {"Dropout",
       [](const Stream& s, Memory& m) {
         return Dropout(s, {.rows = 2,
                            .columns = 2,
                            .row_stride = 2,
                            .probability = 0.5,
                            .x = m.a.data(),
                            .y = m.out.data()});
       }},
      {"EmbeddingLookup",
       [=](const Stream& s, Memory& m) {
         return EmbeddingLookup(s, embedding, m.ids.data(), m.a.data(),
                                m.out.data());
       }},
      {"EmbeddingGradient",
       [=](const Stream& s, Memory& m) {
         return EmbeddingGradient(s, embedding, m.ids.data(), m.a.data(), false,
                                  {m.order, m.starts}, m.out.data());
       }},
      {"Gemm",
       [=](const Stream& s, Memory& m) {
         return Gemm(s, {.a = {DType::kF32, square, m.a.data()},
                         .b = {DType::kF32, square, m.b.data()},
                         .c = {DType::kF32, square, m.out.data()}});
       }},
      {"GatherRows",
       [](const Stream& s, Memory& m) {
         return GatherRows(s, kF32,
                           {.rows = 2,
                            .width = 2,
                            .source = m.a.data(),
                            .index = m.ids.data(),
                            .out = m.out.data()});
       }},
      {"CombineRows",
       [](const Stream& s, Memory& m) {
         return CombineRows(s, kF32,
                            {.tokens = 2,
                             .k = 1,
                             .width = 2,
                             .source = m.a.data(),
                             .place = m.ids.data(),
                             .out = m.out.data()});
       }},
      {"RowDots",
       [](const Stream& s, Memory& m) {
         return RowDots(s, kF32,
                        {.tokens = 2,
                         .k = 1,
                         .width = 2,
                         .y = m.a.data(),
                         .source = m.b.data(),
                         .place = m.ids.data(),
                         .dots = m.out.data()});
       }},
      {"Normalize",
       [=](const Stream& s, Memory& m) {
         return Normalize(s, rows,
                          {.x = m.a.data(),
                           .weight = m.b.data(),
                           .y = m.out.data(),
                           .mean = m.more.data(),
                           .inverse = m.more.data() + 2});
       }},
      {"NormalizeBackward",
       [=](const Stream& s, Memory& m) {
         return NormalizeBackward(s, rows,
                                  {.z = m.a.data(),
                                   .weight = m.b.data(),
                                   .dy = m.c.data(),
                                   .mean = m.max.data(),
                                   .inverse = m.inverse.data(),
                                   .dx = m.out.data(),
                                   .dweight = m.more.data()});
       }},
      {"RoundSums",
       [](const Stream& s, Memory& m) {
         return RoundSums(s, kF32, 4, m.a.data(), m.out.data());
       }},
      {"AddSquares",
       [](const Stream& s, Memory& m) {
         return AddSquares(s, kF32, 4, m.a.data(), &m.squares);
       }},
      {"SgdStep",
       [=](const Stream& s, Memory& m) {
         return SgdStep(s, {.tensors = tensors(m), .learning_rate = 0.5});
       }},
      {"AdamStep",
       [=](const Stream& s, Memory& m) {
         return AdamStep(
             s, {.tensors = tensors(m), .epsilon = 1, .step_size = 0.5});
       }},
      {"WidenParameters",
       [](const Stream& s, Memory& m) {
         return WidenParameters(s, kF32, 4, m.a.data(), m.out.data());
       }},
      {"Rope",
       [=](const Stream& s, Memory& m) {
         return Rope(s, *table, RopeDirection::kForward,
                     {.tokens = 2, .heads = 1, .stride = 2, .x = m.out.data()});
       }},
      {"Softmax",
       [=](const Stream& s, Memory& m) {
         return Softmax(s, softmax, m.a.data(), m.out.data());
       }},
      {"SoftmaxBackward",
       [=](const Stream& s, Memory& m) {
         return SoftmaxBackward(s, softmax, m.a.data(), m.b.data(),
                                m.out.data());
       }},
  };
}

std::shared_ptr<Asked> Install(LayerKernels::Done answer) {
  auto asked = std::make_shared<Asked>(std::move(answer));
  auto context = std::make_shared<RankServices>();
  context->Put<LayerKernels>(asked);
  SetCurrentContext(std::move(context));
  return asked;
}

class LayerKernelsTest : public ::testing::Test {
 protected:
  ~LayerKernelsTest() override { SetCurrentContext(nullptr); }
};

TEST_F(LayerKernelsTest, EachFunctionAsksForItselfAndTakesTheAnswer) {
  for (const Function& f : Functions()) {
    SCOPED_TRACE(f.name);
    const auto asked = Install(OkStatus());
    Memory memory;
    const Status status = f.call(Stream::Inline(), memory);
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(asked->names(), std::vector<std::string>{f.name});
    // Nothing was computed here.
    Memory untouched;
    if (f.name == "CrossEntropyLoss") untouched.total = 42;
    EXPECT_TRUE(memory == untouched);
  }
}

TEST_F(LayerKernelsTest, AnErrorIsTheFunctions) {
  for (const Function& f : Functions()) {
    const auto asked = Install(Internal("the GPU is gone"));
    Memory memory;
    const Status status = f.call(Stream::Inline(), memory);
    EXPECT_EQ(status.message(), "the GPU is gone") << f.name;
    EXPECT_TRUE(memory == Memory()) << f.name;
  }
}

TEST_F(LayerKernelsTest, WhatIsLeftToTheHostIsTheHosts) {
  for (const Function& f : Functions()) {
    SCOPED_TRACE(f.name);
    SetCurrentContext(nullptr);
    Memory want;
    ASSERT_TRUE(f.call(Stream::Inline(), want).ok());
    EXPECT_FALSE(want == Memory()) << "shows nothing";
    const auto asked = Install(LayerKernels::kLeftToHost);
    Memory got;
    const Status status = f.call(Stream::Inline(), got);
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(asked->names(), std::vector<std::string>{f.name});
    EXPECT_TRUE(got == want);
  }
}

// Who has none leaves everything to the host.
TEST_F(LayerKernelsTest, TheInterfaceItselfHasNoKernels) {
  auto context = std::make_shared<RankServices>();
  context->Put<LayerKernels>(std::make_shared<LayerKernels>());
  for (const Function& f : Functions()) {
    SetCurrentContext(nullptr);
    Memory want, got;
    ASSERT_TRUE(f.call(Stream::Inline(), want).ok());
    SetCurrentContext(context);
    ASSERT_TRUE(f.call(Stream::Inline(), got).ok());
    EXPECT_TRUE(got == want) << f.name;
  }
}

// What is queued is computed by the kernels of the rank that queues it, on the
// thread of the stream.
TEST_F(LayerKernelsTest, QueuedWorkTakesTheKernelsAlong) {
  auto stream = Stream::Create("kernels");
  ASSERT_TRUE(stream.ok());
  const auto asked = Install(OkStatus());
  Memory memory;
  ASSERT_TRUE(
      Gelu(*stream, DType::kF32, 4, memory.a.data(), memory.out.data()).ok());
  ASSERT_TRUE(stream->Synchronize().ok());
  EXPECT_EQ(asked->names(), std::vector<std::string>{"Gelu"});
  EXPECT_NE(asked->thread(), std::this_thread::get_id());
  EXPECT_TRUE(memory == Memory());
}

}  // namespace
}  // namespace shardproof
