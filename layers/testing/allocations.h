// Counts what a test program asks of the heap. A program that links this has
// every form of operator new replaced, aligned and nothrow ones included, so
// that nothing that C++ code allocates is missed.
//
//     const int64_t before = LargeAllocations();
//     ... the layer, a second time ...
//     EXPECT_EQ(LargeAllocations(), before);
//
// Counts are of the whole process, all threads together.
#ifndef SHARDPROOF_LAYERS_TESTING_ALLOCATIONS_H_
#define SHARDPROOF_LAYERS_TESTING_ALLOCATIONS_H_

#include <cstdint>

namespace shardproof {

int64_t Allocations();
// Those of at least 4096 bytes: a workspace would be, and what oneDNN keeps for
// a call is not.
int64_t LargeAllocations();

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TESTING_ALLOCATIONS_H_
