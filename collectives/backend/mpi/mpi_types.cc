#include "collectives/backend/mpi/mpi_types.h"

#include <array>
#include <string>

namespace shardproof {

Status MpiStatus(int code, std::string_view what) {
  if (code == MPI_SUCCESS) [[likely]]
    return OkStatus();
  std::string text(MPI_MAX_ERROR_STRING, '\0');
  int length = 0;
  if (MPI_Error_string(code, text.data(), &length) != MPI_SUCCESS) length = 0;
  text.resize(static_cast<size_t>(length));
  return Internal("{} failed: {} (code {})", what, text, code);
}

MPI_Datatype MovementType(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return MPI_DOUBLE;
    case DType::kF32:
      return MPI_FLOAT;
    case DType::kBF16:
    case DType::kF16:
      return MPI_UINT16_T;
    case DType::kE4M3:
    case DType::kE5M2:
    case DType::kU8:
      return MPI_UINT8_T;
    case DType::kI8:
      return MPI_INT8_T;
    case DType::kI32:
      return MPI_INT32_T;
    case DType::kI64:
      return MPI_INT64_T;
  }
  return MPI_DATATYPE_NULL;
}

StatusOr<MPI_Datatype> ReductionType(DType dtype) {
  if (IsFloat(dtype) && SizeOf(dtype) < 4) {
    return Unsupported("MPI has no {} and so cannot reduce it", Name(dtype));
  }
  return MovementType(dtype);
}

StatusOr<MPI_Op> ReductionOp(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return MPI_SUM;
    case ReduceOp::kProd:
      return MPI_PROD;
    case ReduceOp::kMin:
      return MPI_MIN;
    case ReduceOp::kMax:
      return MPI_MAX;
    default:
      return Unsupported("MPI has no operation {}", Name(op));
  }
}

StatusOr<Elements> Elements::Of(MPI_Datatype element, int64_t count,
                                int64_t limit) {
  if (count <= limit) return Elements(element, static_cast<int>(count), false);
  if (count / limit > limit) {
    return Unsupported("{} elements are more than MPI can describe", count);
  }
  // `rows` times `limit` elements, and the rest behind them.
  const auto rows = static_cast<int>(count / limit);
  const auto rest = static_cast<int>(count % limit);
  MPI_Aint low = 0;
  MPI_Aint extent = 0;
  SP_RETURN_IF_ERROR(MpiStatus(MPI_Type_get_extent(element, &low, &extent),
                               "MPI_Type_get_extent"));
  MPI_Datatype row = MPI_DATATYPE_NULL;
  SP_RETURN_IF_ERROR(
      MpiStatus(MPI_Type_contiguous(static_cast<int>(limit), element, &row),
                "MPI_Type_contiguous"));
  const std::array<int, 2> lengths = {rows, rest};
  const std::array<MPI_Aint, 2> places = {0, rows * limit * extent};
  const std::array<MPI_Datatype, 2> types = {row, element};
  MPI_Datatype whole = MPI_DATATYPE_NULL;
  const int made = MPI_Type_create_struct(rest == 0 ? 1 : 2, lengths.data(),
                                          places.data(), types.data(), &whole);
  MPI_Type_free(&row);
  SP_RETURN_IF_ERROR(MpiStatus(made, "MPI_Type_create_struct"));
  SP_RETURN_IF_ERROR(MpiStatus(MPI_Type_commit(&whole), "MPI_Type_commit"));
  return Elements(whole, 1, true);
}

}  // namespace shardproof
