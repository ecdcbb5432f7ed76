// How the C library's allocator is to treat what a run frees.
#ifndef SHARDPROOF_TOOLS_HARNESS_ALLOCATOR_H_
#define SHARDPROOF_TOOLS_HARNESS_ALLOCATOR_H_

namespace shardproof {

// Keeps freed memory for the next allocation, instead of giving it back to the
// system, but for blocks of 32 MiB and more. References allocate and free blocks of 0.1 to 10 MB a
// thousand times in a second, each of which would be mapped, faulted in page by
// page and unmapped: half of the time of a probed reference. For main(), before
// there are threads. Nothing happens where the C library is not glibc.
void KeepFreedMemory();

// Gives back what is free now: after something large, which nothing small will
// fill again.
void GiveBackFreedMemory();

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_ALLOCATOR_H_
