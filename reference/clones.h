// SHARDPROOF_CLONES compiles a function once per instruction set and picks at
// load time: the binary stays portable and the plain loops of reference/ run at
// the width of the machine. Empty under the sanitizers, whose runtime is not up
// yet when the picking happens, and where the compiler does not have it.

#ifndef SHARDPROOF_REFERENCE_CLONES_H_
#define SHARDPROOF_REFERENCE_CLONES_H_

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(SHARDPROOF_NO_CLONES)
#define SHARDPROOF_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SHARDPROOF_CLONES
#endif

#endif  // SHARDPROOF_REFERENCE_CLONES_H_
