// What a backend gives the threads of a rank beside a communicator: implementations of interfaces that this folder
// knows nothing of, found by the type of the interface.
//
//     class LayerKernels { public: virtual std::optional<Status> Gelu(...) = 0; };            // Of layers/kernels.
//     context->Put<LayerKernels>(std::make_shared<LayerKernelsOnGpu>(gpu));                   // By who makes a world.
//     if (auto* kernels = FindService<LayerKernels>()) return kernels->Gelu(...);             // On the rank's threads.
//
// The context belongs to the thread on which the rank computes. Work that it queues on a stream carries along what it has
// found, so a service is called by several threads at once.
#ifndef SHARDPROOF_COLLECTIVES_RANK_CONTEXT_H_
#define SHARDPROOF_COLLECTIVES_RANK_CONTEXT_H_

#include <memory>
#include <typeindex>
#include <typeinfo>
#include <unordered_map>
#include <utility>

namespace shardproof {

// Filled before it is given to a thread, and not changed afterwards.
class RankServices {
 public:
  template <class Interface>
  void Put(std::shared_ptr<Interface> service) {
    services_[typeid(Interface)] = std::move(service);
  }
  // Null where there is none.
  template <class Interface>
  Interface* Find() const {
    const auto at = services_.find(typeid(Interface));
    return at == services_.end() ? nullptr
                                 : static_cast<Interface*>(at->second.get());
  }

 private:
  std::unordered_map<std::type_index, std::shared_ptr<void>> services_;
};

// That of the calling thread; null on threads of no rank, and of backends that give nothing.
const std::shared_ptr<const RankServices>& CurrentContext();
void SetCurrentContext(std::shared_ptr<const RankServices> context);

// The calling thread's; null where there is none, which costs a load and a comparison.
template <class Interface>
Interface* FindService() {
  const RankServices* const context = CurrentContext().get();
  return context == nullptr ? nullptr : context->Find<Interface>();
}

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_RANK_CONTEXT_H_
