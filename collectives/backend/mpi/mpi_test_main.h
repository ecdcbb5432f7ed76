// A main() for tests that mpirun starts: every rank runs every test, in the
// same order, in one world.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_TEST_MAIN_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_TEST_MAIN_H_

#include "collectives/backend/mpi/mpi_world.h"
#include "reference/status.h"

namespace shardproof {

// The world of the running test program, made by main(). --ranks_per_node=N
// simulates nodes.
MpiWorld& TestWorld();

// Fails the running test if `status` is an error, and aborts the world then:
// the other ranks may be waiting for this one.
void ExpectOkOnAllRanks(const Status& status);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_TEST_MAIN_H_
