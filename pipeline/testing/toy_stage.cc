#include "pipeline/testing/toy_stage.h"

#include <algorithm>
#include <cstring>

namespace shardproof {
namespace {

uint64_t Mix(uint64_t v) {  // splitmix64
  v += 0x9e3779b97f4a7c15;
  v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9;
  v = (v ^ (v >> 27)) * 0x94d049bb133111eb;
  return v ^ (v >> 31);
}

uint64_t Key(int micro_batch, int64_t element) {
  return (static_cast<uint64_t>(micro_batch) << 32) +
         static_cast<uint64_t>(element);
}

bool Same(const void* data, const ToyWords& words) {
  return words.empty() ||
         std::memcmp(data, words.data(), words.size() * sizeof(uint64_t)) == 0;
}

}  // namespace

uint64_t ToyInput(int micro_batch, int64_t element) {
  return Mix(Key(micro_batch, element));
}
uint64_t ToyUpstream(int micro_batch, int64_t element, uint64_t y) {
  return 3 * y + Mix(~Key(micro_batch, element));
}

ToyResult ToyExpected(const ToyModel& model,
                      const std::function<bool(int micro_batch)>& mine) {
  ToyResult result;
  result.y.resize(model.elements.size());
  result.dx.resize(model.elements.size());
  for (size_t at = 0; at < model.elements.size(); ++at) {
    const int m = static_cast<int>(at);
    if (mine && !mine(m)) continue;
    for (int64_t e = 0; e < model.elements[at]; ++e) {
      uint64_t h = ToyInput(m, e), x = 0;
      for (int s = 0; s < model.stages; ++s) {
        if (s == model.stage) x = h;
        h = model.At(s).a() * h + model.At(s).b();
      }
      uint64_t d = ToyUpstream(m, e, h);
      for (int s = model.stages - 1; s > model.stage; --s) {
        d *= model.At(s).a();
      }
      result.dw += d * x;
      result.db += d;
      if (model.stage == model.stages - 1) result.y[at].push_back(h);
      if (model.stage == 0) result.dx[at].push_back(d * model.a());
    }
  }
  return result;
}

ToyStage::ToyStage(const ToyModel& model, int slots)
    : model_(model), slots_(static_cast<size_t>(slots)) {
  const int64_t most =
      *std::max_element(model.elements.begin(), model.elements.end());
  for (Slot& slot : slots_) {
    for (ToyWords* words : {&slot.input, &slot.output, &slot.upstream}) {
      words->reserve(static_cast<size_t>(most));
    }
  }
  result_.y.resize(model.elements.size());
  result_.dx.resize(model.elements.size());
  for (std::vector<ToyWords>* all : {&result_.y, &result_.dx}) {
    for (ToyWords& words : *all) words.reserve(static_cast<size_t>(most));
  }
}

void ToyStage::Clear() {
  result_.dw = result_.db = 0;
  for (ToyWords& words : result_.y) words.clear();
  for (ToyWords& words : result_.dx) words.clear();
}

Status ToyStage::CheckAddresses(const StageVisit& visit, const void* in,
                                const void* out, bool has_in,
                                bool has_out) const {
  if ((in != nullptr) == has_in && (out != nullptr) == has_out) {
    return OkStatus();
  }
  return Internal("stage {} of {}, micro-batch {}: an address is null or not",
                  model_.stage, model_.stages, visit.micro_batch);
}

Status ToyStage::Forward(const StageVisit& visit, const void* x, void* y) {
  const bool first = model_.stage == 0;
  const bool last = model_.stage == model_.stages - 1;
  SP_RETURN_IF_ERROR(CheckAddresses(visit, x, y, !first, !last));
  if (visit.slot < 0 || visit.slot >= static_cast<int>(slots_.size())) {
    return Internal("there is no slot {}", visit.slot);
  }
  Slot& slot = slots_[static_cast<size_t>(visit.slot)];
  if (slot.micro_batch >= 0) {
    return Internal("slot {} has micro-batch {}", visit.slot, slot.micro_batch);
  }
  slot.micro_batch = visit.micro_batch;
  slot.x = x;
  const auto n = static_cast<size_t>(Count(visit));
  slot.input.resize(n);
  slot.output.resize(n);
  for (size_t e = 0; e < n; ++e) {
    if (first) {
      slot.input[e] = ToyInput(visit.micro_batch, static_cast<int64_t>(e));
    } else {
      std::memcpy(&slot.input[e], static_cast<const uint64_t*>(x) + e,
                  sizeof(uint64_t));
    }
    slot.output[e] = model_.a() * slot.input[e] + model_.b();
  }
  const size_t bytes = n * sizeof(uint64_t);
  if (!last && bytes > 0) std::memcpy(y, slot.output.data(), bytes);
  if (last) result_.y[static_cast<size_t>(visit.micro_batch)] = slot.output;
  return OkStatus();
}

Status ToyStage::Check(const StageVisit& visit, const void* x) const {
  if (visit.slot < 0 || visit.slot >= static_cast<int>(slots_.size()) ||
      slots_[static_cast<size_t>(visit.slot)].micro_batch !=
          visit.micro_batch) {
    return Internal("slot {} has not micro-batch {}", visit.slot,
                    visit.micro_batch);
  }
  const Slot& slot = slots_[static_cast<size_t>(visit.slot)];
  if (x != slot.x || (x != nullptr && !Same(x, slot.input))) {
    return Internal("x of micro-batch {} has changed", visit.micro_batch);
  }
  return OkStatus();
}

void ToyStage::MakeInput(const StageVisit& visit, const void* dy, void* dx) {
  Slot& slot = slots_[static_cast<size_t>(visit.slot)];
  const auto m = static_cast<size_t>(visit.micro_batch);
  slot.dy = dy;
  slot.upstream.resize(slot.input.size());
  ToyWords& kept = result_.dx[m];
  if (model_.stage == 0) kept.resize(slot.input.size());
  for (size_t e = 0; e < slot.input.size(); ++e) {
    uint64_t d = 0;
    if (dy == nullptr) {
      d = ToyUpstream(visit.micro_batch, static_cast<int64_t>(e),
                      slot.output[e]);
    } else {
      std::memcpy(&d, static_cast<const uint64_t*>(dy) + e, sizeof(d));
    }
    slot.upstream[e] = d;
    d *= model_.a();
    if (model_.stage == 0) {
      kept[e] = d;
    } else {
      std::memcpy(static_cast<uint64_t*>(dx) + e, &d, sizeof(d));
    }
  }
}

void ToyStage::MakeWeight(const StageVisit& visit) {
  Slot& slot = slots_[static_cast<size_t>(visit.slot)];
  for (size_t e = 0; e < slot.input.size(); ++e) {
    result_.dw += slot.upstream[e] * slot.input[e];
    result_.db += slot.upstream[e];
  }
  slot.micro_batch = -1;
}

Status ToyStage::BackwardInput(const StageVisit& visit, const void* x,
                               const void* dy, void* dx) {
  SP_RETURN_IF_ERROR(CheckAddresses(
      visit, dy, dx, model_.stage<model_.stages - 1, model_.stage> 0));
  SP_RETURN_IF_ERROR(Check(visit, x));
  MakeInput(visit, dy, dx);
  return OkStatus();
}

Status ToyStage::BackwardWeight(const StageVisit& visit, const void* x,
                                const void* dy) {
  SP_RETURN_IF_ERROR(Check(visit, x));
  const Slot& slot = slots_[static_cast<size_t>(visit.slot)];
  if (dy != slot.dy || (dy != nullptr && !Same(dy, slot.upstream))) {
    return Internal("dy of micro-batch {} has changed", visit.micro_batch);
  }
  MakeWeight(visit);
  return OkStatus();
}

Status ToyStage::Backward(const StageVisit& visit, const void* x,
                          const void* dy, void* dx) {
  SP_RETURN_IF_ERROR(BackwardInput(visit, x, dy, dx));
  MakeWeight(visit);
  return OkStatus();
}

}  // namespace shardproof
