// What Reduce hands to the code of one group of types. The groups are files of their own, which compile side by side.
#ifndef SHARDPROOF_COLLECTIVES_KERNELS_REQUEST_H_
#define SHARDPROOF_COLLECTIVES_KERNELS_REQUEST_H_

#include <cstddef>
#include <span>

#include "collectives/kernels/reduce.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"

namespace shardproof::kernels {

struct Request {
  DType dtype;
  ReduceOp op;
  std::span<const void* const> sources;
  size_t count;
  std::span<void* const> destinations;
  const ReduceOptions& options;
};

void ReduceWide(const Request& request);      // f64, f32
void ReduceHalf(const Request& request);      // bf16, f16
void ReduceFp8(const Request& request);       // e4m3, e5m2
void ReduceIntegers(const Request& request);  // i8, u8, i32, i64

}  // namespace shardproof::kernels

#endif  // SHARDPROOF_COLLECTIVES_KERNELS_REQUEST_H_
