#include "reference/tensor.h"

#include <gtest/gtest.h>

#include <limits>

namespace shardproof {
namespace {

TEST(Shape, ElementsAndCoordinates) {
  const Shape shape = {2, 3, 5};
  EXPECT_EQ(shape.NumElements(), 30);
  EXPECT_EQ(shape.ToString(), "[2, 3, 5]");
  EXPECT_EQ(Coordinates(shape, 29), (Shape{1, 2, 4}));
  EXPECT_EQ(Coordinates(shape, 16), (Shape{1, 0, 1}));
  EXPECT_EQ(Shape().NumElements(), 1);
  EXPECT_EQ((Shape{4, 0}).NumElements(), 0);
  EXPECT_FALSE(shape == (Shape{2, 3}));
}

TEST(Tensor, AlignedAndTyped) {
  for (DType d : kAllDTypes) {
    Tensor t(d, Shape{3, 7});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(t.raw()) % 64, 0u);
    EXPECT_EQ(t.bytes().size(), static_cast<size_t>(21 * SizeOf(d)));
    EXPECT_EQ(t.view().num_bytes(), t.num_bytes());
  }
  Tensor z = Tensor::Zeros(DType::kF32, Shape{4});
  z.data<float>()[2] = 5;
  const ConstTensorView view = z.view();
  EXPECT_EQ(view.as<float>()[2], 5);
  EXPECT_EQ(view.as<float>()[3], 0);
}

TEST(Tensor, CreateRefusesWhatCannotBe) {
  EXPECT_TRUE(Tensor::Create(DType::kI8, Shape{0}).ok());
  EXPECT_EQ(Tensor::Create(DType::kF32, Shape{-1}).status().code(),
            StatusCode::kInvalidArgument);
  const int64_t big = std::numeric_limits<int64_t>::max() / 2;
  EXPECT_EQ(Tensor::Create(DType::kF32, Shape{big}).status().code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace shardproof
