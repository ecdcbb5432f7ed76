// One answer for all ranks of an MPI communicator.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_AGREE_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_AGREE_H_

#include <mpi.h>

#include "reference/status.h"

namespace shardproof {

// Collective. Ok when every rank gives ok; else the error of the lowest rank
// that gives one, on every rank. A rank that went on where another gave up
// would wait for it forever.
Status Agree(MPI_Comm comm, const Status& mine);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_AGREE_H_
