// Products of matrices, by a library.
#include <optional>

#include "layers/kernels/cuda/device/layer_kernels_on_gpu.h"

namespace shardproof::cuda {

LayerKernels::Done LayerKernelsOnGpu::Gemm(const GemmArgs& args) {
  const int64_t columns = args.c.shape[1];
  if (args.c.shape.NumElements() == 0) return kLeftToHost;
  if (shared_->gemm == nullptr) {
    ++shared_->left;
    return kLeftToHost;
  }
  const auto bytes = [](const auto& matrix) {
    return matrix.shape.NumElements() * SizeOf(matrix.dtype);
  };
  GpuCall call(shared_->lanes, &health_);
  GemmArgs here = args;
  here.a.data = call.In(args.a.data, bytes(args.a));
  here.b.data = call.In(args.b.data, bytes(args.b));
  here.bias = call.In(args.bias, columns * SizeOf(args.c.dtype));
  here.c.data = args.accumulate ? call.InOut(args.c.data, bytes(args.c))
                                : call.Out(args.c.data, bytes(args.c));
  bool possible = true;
  call.Queue("a product of matrices", [&](GpuStream& stream) {
    const std::optional<Status> queued = shared_->gemm->Gemm(stream, here);
    possible = queued.has_value();
    return possible ? *queued : Unsupported("none of this kind");
  });
  const Status done = call.Finish();
  if (possible) return done;
  ++shared_->left;
  return kLeftToHost;
}

}  // namespace shardproof::cuda
