// Cross entropies, embeddings and the rows of a mixture of experts.
#include <algorithm>

#include "layers/kernels/cuda/cross_entropy.h"
#include "layers/kernels/cuda/device/layer_kernels_on_gpu.h"
#include "layers/kernels/cuda/embedding.h"
#include "layers/kernels/cuda/moe.h"

namespace shardproof::cuda {
namespace {

constexpr int64_t kWide = sizeof(float);
constexpr int64_t kId = sizeof(int64_t);

using Done = LayerKernels::Done;

// How many bytes of rows the indices reach; nobody says how many rows there
// are. 0 where nothing has to be staged.
int64_t ReachedBytes(const GpuCall& call, const void* source,
                     const int64_t* index, int64_t n, int64_t row_bytes) {
  if (call.Addresses(source)) return 0;
  const int64_t* const last = std::max_element(index, index + n);
  return n == 0 || *last < 0 ? 0 : (*last + 1) * row_bytes;
}

}  // namespace

// --- cross_entropy.h --------------------------------------------------------

Done LayerKernelsOnGpu::CrossEntropyLocal(const CrossEntropyShape& shape,
                                          const void* logits,
                                          const int64_t* targets,
                                          void* local_max, void* sums) {
  const int64_t tokens = shape.tokens;
  if (tokens == 0 || !Takes(shape.dtype, shape.columns)) return kLeftToHost;
  GpuCall call(shared_->lanes, &health_);
  CrossEntropyRows rows;
  rows.logits = call.In(logits, tokens * shape.columns * SizeOf(shape.dtype));
  rows.targets = call.In(targets, tokens * kId);
  rows.local_max = static_cast<float*>(call.Out(local_max, tokens * kWide));
  rows.sums = static_cast<float*>(call.Out(sums, 2 * tokens * kWide));
  Launch(call, LayerKernel::kCrossEntropyLocal, shape.dtype,
         RowLaunch(tokens, shape.valid, SizeOf(shape.dtype)), shape, rows);
  return call.Finish();
}

Done LayerKernelsOnGpu::CrossEntropyRescale(const CrossEntropyShape& shape,
                                            const void* logits,
                                            const int64_t* targets,
                                            const void* local_max,
                                            const void* max, void* sums) {
  const int64_t tokens = shape.tokens;
  if (tokens == 0 || !Takes(shape.dtype, shape.columns)) return kLeftToHost;
  GpuCall call(shared_->lanes, &health_);
  CrossEntropyRows rows;
  rows.logits = call.In(logits, tokens * shape.columns * SizeOf(shape.dtype));
  rows.targets = call.In(targets, tokens * kId);
  // The kernel reads it; the one before it writes it.
  rows.local_max = static_cast<float*>(
      const_cast<void*>(call.In(local_max, tokens * kWide)));
  rows.max = static_cast<const float*>(call.In(max, tokens * kWide));
  rows.sums = static_cast<float*>(call.InOut(sums, 2 * tokens * kWide));
  Launch(call, LayerKernel::kCrossEntropyRescale, shape.dtype,
         ShapeOf(tokens, kVectorBytes), shape, rows);
  return call.Finish();
}

Done LayerKernelsOnGpu::CrossEntropyLoss(const CrossEntropyShape& shape,
                                         const int64_t* targets, void* sums,
                                         void* loss, double* total) {
  const int64_t tokens = shape.tokens;
  if (tokens == 0 || !Takes(shape.dtype)) return kLeftToHost;
  // Written after all else, so that a call that fails adds nothing.
  double sum = 0;
  GpuCall call(shared_->lanes, &health_);
  CrossEntropyRows rows;
  rows.targets = call.In(targets, tokens * kId);
  rows.sums = static_cast<float*>(call.InOut(sums, 2 * tokens * kWide));
  rows.loss = static_cast<float*>(call.Out(loss, tokens * kWide));
  rows.total = call.Out(&sum, sizeof(sum));
  Launch(call, LayerKernel::kCrossEntropyLoss, shape.dtype,
         LaunchShape{1, RowThreads(tokens, kVectorBytes, 1)}, shape, rows);
  Status status = call.Finish();
  if (status.ok()) *total += sum;
  return status;
}

Done LayerKernelsOnGpu::CrossEntropyGradient(
    const CrossEntropyShape& shape, const void* logits, const int64_t* targets,
    const void* max, const void* inverse_sums,
    const CrossEntropyUpstream& upstream, void* dlogits) {
  const int64_t tokens = shape.tokens;
  const int64_t bytes = tokens * shape.columns * SizeOf(shape.dtype);
  if (bytes == 0 || !Takes(shape.dtype, shape.columns)) return kLeftToHost;
  GpuCall call(shared_->lanes, &health_);
  CrossEntropyRows rows;
  rows.logits = call.In(logits, bytes);
  rows.targets = call.In(targets, tokens * kId);
  rows.max = static_cast<const float*>(call.In(max, tokens * kWide));
  rows.inverse_sums =
      static_cast<const float*>(call.In(inverse_sums, tokens * kWide));
  rows.upstream = upstream;
  rows.upstream.upstream =
      call.In(upstream.upstream, (upstream.per_token ? tokens : 1) * kWide);
  rows.dlogits = call.Out(dlogits, bytes);
  Launch(call, LayerKernel::kCrossEntropyGradient, shape.dtype,
         RowLaunch(tokens, shape.columns, SizeOf(shape.dtype)), shape, rows);
  return call.Finish();
}

// --- embedding.h ------------------------------------------------------------

Done LayerKernelsOnGpu::EmbeddingLookup(const EmbeddingShape& shape,
                                        const int64_t* ids, const void* table,
                                        void* y) {
  const int64_t row = shape.hidden * SizeOf(shape.dtype);
  if (shape.tokens == 0 || row == 0) return kLeftToHost;
  if (!Takes(shape.dtype, shape.hidden)) return kLeftToHost;
  GpuCall call(shared_->lanes, &health_);
  EmbeddingRows rows;
  rows.ids = call.In(ids, shape.tokens * kId);
  rows.table = call.In(table, shape.rows * row);
  rows.y = call.Out(y, shape.tokens * row);
  Launch(call, LayerKernel::kEmbeddingLookup, shape.dtype,
         RowLaunch(shape.tokens, shape.hidden, SizeOf(shape.dtype)), shape,
         rows);
  return call.Finish();
}

Done LayerKernelsOnGpu::EmbeddingGradient(const EmbeddingShape& shape,
                                          const int64_t* ids, const void* dy,
                                          bool accumulate,
                                          const EmbeddingScratch& /*scratch*/,
                                          void* dtable) {
  const int64_t row = shape.hidden * SizeOf(shape.dtype);
  if (shape.tokens == 0 || shape.rows == 0 || row == 0) return kLeftToHost;
  if (!Takes(shape.dtype, shape.hidden)) return kLeftToHost;
  GpuCall call(shared_->lanes, &health_);
  EmbeddingRows rows;
  rows.ids = call.In(ids, shape.tokens * kId);
  rows.dy = call.In(dy, shape.tokens * row);
  rows.accumulate = accumulate;
  rows.dtable = accumulate ? call.InOut(dtable, shape.rows * row)
                           : call.Out(dtable, shape.rows * row);
  rows.counts = call.Make<int64_t>(shape.rows, true);
  rows.starts = call.Make<int64_t>(shape.rows + 1);
  rows.placed = call.Make<int64_t>(shape.tokens);
  rows.order = call.Make<int64_t>(shape.tokens);
  const LaunchShape of_tokens = ShapeOf(shape.tokens, kVectorBytes);
  Launch(call, LayerKernel::kEmbeddingCount, shape.dtype, of_tokens, shape,
         rows);
  Launch(call, LayerKernel::kEmbeddingStarts, shape.dtype,
         LaunchShape{1, RowThreads(shape.rows, kVectorBytes, 1)}, shape, rows);
  Launch(call, LayerKernel::kEmbeddingPlace, shape.dtype, of_tokens, shape,
         rows);
  // Most rows have few tokens.
  Launch(call, LayerKernel::kEmbeddingOrder, shape.dtype,
         LaunchShape{BlocksOf(shape.rows), kLanes}, shape, rows);
  Launch(call, LayerKernel::kEmbeddingGradient, shape.dtype,
         RowLaunch(shape.rows, shape.hidden, SizeOf(shape.dtype)), shape, rows);
  return call.Finish();
}

// --- moe.h ------------------------------------------------------------------

Done LayerKernelsOnGpu::GatherRows(DType dtype, const GatherRowsArgs& args) {
  const int64_t row = args.width * SizeOf(dtype);
  if (args.rows == 0 || row == 0) return kLeftToHost;
  if (!Takes(dtype, args.width)) return kLeftToHost;
  GpuCall call(shared_->lanes, &health_);
  GatherRowsArgs there = args;
  there.source = call.In(
      args.source, ReachedBytes(call, args.source, args.index, args.rows, row));
  there.index = call.In(args.index, args.rows * kId);
  there.scale = call.In(args.scale, args.rows * kWide);
  there.out = call.Out(args.out, args.rows * row);
  Launch(call, LayerKernel::kGatherRows, dtype,
         RowLaunch(args.rows, args.width, SizeOf(dtype)), there);
  return call.Finish();
}

Done LayerKernelsOnGpu::CombineRows(DType dtype, const CombineRowsArgs& args) {
  const int64_t row = args.width * SizeOf(dtype);
  const int64_t places = args.tokens * args.k;
  if (args.tokens == 0 || row == 0) return kLeftToHost;
  if (!Takes(dtype, args.width)) return kLeftToHost;
  GpuCall call(shared_->lanes, &health_);
  CombineRowsArgs there = args;
  there.source = call.In(
      args.source, ReachedBytes(call, args.source, args.place, places, row));
  there.place = call.In(args.place, places * kId);
  there.weights = call.In(args.weights, places * kWide);
  there.wide = call.In(args.wide, args.tokens * args.width * kWide);
  there.narrow = call.In(args.narrow, args.tokens * row);
  there.out = call.Out(args.out, args.tokens * row);
  Launch(call, LayerKernel::kCombineRows, dtype,
         RowLaunch(args.tokens, args.width, SizeOf(dtype)), there);
  return call.Finish();
}

Done LayerKernelsOnGpu::RowDots(DType dtype, const RowDotsArgs& args) {
  const int64_t row = args.width * SizeOf(dtype);
  const int64_t places = args.tokens * args.k;
  if (places == 0 || row == 0) return kLeftToHost;
  if (!Takes(dtype, args.width)) return kLeftToHost;
  GpuCall call(shared_->lanes, &health_);
  RowDotsArgs there = args;
  there.y = call.In(args.y, args.tokens * row);
  there.source = call.In(
      args.source, ReachedBytes(call, args.source, args.place, places, row));
  there.place = call.In(args.place, places * kId);
  there.dots = call.Out(args.dots, places * kWide);
  Launch(call, LayerKernel::kRowDots, dtype,
         RowLaunch(args.tokens, args.width, SizeOf(dtype)), there);
  return call.Finish();
}

}  // namespace shardproof::cuda
