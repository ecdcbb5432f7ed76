// With -DSPILLS a kernel that needs more registers than its launch bounds leave it: 1024 threads share 64 Ki of them, so that
// each has 64, and 96 sums are alive at once. Without it, one that does not.
#ifdef SPILLS
constexpr int kSums = 96;
#else
constexpr int kSums = 4;
#endif

extern "C" __global__ void __launch_bounds__(1024)
    AddUp(const float* in, float* out, int n) {
  // Different in every thread: what is the same in all of a warp has registers of its own.
  in += threadIdx.x;
  out += threadIdx.x;
  float sums[kSums];
#pragma unroll
  for (int k = 0; k < kSums; ++k) sums[k] = in[k];
  for (int i = 0; i < n; ++i) {
#pragma unroll
    for (int k = 0; k < kSums; ++k) {
      sums[k] = sums[k] * sums[(k + 1) % kSums] + in[i];
    }
  }
#pragma unroll
  for (int k = 0; k < kSums; ++k) out[k] = sums[k];
}
