#include "tools/harness/tensor_spec.h"

#include <utility>

namespace shardproof {

TensorSpec& TensorSpec::Terms(ReduceOp op, int64_t terms) {
  data.op = op;
  data.terms = terms;
  return *this;
}

TensorSpec& TensorSpec::Data(TensorData value) {
  data = value;
  return *this;
}

TensorSpec& TensorSpec::InPlaceOf(std::string input) {
  return InPlaceOf(std::move(input), nullptr, /*input_is_part=*/false);
}

TensorSpec& TensorSpec::InPlaceOf(std::string input,
                                  std::function<int64_t(int rank)> offset,
                                  bool input_is_part) {
  if (input.empty()) return *this;
  alias = std::move(input);
  alias_offset = std::move(offset);
  alias_is_part = input_is_part;
  return *this;
}

TensorSpec& TensorSpec::Gradient() {
  gradient = true;
  return *this;
}

TensorSpec& TensorSpec::SampleDimension(int dimension) {
  sample_dimension = dimension;
  return *this;
}

TensorSpec& TensorSpec::GainUnchecked() {
  gain_checked = false;
  return *this;
}

TensorSpec& TensorSpec::SignOfZero() {
  sign_of_zero = true;
  return *this;
}

TensorSpec Input(std::string name, DType dtype, Shape shape,
                 Sharding sharding) {
  return {.name = std::move(name),
          .role = TensorRole::kInput,
          .dtype = dtype,
          .shape = shape,
          .sharding = std::move(sharding)};
}

TensorSpec Output(std::string name, DType dtype, Shape shape,
                  Sharding sharding) {
  TensorSpec spec = Input(std::move(name), dtype, shape, std::move(sharding));
  spec.role = TensorRole::kOutput;
  return spec;
}

const TensorSpec* FindTensor(const Tensors& tensors, std::string_view name) {
  for (const TensorSpec& t : tensors) {
    if (t.name == name) return &t;
  }
  return nullptr;
}

}  // namespace shardproof
