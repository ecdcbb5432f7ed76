// Our types, operations and errors in MPI's terms.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_TYPES_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_TYPES_H_

#include <mpi.h>

#include <climits>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "reference/dtype.h"
#include "reference/reduce_op.h"
#include "reference/status.h"

namespace shardproof {

// Ok for MPI_SUCCESS; else kInternal with MPI's own words: "MPI_Isend: ...".
Status MpiStatus(int code, std::string_view what);

// The type in which MPI moves elements of `dtype`: of the same size, but for
// bf16, f16 and fp8 an unsigned integer, since MPI has no such number.
MPI_Datatype MovementType(DType dtype);

// The type in which MPI reduces. kUnsupported where MPI has none.
StatusOr<MPI_Datatype> ReductionType(DType dtype);

// kUnsupported for avg and premul_sum, which MPI does not have.
StatusOr<MPI_Op> ReductionOp(ReduceOp op);

// `count` elements of `element` as MPI takes them. MPI 3 counts in int, so
// beyond `limit` (INT_MAX but in tests) they become one element of a type made
// for it. Only for calls that move data: reductions know basic types only.
class Elements {
 public:
  static StatusOr<Elements> Of(MPI_Datatype element, int64_t count,
                               int64_t limit = INT_MAX);
  Elements(Elements&& other) noexcept
      : type_(other.type_),
        count_(other.count_),
        owned_(std::exchange(other.owned_, false)) {}
  Elements& operator=(Elements&&) = delete;
  // A type under way may be freed: MPI keeps it until the operation is done.
  ~Elements() {
    if (owned_) MPI_Type_free(&type_);
  }

  MPI_Datatype type() const { return type_; }
  int count() const { return count_; }

 private:
  Elements(MPI_Datatype type, int count, bool owned)
      : type_(type), count_(count), owned_(owned) {}
  MPI_Datatype type_;
  int count_;
  bool owned_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_TYPES_H_
