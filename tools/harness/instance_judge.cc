// One execution, and what the ranks make of it together.
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "tools/harness/deadline.h"
#include "tools/harness/hash.h"
#include "tools/harness/instance_run.h"

namespace shardproof::internal {
namespace {

constexpr size_t kMaxMismatches = 8;

std::string When(std::string_view when, std::string what) {
  return when.empty() ? what : fmt::format("{}: {}", when, what);
}

}  // namespace

Account InstanceRun::RunOnce(const Execution& execution) {
  buffers_->Fill(*execution.inputs);
  const Traffic before = work_.traffic();
  Status status = operation_();
  const Status queued = buffers_->stream().Synchronize();
  if (status.ok()) status = queued;
  const Traffic used = work_.traffic() - before;
  Account account;
  account.traffic = used;
  if (!status.ok()) {
    account.status = std::move(status);
    return account;
  }
  CheckSurroundings(execution, account);
  HashOutputs(account);
  return account;
}

bool InstanceRun::InPlace() const {
  return std::ranges::any_of(
      tensors_, [](const TensorSpec& spec) { return !spec.alias.empty(); });
}

Account InstanceRun::LookAsIs(const Execution& execution) const {
  Account account;
  CheckSurroundings(execution, account);
  if (!InPlace()) {
    CheckOutputs(execution, account);
    HashOutputs(account);
  }
  return account;
}

void InstanceRun::CheckSurroundings(const Execution& execution,
                                    Account& account) const {
  Status status = buffers_->CheckGuards();
  if (status.ok()) status = buffers_->CheckInputs(*execution.inputs);
  if (!status.ok()) account.fault = status.message();
}

void InstanceRun::HashOutputs(Account& account) const {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].role != TensorRole::kOutput) continue;
    const TensorView& view = buffers_->view(i);
    account.hashes.push_back(
        HashBytes(view.data, static_cast<size_t>(view.num_bytes())));
  }
}

void InstanceRun::CheckOutputs(const Execution& execution,
                               Account& account) const {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const TensorSpec& spec = tensors_[i];
    if (spec.role != TensorRole::kOutput) continue;
    const Segments segments =
        ComparedSegments(spec, comm_.rank(), comm_.size(), sample_);
    account.figures.Add(CompareOutput({.expected = execution.expected.get(),
                                       .spec = &spec,
                                       .rank = comm_.rank(),
                                       .ranks = comm_.size(),
                                       .tier = execution.tier,
                                       .population = population_},
                                      buffers_->view(i), segments));
  }
}

StatusOr<std::vector<Account>> InstanceRun::Exchange(
    const Account& mine) const {
  // Having failed, this rank cannot know whether the others will return from
  // the same operation.
  std::optional<Deadline> grace;
  if (!mine.status.ok()) {
    grace.emplace(options_.grace_seconds, [this, &mine] {
      comm_.Abort(fmt::format(
          "rank {}: {}; after {:g} s other ranks had not returned",
          comm_.rank(), mine.status.message(), options_.grace_seconds));
    });
  }
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                      comm_.ExchangeControl(mine.Serialize()));
  std::vector<Account> accounts;
  for (const std::string& bytes : all) {
    SP_ASSIGN_OR_RETURN(accounts.emplace_back(), Account::Parse(bytes));
  }
  return accounts;
}

StatusOr<bool> InstanceRun::Execute(Execution& execution,
                                    std::string_view when) {
  Account mine;
  mine.status = execution.expected->Prepare(state_->locality.workspace.get(),
                                            execution.key, TogetherFits());
  if (mine.status.ok()) mine = RunOnce(execution);
  if (mine.status.ok()) CheckOutputs(execution, mine);
  if (execution.twice && mine.status.ok()) {
    const Account again = RunOnce(execution);
    if (!again.status.ok()) {
      mine.status = again.status;
    } else if (again.hashes != mine.hashes && mine.fault.empty()) {
      mine.fault = "a second run on the same inputs gave other bits";
    } else if (mine.fault.empty()) {
      mine.fault = again.fault;
    }
  }
  SP_ASSIGN_OR_RETURN(const std::vector<Account> accounts, Exchange(mine));
  SP_ASSIGN_OR_RETURN(const bool go_on, Judge(execution, accounts, when));
  // Dense references are large. The last is wanted again after timing.
  if (&execution != &executions_.back()) execution.expected->Release();
  return go_on;
}

bool InstanceRun::JudgeStatus(const std::vector<Account>& accounts,
                              std::string_view when) {
  const Account* first = nullptr;
  int failed = 0;
  bool alike = true;
  for (const Account& a : accounts) {
    if (a.status.ok()) continue;
    if (first == nullptr) first = &a;
    alike = alike && a.status.code() == first->status.code();
    ++failed;
  }
  // What is damaged is wrong, and the others' errors come of it.
  const auto damaged =
      std::ranges::find(accounts, StatusCode::kDataLoss,
                        [](const Account& a) { return a.status.code(); });
  if (damaged != accounts.end()) first = &*damaged;
  if (first == nullptr) return true;
  const bool all = failed == comm_.size();
  in_step_ = all && alike;
  const StatusCode code = first->status.code();
  const bool refused = (all && alike && code == StatusCode::kUnsupported) ||
                       code == StatusCode::kOutOfMemory;
  const std::string message(first->status.message());
  const std::string who =
      all && alike
          ? message
          : fmt::format("rank {}: {}", first - accounts.data(), message);
  return Conclude(refused                         ? Verdict::kUnsupported
                  : code == StatusCode::kDataLoss ? Verdict::kIncorrect
                                                  : Verdict::kFailed,
                  When(when, who));
}

StatusOr<bool> InstanceRun::Judge(const Execution& execution,
                                  const std::vector<Account>& accounts,
                                  std::string_view when) {
  if (!JudgeStatus(accounts, when)) return false;
  Figures figures;
  for (const Account& a : accounts) figures.Add(a.figures);
  NoteFigures(execution.tier, figures);
  for (size_t r = 0; r < accounts.size(); ++r) {
    if (accounts[r].fault.empty()) continue;
    return Conclude(
        Verdict::kIncorrect,
        When(when, fmt::format("rank {}: {}", r, accounts[r].fault)));
  }
  std::string replicas = ReplicasDiffer(accounts);
  if (figures.outcome == Outcome::kIncorrect || !replicas.empty()) {
    SP_RETURN_IF_ERROR(Diagnose(execution, std::move(replicas), when));
    return false;
  }
  if (std::string why = TrafficDiffers(accounts); !why.empty()) {
    return Conclude(Verdict::kIncorrect, When(when, std::move(why)));
  }
  if (figures.outcome == Outcome::kSuspect && suspect_.empty()) {
    suspect_ = When(when, fmt::format("beyond the likely bound by a factor of "
                                      "up to {:.3g}, within the certain one",
                                      figures.worst_ratio));
  }
  return true;
}

std::string InstanceRun::ReplicasDiffer(
    const std::vector<Account>& accounts) const {
  size_t output = 0;
  for (const TensorSpec& spec : tensors_) {
    if (spec.role != TensorRole::kOutput) continue;
    for (size_t r = 1; r < accounts.size() && spec.is_replica(); ++r) {
      if (accounts[r].hashes.size() <= output ||
          accounts[r].hashes[output] == accounts[0].hashes[output]) {
        continue;
      }
      return fmt::format("{} has other bits on rank {} than on rank 0",
                         spec.name, r);
    }
    ++output;
  }
  return {};
}

Instance InstanceRun::Placed() const {
  Instance placed = instance_;
  if (options_.ordinary_memory && !comm_.backend().SharesAddressSpace()) {
    placed.memory = Memory::kOrdinary;
  }
  placed.node_of = comm_.topology().node_of;
  return placed;
}

std::optional<Cost> InstanceRun::DeclaredCost() const {
  return variant_.cost(Placed());
}

std::string InstanceRun::TrafficDiffers(const std::vector<Account>& accounts) {
  Traffic counted;
  for (const Account& a : accounts) {
    if (!a.traffic.has_value()) return {};
    counted += *a.traffic;
  }
  record_.traffic =
      Record::Traffic{.bytes = counted.bytes, .messages = counted.messages};
  const std::optional<Cost> cost = DeclaredCost();
  if (!cost.has_value()) return {};
  record_.traffic->predicted_bytes = cost->total.bytes;
  record_.traffic->predicted_messages = cost->total.messages;
  if (counted == cost->total) return {};
  return fmt::format(
      "{} bytes in {} messages were counted, the cost declares {} in {}",
      counted.bytes, counted.messages, cost->total.bytes, cost->total.messages);
}

Status InstanceRun::Diagnose(const Execution& execution, std::string replicas,
                             std::string_view when) {
  Finding mine;
  for (size_t i = 0; i < tensors_.size() && mine.reason.empty(); ++i) {
    const TensorSpec& spec = tensors_[i];
    if (spec.role != TensorRole::kOutput) continue;
    const Comparison comparison = DiagnoseOutput(
        {.expected = execution.expected.get(),
         .spec = &spec,
         .rank = comm_.rank(),
         .ranks = comm_.size(),
         .tier = execution.tier,
         .population = population_},
        buffers_->view(i),
        SampledSegments(spec, comm_.rank(), comm_.size(), sample_),
        *execution.inputs, tensors_);
    if (comparison.outcome == Outcome::kIncorrect) {
      mine = MakeFinding(spec, comm_.rank(), comparison);
    }
  }
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                      comm_.ExchangeControl(mine.Serialize()));
  std::string reason, diagnosis;
  std::vector<Record::Mismatch> mismatches;
  std::vector<size_t> wrong;
  for (size_t r = 0; r < all.size(); ++r) {
    SP_ASSIGN_OR_RETURN(const Finding finding, Finding::Parse(all[r]));
    if (finding.reason.empty()) continue;
    wrong.push_back(r);
    if (reason.empty()) {
      reason = finding.reason;
      diagnosis = finding.diagnosis;
    }
    for (const Record::Mismatch& m : finding.mismatches) {
      if (mismatches.size() < kMaxMismatches) mismatches.push_back(m);
    }
  }
  if (wrong.size() > 1) {
    reason += fmt::format(" (ranks {} are wrong)", fmt::join(wrong, ", "));
  }
  if (!diagnosis.empty()) reason += fmt::format("; {}", diagnosis);
  if (reason.empty()) reason = std::move(replicas);
  if (reason.empty()) reason = "an output is wrong";
  record_.error->mismatches = std::move(mismatches);
  record_.error->diagnosis = std::move(diagnosis);
  Conclude(
      Verdict::kIncorrect,
      When(when, fmt::format("{} tier: {}", Name(execution.tier), reason)));
  return OkStatus();
}

void InstanceRun::NoteFigures(Tier tier, const Figures& figures) {
  const std::string name(Name(tier));
  if (!record_.error.has_value() || record_.error->tier != name) {
    record_.error = Record::Error{.tier = name};
  }
  Record::Error& e = *record_.error;
  e.worst_ratio = std::max(e.worst_ratio, figures.worst_ratio);
  e.max_abs = std::max(e.max_abs, figures.max_abs);
  e.max_ulp = std::max(e.max_ulp, figures.max_ulp);
  e.compared += figures.compared;
  if (figures.has_gain && (!e.gain.has_value() || std::abs(figures.gain - 1) >
                                                      std::abs(*e.gain - 1))) {
    e.gain = figures.gain;
  }
}

// At most `most` of them, evenly spread, in their order.
static std::vector<double> Thinned(const std::vector<double>& all,
                                   size_t most) {
  if (all.size() <= most) return all;
  std::vector<double> kept(most);
  for (size_t i = 0; i < most; ++i) kept[i] = all[i * all.size() / most];
  return kept;
}

void InstanceRun::NoteTime(const Timing& timing) {
  Record::Time t{.median = timing.median_us,
                 .p10 = timing.p10_us,
                 .p90 = timing.p90_us,
                 .min = timing.min_us,
                 .max = timing.max_us,
                 .interval_low = timing.interval_low_us,
                 .interval_high = timing.interval_high_us,
                 .samples = static_cast<int>(timing.samples_us.size()),
                 .operations_per_sample = timing.operations_per_sample,
                 .cadence = options_.timing.cadence == Cadence::kStreaming
                                ? "streaming"
                                : "isolated",
                 .per_rank_median = timing.per_rank_median_us,
                 .samples_us = Thinned(timing.samples_us, kKeptSamples)};
  for (const auto& rank : timing.rank_samples_us) {
    t.rank_samples_us.push_back(Thinned(rank, kKeptRankSamples));
  }
  if (!timing.warmup_settled) t.flags.emplace_back("warm-up did not settle");
  if (!timing.target_reached) t.flags.emplace_back("wide interval");
  const double median = timing.median_us;
  const auto bytes = static_cast<double>(info_.bytes(instance_));
  if (median > 0 && bytes > 0) {
    record_.algbw_gbps = bytes / median * 1e-3;  // Bytes per us is 1e6 / s.
    record_.busbw_gbps = *record_.algbw_gbps * info_.busbw_factor(instance_);
  }
  const double flops = info_.flops(instance_);
  if (median > 0 && flops > 0) record_.gflops = flops / median * 1e-3;
  if (options_.rates.has_value()) {
    const MachineRates& rates = *options_.rates;
    if (const auto cost = DeclaredCost()) {
      record_.predicted_us = rates.PredictUs(*cost);
    }
    record_.floor_us = rates.FloorUs(info_.floor(instance_));
  }
  record_.time_us = std::move(t);
}

}  // namespace shardproof::internal
