#include "layers/pairing/meddled_exchange.h"

namespace shardproof {
namespace {

Status Exchange(const Communicator& comm, const AllToAllVArgs& args) {
  SP_RETURN_IF_ERROR(AllToAllV(comm, args));
  SP_ASSIGN_OR_RETURN(Meddling* const meddling, MeddlingOf(comm));
  if (meddling->arrived) meddling->arrived(meddling->exchange, args);
  ++meddling->exchange;
  return OkStatus();
}

constexpr CollectiveFamily Meddled() {
  CollectiveFamily family = kAutoCollectives;
  family.name = "meddled exchange";
  family.all_to_all = Exchange;
  return family;
}

}  // namespace

StatusOr<Meddling*> MeddlingOf(const Communicator& comm) {
  return comm.Attribute<Meddling>(
      "meddled exchange", []() -> StatusOr<Meddling> { return Meddling(); });
}

constinit const CollectiveFamily kMeddledExchange = Meddled();

}  // namespace shardproof
