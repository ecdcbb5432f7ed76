#include "collectives/communicator.h"

#include <utility>

#include "collectives/backend/node/board.h"
#include "collectives/communicator_impl.h"
#include "collectives/parts.h"

namespace shardproof {
namespace {

// What the hooks of an interceptor see outside any operation.
constexpr Op kNoOperation{.label = "none"};

}  // namespace

Communicator::Impl::Impl(std::shared_ptr<Backend> b)
    : backend(std::move(b)),
      board(backend->board()),
      rank(backend->rank()),
      size(backend->size()),
      record(backend->MyProgress()),
      current(&kNoOperation),
      traffic(std::make_shared<TrafficCounter>()),
      met(size),
      met_eagerly(size) {}

void Communicator::Impl::AddPart(const std::shared_ptr<Impl>& part) {
  const std::lock_guard<std::mutex> lock(parts_mutex);
  std::erase_if(parts, [](const auto& p) { return p.expired(); });
  parts.push_back(part);
}

void Communicator::Impl::AppendParts(
    std::vector<std::shared_ptr<Backend>>& out) {
  const std::lock_guard<std::mutex> lock(parts_mutex);
  for (const std::weak_ptr<Impl>& weak : parts) {
    const std::shared_ptr<Impl> part = weak.lock();
    if (part == nullptr) continue;
    out.push_back(part->backend);
    part->AppendParts(out);
  }
}

std::vector<std::shared_ptr<Backend>> LivingParts(const Communicator& comm) {
  std::vector<std::shared_ptr<Backend>> parts;
  if (comm.valid()) comm.impl().AppendParts(parts);
  return parts;
}

Communicator::Communicator(std::shared_ptr<Backend> backend)
    : impl_(std::make_shared<Impl>(std::move(backend))) {}

int Communicator::rank() const { return impl_->rank; }
int Communicator::size() const { return impl_->size; }
const Topology& Communicator::topology() const {
  return impl_->backend->topology();
}
std::string_view Communicator::backend_name() const {
  return impl_->backend->name();
}
Backend& Communicator::backend() const { return *impl_->backend; }

StatusOr<Communicator> Communicator::Split(int color, int key) const {
  SP_ASSIGN_OR_RETURN(std::shared_ptr<Backend> part,
                      impl_->backend->Split(color, key));
  if (part == nullptr) return Communicator();
  Communicator result(std::move(part));
  result.impl_->interceptor = impl_->interceptor;
  result.impl_->traffic = impl_->traffic->NewChild();
  impl_->AddPart(result.impl_);
  return result;
}

StatusOr<Communicator> Communicator::Duplicate() const {
  return Split(0, impl_->rank);
}

StatusOr<Buffer> Communicator::Allocate(size_t bytes) const {
  return impl_->backend->Allocate(bytes);
}

StatusOr<std::span<std::byte>> Communicator::Staging(size_t bytes) const {
  if (impl_->staging.bytes() < bytes) {
    impl_->staging = Buffer();  // First, so that both need not fit.
    SP_ASSIGN_OR_RETURN(impl_->staging, impl_->backend->Allocate(bytes));
  }
  return std::span<std::byte>(impl_->staging.data(), bytes);
}

Status Communicator::Native(const NativeRequest& request) const {
  return impl_->backend->Native(request);
}

void Communicator::Abort(std::string_view reason) const {
  impl_->backend->Abort(reason);
}
Status Communicator::health() const { return impl_->backend->health(); }

Traffic Communicator::traffic() const { return impl_->traffic->Total(); }

void Communicator::Intercept(Interceptor* interceptor) const {
  impl_->interceptor = interceptor;
}

std::any& Communicator::AttributeSlot(const std::string& key) const {
  return impl_->attributes[key];
}

}  // namespace shardproof
