// The course of RunInstance, step by step. Internal to the runner.
#ifndef SHARDPROOF_TOOLS_HARNESS_INSTANCE_RUN_H_
#define SHARDPROOF_TOOLS_HARNESS_INSTANCE_RUN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/harness/check.h"
#include "tools/harness/rank_state.h"
#include "tools/harness/runner.h"

namespace shardproof::internal {

class InstanceRun {
 public:
  InstanceRun(const Communicator& comm, const CaseInfo& info,
              const ErasedVariant& variant, const Instance& instance,
              const RunOptions& options);
  // The verdict is in the record; an error means that the world is gone.
  StatusOr<Record> Go();

 private:
  // One set of inputs, and what must come of it.
  struct Execution {
    Tier tier = Tier::kExact;
    std::unique_ptr<GeneratedInputs> inputs;
    std::unique_ptr<Expectation> expected;
    uint64_t key = 0;  // Of the expectation, in the workspace.
    bool twice = false;
  };

  // Each step returns false when the verdict has been reached.
  StatusOr<bool> SetUp();
  StatusOr<bool> Bind();
  StatusOr<bool> Verify();
  StatusOr<bool> MeasureAndVerify();

  Status OpenWork();
  void PlanExecutions();
  StatusOr<Execution> MakeExecution(Tier tier, int repeat) const;
  bool WantsBounded(bool has_exact) const;
  int Probes(Tier tier) const;
  // Whether an output lies in an input.
  bool InPlace() const;
  // Whether there is memory for as many dense references at a time as there are
  // ranks, and executions.
  bool TogetherFits() const;
  void PrepareAhead() const;
  // Whether the checks would see mistakes: the part of the question that this
  // rank answers. `proven`: what need not be asked again if all ranks agree.
  Status PowerOf(const Execution& execution, std::vector<std::string>& proven);
  Status CheckMyPart(const Execution& execution, bool drop) const;

  // Fills the buffers and runs the operation once.
  Account RunOnce(const Execution& execution);
  // Looks at what is in the buffers now, and runs nothing.
  Account LookAsIs(const Execution& execution) const;
  void CheckOutputs(const Execution& execution, Account& account) const;
  // Guard bands, and inputs that no output lies in.
  void CheckSurroundings(const Execution& execution, Account& account) const;
  void HashOutputs(Account& account) const;
  // Everyone's accounts; a rank whose own has failed starts the clock.
  StatusOr<std::vector<Account>> Exchange(const Account& mine) const;
  StatusOr<bool> Execute(Execution& execution, std::string_view when);
  // Whether the run goes on, given what all ranks found.
  StatusOr<bool> Judge(const Execution& execution,
                       const std::vector<Account>& accounts,
                       std::string_view when);
  bool JudgeStatus(const std::vector<Account>& accounts, std::string_view when);
  std::string ReplicasDiffer(const std::vector<Account>& accounts) const;
  // The instance with the nodes that the ranks really are on, and the memory
  // that their buffers lie in.
  Instance Placed() const;
  // What the variant declares for these.
  std::optional<Cost> DeclaredCost() const;
  std::string TrafficDiffers(const std::vector<Account>& accounts);
  // Says in detail what is wrong with the outputs as they are now.
  Status Diagnose(const Execution& execution, std::string replicas,
                  std::string_view when);
  void NoteFigures(Tier tier, const Figures& figures);
  void NoteTime(const Timing& timing);
  // Ends the run.
  bool Conclude(Verdict verdict, std::string reason);

  const Communicator& comm_;
  const CaseInfo& info_;
  const ErasedVariant& variant_;
  const Instance& instance_;
  const RunOptions& options_;

  Record record_;
  Tensors tensors_;
  Arithmetic arithmetic_;
  Sample sample_;
  int64_t population_ = 1;
  RankState* state_ = nullptr;
  std::unique_ptr<Interceptor> interceptor_;
  Communicator work_;
  bool in_step_ = true;  // False: the ranks left an operation differently.
  std::unique_ptr<RankBuffers> buffers_;
  Operation operation_;
  std::vector<Execution> executions_;
  std::string no_exact_;  // Why there is no exact tier, if there should be.
  std::string suspect_;
};

}  // namespace shardproof::internal

#endif  // SHARDPROOF_TOOLS_HARNESS_INSTANCE_RUN_H_
