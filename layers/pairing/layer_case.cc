#include "layers/pairing/layer_case.h"

namespace shardproof {

Status Scale(const TensorView& tensor, double factor) {
  std::vector<double> values(static_cast<size_t>(tensor.num_elements()));
  ToDouble(tensor.dtype, tensor.data, tensor.num_elements(), values.data());
  for (double& v : values) v *= factor;
  FromDouble(tensor.dtype, values.data(), tensor.num_elements(), tensor.data);
  return OkStatus();
}

Rows RowsOf(const Sample& sample, std::string_view output) {
  const auto found = sample.find(output);
  return found == sample.end() ? Rows{} : found->second;
}

int64_t ShapeOf(const Workload& workload, std::string_view name) {
  const auto found = workload.shape.find(std::string(name));
  return found == workload.shape.end() ? 0 : found->second;
}

std::string FactOf(const Workload& workload, std::string_view name) {
  const auto found = workload.facts.find(std::string(name));
  return found == workload.facts.end() ? "" : found->second;
}

StatusOr<DType> TypeOf(const Workload& workload) {
  return ParseDType(FactOf(workload, "dtype"));
}

}  // namespace shardproof
