// What is measured of the kernels on a GPU: a function of the layers at one shape, its operands, and the least that each of
// the kernels it launches moves and computes. Whoever measures (tools/cli/roofline) knows no kernel, and a family of kernels
// describes its points in a file of its own in this folder:
//
//     const KernelPoints kNorm([](const ModelShape& m, std::vector<KernelPoint>& points) {
//       const int64_t n = m.tokens * m.hidden;
//       points.push_back({
//           .name = "normalize",
//           .dtype = DType::kBF16,
//           .params = {{"rows", m.tokens}, {"columns", m.hidden}},
//           .operands = {Random("x", DType::kBF16, n), Output("y", DType::kBF16, n), ...},
//           .run = [=](void* const* at) { return Normalize(Stream::Inline(), rows, {.x = at[0], .y = at[1], ...}); },
//           .kernels = {{.name = "Normalize", .bytes = 2 * n * 2}}});
//     });
//
// `run` is called twice: on a thread whose context has the kernels of the GPU, with operands in its memory, and on one that
// has none, with operands of the host. So it is the very launches of layers that are measured (grids, parameters, scratch),
// and the host's kernel that they are held against.
//
// Rejected: launches written down here a second time, whose grids would not be those that layers run with.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_POINT_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_POINT_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/backend/cuda/device/gpu.h"
#include "layers/kernels/cuda/blas/gemm_cublaslt.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof::cuda {

// The sizes that points are made of; the defaults are those of Llama 3.1 8B with its vocabulary cut eight ways.
struct ModelShape {
  int64_t tokens = 4096;
  int64_t hidden = 4096;
  int64_t intermediate = 14336;
  int64_t vocabulary = 128256 / 8;
  int64_t heads = 32;
  int64_t kv_heads = 8;
  int64_t head_dim = 128;
  // Tokens of a sequence in attention, `tokens` of them in all.
  std::vector<int64_t> sequences = {4096};
  // Experts that a token is sent to.
  int64_t experts_per_token = 2;
};

// An operand of `count` elements. What is only written holds NaNs before.
struct Operand {
  std::string name;
  DType dtype = DType::kF32;
  int64_t count = 0;
  // Writes all elements; null: they are not read.
  std::function<void(void* to)> fill = nullptr;
  // Whether it is held against the host's:
  //
  //     |got - want| <= relative |want| + absolute + of_rms rms(want)
  //
  // All 0: the same values. rms is over what is checked.
  bool checked = false;
  double relative = 0, absolute = 0, of_rms = 0;
  // [begin, end) of what is checked; empty: all.
  std::vector<std::pair<int64_t, int64_t>> ranges = {};

  int64_t bytes() const { return count * SizeOf(dtype); }
};

// Inputs: uniform in [-scale, scale), a stream of its own for every name.
Operand Random(const std::string& name, DType dtype, int64_t count,
               double scale = 1);
// Uniform in [low, high).
Operand RandomBetween(const std::string& name, DType dtype, int64_t count,
                      double low, double high);
Operand Zeros(const std::string& name, DType dtype, int64_t count);
// i64, uniform in [0, below).
Operand RandomIndices(const std::string& name, int64_t count, int64_t below);

// Results. `roundings`: how many units of the roundoff of f32, of numbers of the size of `magnitude`, GPU and host may lie
// apart before both round to `dtype`. It covers sums in another order and functions of other accuracy.
Operand Output(const std::string& name, DType dtype, int64_t count,
               double roundings = 64, double magnitude = 1);
// Bit for bit.
Operand ExactOutput(const std::string& name, DType dtype, int64_t count);
// What is read and written: an input, to be checked as `result` says.
Operand InPlace(Operand input, const Operand& result);

// What one launch does, by the bytes and operations that it cannot do without; the headers of the kernels count the former.
struct KernelCost {
  std::string name = {};  // As LayerKernel's, or what attention calls it.
  double bytes = 0;       // Read and written.
  double flops = 0;       // Held against the ceiling of products, unless 0.
  // Whether it may be launched again on what it has left behind. One that may not is timed among the others of its function.
  bool repeats = true;
  double wanted_tflops = 0;  // On an H100; 0: nobody has said.
};

struct KernelPoint {
  std::string name;              // "normalize"
  std::string variant = "ours";  // or "cublaslt"
  DType dtype = DType::kF32;     // Of its products, for the ceiling.
  std::vector<std::pair<std::string, std::string>> params = {};
  std::vector<Operand> operands = {};
  // With the address of each operand.
  std::function<Status(void* const* at)> run = nullptr;
  // What the host does in its place where all of it would take too long; it leaves `ranges` of the results.
  std::function<Status(void* const* at)> host = nullptr;
  // Set: it is not what `run` launches that is measured, but what this queues.
  std::function<Status(CublasLtGemm& gemm, GpuStream& stream, void* const* at)>
      product = nullptr;
  std::vector<KernelCost> kernels = {};  // In the order of the launches.
  // All launches together, where the speed of that has a name of its own.
  std::optional<KernelCost> whole = std::nullopt;
};

// --- The registry -------------------------------------------------------------

using MakePoints = void (*)(const ModelShape& shape,
                            std::vector<KernelPoint>& points);

// Registers while it is constructed; a constant of a file that is linked whole.
class KernelPoints {
 public:
  explicit KernelPoints(MakePoints make);
};

// Of all that are linked, by name, and in the order of the file within one.
std::vector<KernelPoint> AllKernelPoints(const ModelShape& shape);

// {{"rows", "4096"}, ...}
std::pair<std::string, std::string> Param(const std::string& name,
                                          int64_t value);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_POINT_H_
