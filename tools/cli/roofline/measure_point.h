// A point as records: prepared, checked once against the host, and timed if it is right.
//
//     const std::vector<Record> records = MeasurePoint(on, point, ceilings, {.cold = true});
#ifndef SHARDPROOF_TOOLS_CLI_ROOFLINE_MEASURE_POINT_H_
#define SHARDPROOF_TOOLS_CLI_ROOFLINE_MEASURE_POINT_H_

#include <string>
#include <string_view>
#include <vector>

#include "layers/kernels/cuda/benchmark/point.h"
#include "reports/record.h"
#include "tools/cli/roofline/prepared_point.h"
#include "tools/cli/roofline/shares.h"
#include "tools/cli/roofline/stopwatch.h"

namespace shardproof {

struct MeasurePointOptions {
  bool cold = true;  // Operands in turn, or the same ones every time.
  StopwatchOptions timing = {};
  std::string folder = "kernels";  // Before the names of cases.
};

// "EmbeddingCount" -> "embedding_count"
std::string CaseName(std::string_view kernel);

// One for each kernel of the point, and one for all of them where that has a name: case kernels/normalize, variant ours,
// with time, rate, floor and what the comparison said. Emulated GPUs: without times. An error, of memory for instance, and a
// wrong result are in the records of all its kernels. What is too slow says so among the flags of its time.
std::vector<Record> MeasurePoint(const RooflineGpu& on,
                                 const cuda::KernelPoint& point,
                                 const GpuCeilings& ceilings,
                                 const MeasurePointOptions& options);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_ROOFLINE_MEASURE_POINT_H_
