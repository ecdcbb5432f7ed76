// Every schedule, broken at random: what the validator accepts runs to its end in
// the simulator, each action once; what it refuses is wrong where it says, which a
// model finds that does the schedule step by step.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "pipeline/registry.h"
#include "pipeline/simulator.h"
#include "pipeline/validator.h"

namespace shardproof {
namespace {

// A letter, a micro-batch and a stage. 'X' is B or I, whichever there is.
using Done = std::tuple<char, int, int>;

// What a schedule comes to, one action after the other. Slow and simple.
class Model {
 public:
  explicit Model(const Schedule& s) : s_(s) {}

  // How the message about the first action that is wrong begins; empty: none is.
  std::string FirstWrong() {
    for (int rank = 0; rank < s_.ranks(); ++rank) {
      if (std::string wrong = WrongAlone(rank); !wrong.empty()) return wrong;
    }
    for (const bool together : {false, true}) {
      if (std::string wrong = Stuck(together); !wrong.empty()) return wrong;
    }
    return "";
  }

  static bool Has(const std::set<Done>& done, const Done& what) {
    const auto [letter, m, stage] = what;
    if (letter != 'X') return done.count(what) > 0;
    return done.count({'B', m, stage}) > 0 || done.count({'I', m, stage}) > 0;
  }

  // What an action at a stage needs.
  std::vector<Done> Needs(char letter, int m, int stage) const {
    if (letter == 'W') return {{'I', m, stage}};
    std::vector<Done> needs;
    if (letter == 'F') {
      if (stage > 0) needs.emplace_back('F', m, stage - 1);
      return needs;
    }
    needs.emplace_back('F', m, stage);
    if (stage + 1 < s_.stages()) needs.emplace_back('X', m, stage + 1);
    return needs;
  }

  Done DoneBy(int rank, const Action& a) const {
    return {Letter(a.kind), a.micro_batch,
            s_.StageAt(a.micro_batch, {rank, a.chunk})};
  }

 private:
  const std::vector<Action>& Of(int rank) const {
    return s_.actions[static_cast<size_t>(rank)];
  }
  bool HasMeaning(int rank, const Action& a) const {
    return a.micro_batch >= 0 && a.micro_batch < s_.micro_batches &&
           std::get<2>(DoneBy(rank, a)) >= 0;
  }
  std::string Text(const Done& what) const {
    const auto [letter, m, stage] = what;
    const int chunk = s_.PlaceOf(m, stage).chunk;
    for (const ActionKind kind : {ActionKind::kForward, ActionKind::kBackward,
                                  ActionKind::kInput, ActionKind::kWeight}) {
      if (Letter(kind) == letter) return s_.Text({kind, m, chunk});
    }
    return "?";
  }
  // All that a rank does somewhere.
  std::set<Done> AllOf(int rank) const {
    std::set<Done> all;
    for (const Action& a : Of(rank)) {
      if (HasMeaning(rank, a)) all.insert(DoneBy(rank, a));
    }
    return all;
  }
  // 'X' as what comes first on its rank, or should.
  Done Named(const Done& what) const {
    const auto [letter, m, stage] = what;
    if (letter != 'X') return what;
    const int rank = s_.PlaceOf(m, stage).rank;
    for (const Action& a : Of(rank)) {
      if (!HasMeaning(rank, a)) continue;
      for (const char kind : {'B', 'I'}) {
        if (DoneBy(rank, a) == Done{kind, m, stage}) return {kind, m, stage};
      }
    }
    return {AllOf(rank).count({'W', m, stage}) > 0 ? 'I' : 'B', m, stage};
  }

  bool IsWrongPair(int rank, size_t i) const {
    const std::vector<Action>& all = Of(rank);
    if (!all[i].with_next) return false;
    if (i + 1 == all.size() || all[i + 1].with_next) return true;
    const std::string kinds = {Letter(all[i].kind), Letter(all[i + 1].kind)};
    return (kinds != "FB" && kinds != "BF") ||
           all[i].micro_batch == all[i + 1].micro_batch;
  }

  std::string WrongAlone(int rank) const {
    const std::set<Done> all = AllOf(rank);
    std::set<Done> done;
    for (size_t i = 0; i < Of(rank).size(); ++i) {
      const Action& a = Of(rank)[i];
      const std::string here =
          fmt::format("rank {}, action {}, {}: ", rank, i, s_.Text(a));
      if (!HasMeaning(rank, a)) return here;
      const Done what = DoneBy(rank, a);
      const auto [letter, m, stage] = what;
      if (done.count(what) > 0) return here;
      if (letter == 'B' && (done.count({'I', m, stage}) > 0 ||
                            done.count({'W', m, stage}) > 0)) {
        return here;
      }
      if ((letter == 'I' || letter == 'W') && done.count({'B', m, stage}) > 0) {
        return here;
      }
      if (IsWrongPair(rank, i)) return here;
      for (const Done& need : Needs(letter, m, stage)) {
        const int other = std::get<2>(need);
        if (s_.PlaceOf(m, other).rank != rank || Has(done, need)) continue;
        if (Has(all, need)) return here + "its " + Text(Named(need));
        return Never(rank, Named(need));
      }
      done.insert(what);
    }
    for (int m = 0; m < s_.micro_batches; ++m) {
      for (int stage = 0; stage < s_.stages(); ++stage) {
        if (s_.PlaceOf(m, stage).rank != rank) continue;
        for (const Done& what :
             {Done{'F', m, stage}, Done{'X', m, stage}, Done{'W', m, stage}}) {
          const bool whole = done.count({'B', m, stage}) > 0;
          if (std::get<0>(what) == 'W' && whole) continue;
          if (!Has(done, what)) return Never(rank, Named(what));
        }
      }
    }
    return "";
  }
  std::string Never(int rank, const Done& what) const {
    return fmt::format("rank {} never does {}, of stage {}", rank, Text(what),
                       std::get<2>(what));
  }

  // Every rank does its next action, or its next pair, as soon as it can.
  std::string Stuck(bool together) const {
    std::set<Done> done;
    std::vector<size_t> next(s_.actions.size());
    const auto missing = [&](int rank) -> std::vector<Done> {
      const size_t first = next[static_cast<size_t>(rank)];
      const size_t count = together && Of(rank)[first].with_next ? 2 : 1;
      std::vector<Done> missing_ones;
      for (size_t i = first; i < first + count; ++i) {
        const auto [letter, m, stage] = DoneBy(rank, Of(rank)[i]);
        for (const Done& need : Needs(letter, m, stage)) {
          if (!Has(done, need)) missing_ones.push_back(need);
        }
      }
      return missing_ones;
    };
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < s_.ranks(); ++rank) {
        size_t& i = next[static_cast<size_t>(rank)];
        if (i == Of(rank).size() || !missing(rank).empty()) continue;
        const bool pair = together && Of(rank)[i].with_next;
        done.insert(DoneBy(rank, Of(rank)[i++]));
        if (pair) done.insert(DoneBy(rank, Of(rank)[i++]));
        moved = true;
      }
    }
    for (int rank = 0; rank < s_.ranks(); ++rank) {
      if (next[static_cast<size_t>(rank)] == Of(rank).size()) continue;
      const Done need = missing(rank).front();
      const auto [letter, m, stage] = need;
      return fmt::format("rank {} receives {} from rank {}", rank,
                         Text(Named(need)), s_.PlaceOf(m, stage).rank);
    }
    return "";
  }

  const Schedule& s_;
};

// Each action of each micro-batch at each stage once, none before what it needs.
void ExpectWholeAndInOrder(const Schedule& s, const Simulation& simulated) {
  const Model model(s);
  std::map<Done, TimeSpan> times;
  std::set<Done> done;
  for (int rank = 0; rank < s.ranks(); ++rank) {
    const auto r = static_cast<size_t>(rank);
    ASSERT_EQ(simulated.times[r].size(), s.actions[r].size());
    for (size_t i = 0; i < s.actions[r].size(); ++i) {
      const Done what = model.DoneBy(rank, s.actions[r][i]);
      EXPECT_TRUE(times.emplace(what, simulated.times[r][i]).second);
      done.insert(what);
    }
  }
  for (int m = 0; m < s.micro_batches; ++m) {
    for (int stage = 0; stage < s.stages(); ++stage) {
      EXPECT_EQ(done.count({'F', m, stage}), 1U);
      EXPECT_EQ(done.count({'B', m, stage}) + done.count({'I', m, stage}), 1U);
      EXPECT_EQ(done.count({'W', m, stage}), done.count({'I', m, stage}));
    }
  }
  for (const auto& [what, time] : times) {
    const auto [letter, m, stage] = what;
    for (auto [needed, of, at] : model.Needs(letter, m, stage)) {
      if (needed == 'X') needed = done.count({'B', of, at}) > 0 ? 'B' : 'I';
      EXPECT_LE(times.at(Done{needed, of, at}).end, time.start + 1e-9);
    }
  }
}

class Breaker {
 public:
  explicit Breaker(uint64_t seed) : random_(seed) {}

  size_t Below(size_t n) { return random_() % n; }
  int Below(int n) { return static_cast<int>(Below(static_cast<size_t>(n))); }

  // One change, at random.
  void Break(Schedule& s) {
    std::vector<Action>& actions = s.actions[Below(s.actions.size())];
    if (actions.empty()) return;
    const size_t i = Below(actions.size());
    // Neighbours as often as any two: such a schedule may still run.
    const size_t j =
        Below(2) == 0 ? Below(actions.size()) : (i + 1) % actions.size();
    const auto at = actions.begin() + static_cast<ptrdiff_t>(i);
    switch (Below(9)) {
      case 0:
      case 1:
        std::swap(actions[i], actions[j]);
        break;
      case 2:
        actions.erase(at);
        break;
      case 3: {
        const Action copy = actions[j];
        actions.insert(at, copy);
        break;
      }
      case 4:  // One less than there are, and one more, too.
        at->micro_batch = Below(s.micro_batches + 2) - 1;
        break;
      case 5:
        at->chunk = Below(4) - 1;
        break;
      case 6: {
        const Action moved = *at;
        actions.erase(at);
        std::vector<Action>& to = s.actions[Below(s.actions.size())];
        to.insert(to.begin() + static_cast<ptrdiff_t>(Below(to.size() + 1)),
                  moved);
        break;
      }
      case 7: {  // Two micro-batches in each other's place, on this rank alone.
        const int a = actions[i].micro_batch, b = actions[j].micro_batch;
        for (Action& action : actions) {
          int& m = action.micro_batch;
          m = m == a ? b : m == b ? a : m;
        }
        break;
      }
      default:
        if (Below(2) == 0) {
          at->with_next = !at->with_next;
        } else {
          at->kind = static_cast<ActionKind>(Below(4));
        }
    }
  }

 private:
  std::mt19937_64 random_;
};

TEST(Validator, IsRightAboutBrokenSchedules) {
  Breaker breaker(7);
  for (const ScheduleInfo& info : Schedules()) {
    int accepted = 0, alone = 0, deadlocks = 0;
    for (int round = 0; round < 4000; ++round) {
      const int p = 2 * (1 + breaker.Below(2));
      const int v = info.takes_chunks ? 1 + breaker.Below(3) : 1;
      Schedule s = *BuildSchedule(info.name, {p, 2 * p, v});
      const int changes = 1 + breaker.Below(2);
      for (int k = 0; k < changes; ++k) breaker.Break(s);
      SCOPED_TRACE(info.name + ", round " + std::to_string(round));
      const Status valid = ValidateSchedule(s, MessageSemantics::kBuffered);
      const std::string expected = Model(s).FirstWrong();
      if (expected.empty()) {
        ++accepted;
        ASSERT_TRUE(valid.ok()) << valid.ToString();
        for (const StageCosts& costs :
             {StageCosts{}, StageCosts{.latency = 0.3, .overlapped = 2.5}}) {
          const auto simulated = Simulate(s, costs);
          ASSERT_TRUE(simulated.ok()) << simulated.status().ToString();
          ExpectWholeAndInOrder(s, *simulated);
        }
      } else {
        ASSERT_FALSE(valid.ok()) << expected;
        ASSERT_EQ(valid.message().substr(0, expected.size()), expected);
        const bool deadlock =
            valid.message().find("a deadlock") != std::string_view::npos;
        ++(deadlock ? deadlocks : alone);
        if (!deadlock) continue;
        const bool pairs =
            valid.message().find(", in pairs") != std::string_view::npos;
        EXPECT_EQ(Simulate(s, {}).ok(), pairs);
        EXPECT_FALSE(Simulate(s, {.overlapped = 2.5}).ok());
      }
      if (::testing::Test::HasFailure()) return;
    }
    // All three come often enough to be tested.
    EXPECT_GT(accepted, 200) << info.name;
    EXPECT_GT(alone, 2000) << info.name;
    EXPECT_GT(deadlocks, 40) << info.name;
  }
}

}  // namespace
}  // namespace shardproof
