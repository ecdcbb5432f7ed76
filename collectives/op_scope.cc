#include "collectives/communicator.h"
#include "collectives/communicator_impl.h"

namespace shardproof {

OpScope::OpScope(const Communicator& comm, const Op& op)
    : comm_(comm), op_(op) {
  if (!comm.valid()) [[unlikely]] {
    status_ = InvalidArgument(
        "{} on an invalid communicator: this rank is in no group",
        op_.label.view());
    return;
  }
  Communicator::Impl& impl = comm.impl();
  op_.sequence = ++impl.sequence;
  if (impl.interceptor != nullptr) [[unlikely]] {
    // Before the record: a rank that is held up here never entered.
    status_ = impl.interceptor->OnBegin(op_);
    if (!status_.ok()) return;
  }
  failures_ = impl.failures;
  outer_ = impl.current;
  impl.current = &op_;
  impl.record->Enter(op_);
}

OpScope::~OpScope() {
  if (!status_.ok()) [[unlikely]]
    return;
  Communicator::Impl& impl = comm_.impl();
  impl.current = outer_;
  // Leaving an inner operation leaves the record alone: the outer one goes on,
  // and "finished" must not say otherwise. An outermost one has finished all
  // that it entered.
  if (outer_->sequence == 0) {
    impl.record->finished.store(impl.sequence, std::memory_order_release);
  }
  if (impl.interceptor != nullptr && impl.failures == failures_) [[unlikely]] {
    impl.interceptor->OnEnd(op_);
  }
}

}  // namespace shardproof
