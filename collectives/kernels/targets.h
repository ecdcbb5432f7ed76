// Which instruction sets the kernels are compiled for. Include before any Highway header.
//
// AVX-512, AVX2 (every x86 server since 2013) and the portable fallback. SSSE3 and SSE4 would double the time to compile
// for machines that nobody measures on.
#ifndef SHARDPROOF_COLLECTIVES_KERNELS_TARGETS_H_
#define SHARDPROOF_COLLECTIVES_KERNELS_TARGETS_H_

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)

#endif  // SHARDPROOF_COLLECTIVES_KERNELS_TARGETS_H_
