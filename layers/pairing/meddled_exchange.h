// A family whose all_to_all lets a case meddle with what has just arrived: for
// planted bugs in what happens between the exchanges of a layer.
//
//     SP_ASSIGN_OR_RETURN(Meddling* meddling, MeddlingOf(context.comm()));
//     *meddling = {.arrived = [=](int exchange, const AllToAllVArgs& args) {
//       if (exchange == 1) SpoilSomething(args.recv);
//     }};
//     Layer::Create(context.comm(), config, kMeddledExchange);
#ifndef SHARDPROOF_LAYERS_PAIRING_MEDDLED_EXCHANGE_H_
#define SHARDPROOF_LAYERS_PAIRING_MEDDLED_EXCHANGE_H_

#include <functional>

#include "collectives/communicator.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/status.h"

namespace shardproof {

struct Meddling {
  // Called after each all_to_all, on every rank; `exchange` counts them.
  std::function<void(int exchange, const AllToAllVArgs& args)> arrived = {};
  int exchange = 0;  // Of the next one; the case sets it back.
};

// The meddling of this rank on `comm`.
StatusOr<Meddling*> MeddlingOf(const Communicator& comm);

extern const CollectiveFamily kMeddledExchange;

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_PAIRING_MEDDLED_EXCHANGE_H_
