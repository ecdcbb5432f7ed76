#include "tools/harness/instance_run.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "tools/harness/hash.h"
#include "tools/harness/power.h"

namespace shardproof::internal {
namespace {

// Above this many elements (or a hundred times as many operations of a dense
// reference), one execution per tier must do.
constexpr double kLargeWork = 1 << 24;
// Dense references of more elements, inputs and outputs, are evaluated one after
// the other.
constexpr int64_t kPrepareAhead = 1 << 22;

bool AnyOutput(const Tensors& tensors, bool (*is)(DType)) {
  return std::any_of(tensors.begin(), tensors.end(), [is](const auto& t) {
    return t.role == TensorRole::kOutput && is(t.dtype);
  });
}

}  // namespace

InstanceRun::InstanceRun(const Communicator& comm, const CaseInfo& info,
                         const ErasedVariant& variant, const Instance& instance,
                         const RunOptions& options)
    : comm_(comm),
      info_(info),
      variant_(variant),
      instance_(instance),
      options_(options),
      record_(FailedRecord(info, variant, instance, options, OkStatus())),
      tensors_(info.tensors(instance)) {
  record_.repro.clear();
  record_.verdict = Verdict::kPassed;
}

bool InstanceRun::Conclude(Verdict verdict, std::string reason) {
  record_.verdict = verdict;
  record_.reason = std::move(reason);
  if (verdict != Verdict::kPassed) {
    record_.repro = ReproLine(info_, variant_, instance_, options_);
  }
  return false;
}

StatusOr<Record> InstanceRun::Go() {
  if (instance_.ranks != comm_.size()) {
    return InvalidArgument("an instance for {} ranks was run on {}",
                           instance_.ranks, comm_.size());
  }
  if (auto why = variant_.refuses(instance_, &comm_)) {
    Conclude(Verdict::kUnsupported, std::move(*why));
    return record_;
  }
  SP_ASSIGN_OR_RETURN(state_, RankState::Of(comm_));
  SP_RETURN_IF_ERROR(OpenWork());
  SP_ASSIGN_OR_RETURN(bool go_on, SetUp());
  if (go_on) {
    SP_ASSIGN_OR_RETURN(go_on, Bind());
  }
  if (go_on) {
    SP_ASSIGN_OR_RETURN(go_on, Verify());
  }
  if (go_on && options_.measure) {
    SP_ASSIGN_OR_RETURN(go_on, MeasureAndVerify());
  }
  operation_ = nullptr;  // Before what it works on.
  if (interceptor_ == nullptr && in_step_) {
    state_->work = work_;
  } else {
    state_->work = Communicator();
  }
  return record_;
}

// A fresh duplicate where someone is to look over its shoulder: what is split
// from it inherits the interceptor, and must not outlive it.
Status InstanceRun::OpenWork() {
  const bool intercepted = static_cast<bool>(options_.interceptor);
  if (intercepted || !state_->work.valid()) {
    SP_ASSIGN_OR_RETURN(work_, comm_.Duplicate());
  } else {
    work_ = state_->work;
  }
  if (intercepted) {
    interceptor_ = options_.interceptor(comm_.rank(), comm_.size());
    work_.Intercept(interceptor_.get());
  }
  using Active = std::shared_ptr<ActiveCommunicator>;
  SP_ASSIGN_OR_RETURN(
      Active* const active,
      comm_.Attribute<Active>(kActiveAttribute, []() -> StatusOr<Active> {
        return std::make_shared<ActiveCommunicator>();
      }));
  (*active)->Add(work_);
  return OkStatus();
}

StatusOr<bool> InstanceRun::SetUp() {
  population_ = Population(tensors_, comm_.size());
  const TensorSpec* output = nullptr;
  for (const TensorSpec& t : tensors_) {
    if (t.role == TensorRole::kOutput && output == nullptr) output = &t;
  }
  if (output == nullptr) {
    return Conclude(Verdict::kFailed, "the case has no output");
  }
  arithmetic_ = variant_.arithmetic(Placed()).value_or(
      Arithmetic::For(output->dtype, comm_.size()));
  sample_ = PlanSample(
      tensors_, comm_.size(), info_.dense ? info_.flops(instance_) : 0,
      {.elements = options_.check_elements, .flops = options_.check_flops},
      options_.seed);
  PlanExecutions();
  if (executions_.empty()) {
    return Conclude(Verdict::kUnsupported,
                    fmt::format("nothing can be checked: {}", no_exact_));
  }
  Account mine;
  auto buffers = RankBuffers::Create(work_, tensors_, options_.ordinary_memory,
                                     state_->pool);
  if (buffers.ok()) {
    buffers_ = *std::move(buffers);
  } else {
    mine.status = buffers.status();
  }
  if (mine.status.ok()) PrepareAhead();
  std::vector<std::string> proven;
  std::optional<Tier> last;
  for (const Execution& e : executions_) {
    if (last == e.tier || !mine.status.ok()) continue;
    last = e.tier;
    if (Status s = PowerOf(e, proven); !s.ok() && mine.fault.empty()) {
      mine.fault = fmt::format("{} ({} tier)", s.message(), Name(e.tier));
    }
  }
  SP_ASSIGN_OR_RETURN(const std::vector<Account> accounts, Exchange(mine));
  if (!JudgeStatus(accounts, "")) return false;
  for (const Account& a : accounts) {
    if (!a.fault.empty()) return Conclude(Verdict::kFailed, a.fault);
  }
  for (std::string& what : proven) {
    state_->power_checked.insert(std::move(what));
  }
  return true;
}

int InstanceRun::Probes(Tier tier) const {
  return tier == Tier::kBounded && info_.dense ? info_.probes(instance_) : 0;
}

StatusOr<InstanceRun::Execution> InstanceRun::MakeExecution(Tier tier,
                                                            int repeat) const {
  Execution e;
  e.tier = tier;
  const uint64_t seed =
      CombineHash(options_.seed, 2 * static_cast<uint64_t>(repeat) +
                                     (tier == Tier::kExact ? 0 : 1));
  SP_ASSIGN_OR_RETURN(
      e.inputs, GeneratedInputs::Create(tensors_, comm_.size(), tier, seed));
  e.expected =
      std::make_unique<Expectation>(info_, instance_, tensors_, arithmetic_,
                                    *e.inputs, sample_, Probes(tier));
  const Arithmetic& a = arithmetic_;
  e.key = HashText(fmt::format(
      "{} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", info_.name,
      ParamsText(record_), comm_.size(), seed, Name(a.accumulate), Name(a.wire),
      Name(a.store), a.partials, a.wire_roundings, a.depth, Name(a.reduce),
      a.u_accumulate, a.function_ulps, sample_.size(), Probes(tier)));
  for (const auto& [name, indices] : sample_) {
    e.key = CombineHash(
        e.key, HashBytes(indices.data(), indices.size() * sizeof(int64_t)));
  }
  return e;
}

// Sums of 8-bit floats differ so much between orders that a bound sees little:
// the exact tier is the only one for them.
bool InstanceRun::WantsBounded(bool has_exact) const {
  if (!info_.bounded || !AnyOutput(tensors_, IsFloat)) return false;
  return !has_exact || AnyOutput(tensors_, [](DType t) {
    return IsFloat(t) && SizeOf(t) > 1;
  });
}

void InstanceRun::PlanExecutions() {
  const double work = static_cast<double>(population_) +
                      (info_.dense ? info_.flops(instance_) / 100 : 0);
  const PassedBefore passed = options_.passed_before;
  const bool once = work > kLargeWork || passed != PassedBefore::kNowhere;
  const int repeats = once ? 1 : std::max(1, options_.repeats);
  bool has_exact = info_.exact || !AnyOutput(tensors_, IsFloat);
  for (int k = 0; k < repeats && has_exact; ++k) {
    auto e = MakeExecution(Tier::kExact, k);
    if (!e.ok()) {
      no_exact_ = e.status().message();
      has_exact = false;
      break;
    }
    executions_.push_back(*std::move(e));
  }
  for (int k = 0; k < repeats && WantsBounded(has_exact); ++k) {
    auto e = MakeExecution(Tier::kBounded, k);
    if (!e.ok()) {
      no_exact_ = e.status().message();
      break;
    }
    e->twice =
        k == 0 && variant_.deterministic && passed == PassedBefore::kNowhere;
    executions_.push_back(*std::move(e));
  }
  if (passed == PassedBefore::kHere && !executions_.empty()) {
    executions_.erase(executions_.begin(), executions_.end() - 1);
  }
}

Status InstanceRun::PowerOf(const Execution& execution,
                            std::vector<std::string>& proven) {
  std::string kind =
      fmt::format("{} {} {}", info_.name, variant_.name, Name(execution.tier));
  // What a comparison sees depends on how many elements it has, and bounds on
  // how many terms are added.
  std::string shapes = "shapes";
  int64_t elements = 0;
  for (const TensorSpec& t : tensors_) {
    kind += fmt::format(" {} {}", Name(t.dtype), Name(t.data.op));
    shapes += fmt::format(" {} {}", t.shape.ToString(), t.sharding.name);
    if (t.role == TensorRole::kOutput) elements += t.shape.NumElements();
  }
  // Variants of the same arithmetic are held to the same expectation.
  const std::string key = fmt::format("{:x} {}", execution.key, shapes);
  const std::string key_drop = key + " drop";
  shapes += kind;
  const auto& known = state_->power_checked;
  if (elements < kPowerMinElements || known.contains(shapes)) return OkStatus();
  // Dropping ranks evaluates a dense reference once more for each of them, and is
  // asked of one shape of each kind.
  const bool quick =
      !info_.dense || (info_.flops(instance_) < 1e8 &&
                       (options_.passed_before == PassedBefore::kNowhere ||
                        static_cast<double>(population_) <= kLargeWork));
  const bool drop = quick && !known.contains(kind);
  if (!known.contains(key_drop) && (drop || !known.contains(key))) {
    SP_RETURN_IF_ERROR(CheckMyPart(execution, drop));
  }
  proven.push_back(std::move(shapes));
  proven.push_back(key);
  if (drop) {
    proven.push_back(std::move(kind));
    proven.push_back(key_drop);
  }
  return OkStatus();
}

Status InstanceRun::CheckMyPart(const Execution& execution, bool drop) const {
  // Block references are quick, and would be asked for every look at them by
  // every rank.
  const bool shared = info_.dense && TogetherFits();
  const int ranks = comm_.size();
  if (comm_.rank() != 0 && (!shared || !drop)) return OkStatus();
  SP_RETURN_IF_ERROR(execution.expected->Prepare(
      state_->locality.workspace.get(), execution.key, TogetherFits()));
  if (comm_.rank() == 0) {
    SP_RETURN_IF_ERROR(CheckPower(*execution.expected, *execution.inputs,
                                  tensors_, ranks, execution.tier));
  }
  std::vector<int> dropped;
  for (int r = 0; drop && r < ranks; ++r) {
    if (!shared || r == comm_.rank()) dropped.push_back(r);
  }
  return CheckDrops(*execution.expected, *execution.inputs, tensors_, ranks,
                    execution.tier, dropped);
}

StatusOr<bool> InstanceRun::Bind() {
  Account mine;
  auto operation = variant_.bind(instance_, *buffers_);
  if (operation.ok()) {
    operation_ = *std::move(operation);
  } else {
    mine.status = operation.status();
  }
  SP_ASSIGN_OR_RETURN(const std::vector<Account> accounts, Exchange(mine));
  return JudgeStatus(accounts, "");
}

StatusOr<bool> InstanceRun::Verify() {
  for (Execution& e : executions_) {
    SP_ASSIGN_OR_RETURN(const bool go_on, Execute(e, ""));
    if (!go_on) return false;
  }
  if (!suspect_.empty()) return Conclude(Verdict::kSuspect, suspect_);
  return true;
}

bool InstanceRun::TogetherFits() const {
  return ElementsOf(tensors_) <= kPrepareAhead;
}

// The ranks of a process share the work: which is most of it where references
// are probed.
void InstanceRun::PrepareAhead() const {
  if (!info_.dense || !TogetherFits()) return;
  for (const Execution& e : executions_) {
    // An error comes back when it is needed.
    e.expected->PrepareAhead(*state_->locality.workspace, e.key);
  }
}

StatusOr<bool> InstanceRun::MeasureAndVerify() {
  // What is checked afterwards is not what was there before.
  if (!InPlace()) buffers_->PoisonOutputs();
  auto timing = Measure(work_, buffers_->stream(), operation_, options_.timing);
  if (!timing.ok() && !comm_.health().ok()) return timing.status();
  Execution& last = executions_.back();
  Account mine;
  if (!timing.ok()) {
    mine.status = timing.status();
  } else {
    // What the last timed operation left is what it should have left, unless
    // it worked on its own output.
    mine = LookAsIs(last);
  }
  last.twice = false;
  SP_ASSIGN_OR_RETURN(const std::vector<Account> accounts, Exchange(mine));
  SP_ASSIGN_OR_RETURN(bool go_on, Judge(last, accounts, "after timing"));
  // What worked on its own output shows nothing of the timed executions.
  if (go_on &&
      (options_.passed_before == PassedBefore::kNowhere || InPlace())) {
    SP_ASSIGN_OR_RETURN(Execution fresh,
                        MakeExecution(last.tier, /*repeat=*/1000));
    SP_ASSIGN_OR_RETURN(go_on, Execute(fresh, "after timing"));
  }
  if (!go_on) return false;
  if (!suspect_.empty()) return Conclude(Verdict::kSuspect, suspect_);
  NoteTime(*timing);
  return true;
}

}  // namespace shardproof::internal
