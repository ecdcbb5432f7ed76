// What one GPU can do, measured: the ceilings that its kernels are held against.
#ifndef SHARDPROOF_TOOLS_CLI_ROOFLINE_MACHINE_H_
#define SHARDPROOF_TOOLS_CLI_ROOFLINE_MACHINE_H_

#include <cstddef>
#include <vector>

#include "reports/record.h"
#include "tools/cli/roofline/prepared_point.h"
#include "tools/cli/roofline/shares.h"
#include "tools/cli/roofline/stopwatch.h"

namespace shardproof {

struct CeilingOptions {
  size_t copied = size_t{1} << 30;  // Bytes, at least eight times the L2.
  int64_t square = 8192;            // Of the products.
  StopwatchOptions timing = {};
};

struct MeasuredCeilings {
  GpuCeilings ceilings;
  // ceilings/copy, variants kernel_2, kernel_8, kernel_32 (blocks of a multiprocessor) and stream; ceilings/gemm, variant
  // cublaslt, for bf16, f16 and f32.
  std::vector<Record> records;
};

// The better of two copies of memory that is on the GPU already, by the kernel of benchmark/copy.h and by the stream (what
// the driver's engines or kernels do), bytes read and written counted; and products of random square matrices. Both are
// checked. What fails says so in its record and leaves its ceiling out.
MeasuredCeilings MeasureCeilings(const RooflineGpu& on,
                                 const CeilingOptions& options);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_ROOFLINE_MACHINE_H_
