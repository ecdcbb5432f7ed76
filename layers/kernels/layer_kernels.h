// The kernels of the layers on something else than the host. A rank whose context has one (collectives/rank_context.h)
// computes with it: the functions of this folder ask it first, and layers do not know.
//
//     class LayerKernelsOnGpu : public LayerKernels { ... };
//     context->Put<LayerKernels>(std::make_shared<LayerKernelsOnGpu>(gpus, gpu));
//
// The contract of each is that of the function of its name, whose arguments have been checked; it returns when the result
// can be read by the host. What it has no kernel for it leaves to the host (kLeftToHost): a type, a shape. Any other status
// is the function's. Called by several threads at once.
#ifndef SHARDPROOF_LAYERS_KERNELS_LAYER_KERNELS_H_
#define SHARDPROOF_LAYERS_KERNELS_LAYER_KERNELS_H_

#include <cstdint>
#include <optional>
#include <utility>

#include "collectives/device.h"
#include "collectives/rank_context.h"
#include "layers/kernels/cross_entropy.h"
#include "layers/kernels/dropout.h"
#include "layers/kernels/embedding.h"
#include "layers/kernels/gemm.h"
#include "layers/kernels/moe.h"
#include "layers/kernels/norm.h"
#include "layers/kernels/optimizer.h"
#include "layers/kernels/rope.h"
#include "layers/kernels/softmax.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// All of these leave everything to the host; who has a kernel overrides.
class LayerKernels {
 public:
  using Done = std::optional<Status>;
  static constexpr std::nullopt_t kLeftToHost = std::nullopt;

  LayerKernels() = default;
  LayerKernels(const LayerKernels&) = delete;
  LayerKernels& operator=(const LayerKernels&) = delete;
  virtual ~LayerKernels() = default;

  // activation.h
  virtual Done Gelu(DType /*dtype*/, int64_t /*n*/, const void* /*z*/,
                    void* /*a*/) {
    return kLeftToHost;
  }
  virtual Done GeluBackward(DType /*dtype*/, int64_t /*n*/, const void* /*z*/,
                            const void* /*da*/, void* /*dz*/) {
    return kLeftToHost;
  }
  virtual Done SwiGlu(DType /*dtype*/, int64_t /*n*/, const void* /*gate*/,
                      const void* /*up*/, void* /*a*/) {
    return kLeftToHost;
  }
  virtual Done SwiGluBackward(DType /*dtype*/, int64_t /*n*/,
                              const void* /*gate*/, const void* /*up*/,
                              const void* /*da*/, void* /*dgate*/,
                              void* /*dup*/) {
    return kLeftToHost;
  }
  virtual Done ColumnSum(DType /*dtype*/, int64_t /*rows*/, int64_t /*columns*/,
                         const void* /*x*/, void* /*out*/) {
    return kLeftToHost;
  }
  virtual Done AddBias(DType /*dtype*/, int64_t /*rows*/, int64_t /*columns*/,
                       const void* /*b*/, void* /*y*/) {
    return kLeftToHost;
  }

  // cross_entropy.h. Loss adds to *total.
  virtual Done CrossEntropyLocal(const CrossEntropyShape& /*shape*/,
                                 const void* /*logits*/,
                                 const int64_t* /*targets*/,
                                 void* /*local_max*/, void* /*sums*/) {
    return kLeftToHost;
  }
  virtual Done CrossEntropyRescale(const CrossEntropyShape& /*shape*/,
                                   const void* /*logits*/,
                                   const int64_t* /*targets*/,
                                   const void* /*local_max*/,
                                   const void* /*max*/, void* /*sums*/) {
    return kLeftToHost;
  }
  virtual Done CrossEntropyLoss(const CrossEntropyShape& /*shape*/,
                                const int64_t* /*targets*/, void* /*sums*/,
                                void* /*loss*/, double* /*total*/) {
    return kLeftToHost;
  }
  virtual Done CrossEntropyGradient(const CrossEntropyShape& /*shape*/,
                                    const void* /*logits*/,
                                    const int64_t* /*targets*/,
                                    const void* /*max*/,
                                    const void* /*inverse_sums*/,
                                    const CrossEntropyUpstream& /*upstream*/,
                                    void* /*dlogits*/) {
    return kLeftToHost;
  }

  virtual Done Dropout(const DropoutArgs& /*args*/) { return kLeftToHost; }

  // embedding.h
  virtual Done EmbeddingLookup(const EmbeddingShape& /*shape*/,
                               const int64_t* /*ids*/, const void* /*table*/,
                               void* /*y*/) {
    return kLeftToHost;
  }
  virtual Done EmbeddingGradient(const EmbeddingShape& /*shape*/,
                                 const int64_t* /*ids*/, const void* /*dy*/,
                                 bool /*accumulate*/,
                                 const EmbeddingScratch& /*scratch*/,
                                 void* /*dtable*/) {
    return kLeftToHost;
  }

  virtual Done Gemm(const GemmArgs& /*args*/) { return kLeftToHost; }

  // moe.h
  virtual Done GatherRows(DType /*dtype*/, const GatherRowsArgs& /*args*/) {
    return kLeftToHost;
  }
  virtual Done CombineRows(DType /*dtype*/, const CombineRowsArgs& /*args*/) {
    return kLeftToHost;
  }
  virtual Done RowDots(DType /*dtype*/, const RowDotsArgs& /*args*/) {
    return kLeftToHost;
  }

  // norm.h
  virtual Done Normalize(const NormRows& /*rows*/,
                         const NormalizeArgs& /*args*/) {
    return kLeftToHost;
  }
  virtual Done NormalizeBackward(const NormRows& /*rows*/,
                                 const NormalizeBackwardArgs& /*args*/) {
    return kLeftToHost;
  }
  virtual Done RoundSums(DType /*dtype*/, int64_t /*n*/, const void* /*sums*/,
                         void* /*out*/) {
    return kLeftToHost;
  }

  // optimizer.h
  virtual Done AddSquares(DType /*dtype*/, int64_t /*n*/, const void* /*x*/,
                          SquareSum* /*total*/) {
    return kLeftToHost;
  }
  virtual Done SgdStep(const SgdArgs& /*args*/) { return kLeftToHost; }
  virtual Done AdamStep(const AdamArgs& /*args*/) { return kLeftToHost; }
  virtual Done WidenParameters(DType /*dtype*/, int64_t /*n*/,
                               const void* /*parameter*/, void* /*master*/) {
    return kLeftToHost;
  }

  virtual Done Rope(const RopeTable& /*table*/, RopeDirection /*direction*/,
                    const RopeArgs& /*args*/) {
    return kLeftToHost;
  }

  // softmax.h
  virtual Done Softmax(const SoftmaxShape& /*shape*/, void* /*s*/,
                       void* /*p*/) {
    return kLeftToHost;
  }
  virtual Done SoftmaxBackward(const SoftmaxShape& /*shape*/, const void* /*p*/,
                               const void* /*dp*/, void* /*ds*/) {
    return kLeftToHost;
  }
};

// device(*kernels), and host() where there are none or they leave it to the host.
template <class Device, class Host>
Status RunBy(LayerKernels* kernels, const Device& device, const Host& host) {
  if (kernels != nullptr) {
    if (LayerKernels::Done done = device(*kernels)) return *std::move(done);
  }
  return host();
}
// By those of the calling thread,
template <class Device, class Host>
Status RunHere(const Device& device, const Host& host) {
  return RunBy(FindService<LayerKernels>(), device, host);
}
// and queued.
template <class Device, class Host>
Status RunKernel(const Stream& stream, const Device& device, const Host& host) {
  return stream.Run([kernels = FindService<LayerKernels>(), device, host] {
    return RunBy(kernels, device, host);
  });
}

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_LAYER_KERNELS_H_
