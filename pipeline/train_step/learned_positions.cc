#include "pipeline/train_step/learned_positions.h"

#include <cstring>

#include "collectives/device.h"
#include "layers/kernels/activation.h"

namespace shardproof {
namespace {

// to += from, of one row.
Status AddRow(const TokenPositions& positions, const void* from,
              int64_t from_row, void* to, int64_t to_row) {
  const int64_t h = positions.hidden;
  return AddBias(Stream::Inline(), positions.dtype, 1, h,
                 At(from, positions.dtype, from_row * h),
                 At(to, positions.dtype, to_row * h));
}

}  // namespace

Status AddPositions(const TokenPositions& positions, const void* table,
                    void* y) {
  for (int64_t i = 0; i < positions.tokens.count; ++i) {
    SP_RETURN_IF_ERROR(AddRow(positions, table, positions.of(i), y, i));
  }
  return OkStatus();
}

Status PositionGradients(const TokenPositions& positions, const void* dy,
                         int64_t length, void* d_table) {
  std::memset(
      d_table, 0,
      static_cast<size_t>(length * positions.hidden * SizeOf(positions.dtype)));
  for (int64_t i = 0; i < positions.tokens.count; ++i) {
    SP_RETURN_IF_ERROR(AddRow(positions, dy, i, d_table, positions.of(i)));
  }
  return OkStatus();
}

}  // namespace shardproof
