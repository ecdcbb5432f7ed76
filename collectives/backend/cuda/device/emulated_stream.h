// What a stream of an emulated GPU is to a library that is given it as a cudaStream_t. Plain C, so that a library which
// was built apart can use it: NCCL's stand-in for tests queues its work by this.
//
// A library that takes such streams says so by exporting a function of the name kTakesEmulatedStreams.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_STREAM_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_STREAM_H_

namespace shardproof::cuda {

struct EmulatedStreamHandle {
  // Queues work(argument), to be run on another thread after everything queued before it.
  void (*enqueue)(EmulatedStreamHandle* self, void (*work)(void* argument),
                  void* argument) = nullptr;
};

inline constexpr char kTakesEmulatedStreams[] = "takesEmulatedStreams";

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_DEVICE_EMULATED_STREAM_H_
