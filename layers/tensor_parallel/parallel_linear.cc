#include "layers/tensor_parallel/parallel_linear.h"

#include <string>

#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {

Status CheckParallelLinear(const Communicator& comm, const char* kind,
                           const ParallelLinearConfig& config) {
  const std::string text = fmt::format(
      "{} of {} tokens, {} to {}, {}{}{}{}{}", kind, config.tokens, config.in,
      config.out, Name(config.dtype), config.bias ? ", bias" : "",
      config.sequence_parallel ? ", sequence-parallel" : "",
      config.gather_output ? ", output gathered" : "",
      config.input_is_parallel ? "" : ", input whole");
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  if (config.tokens < 0 || config.in < 0 || config.out < 0) {
    return InvalidArgument("{}: a size is negative", text);
  }
  if (config.sequence_parallel &&
      (config.gather_output || !config.input_is_parallel)) {
    return Unsupported("{}: that is for layers that are not sequence-parallel",
                       text);
  }
  return CheckLayerType(config.dtype).WithContext(text);
}

}  // namespace shardproof
