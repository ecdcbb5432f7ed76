// GPT-2 124M on real text, on every layout beside the single device:
//
//     bazel run //pipeline:gpt2_training
//     bazel run //pipeline:gpt2_training -- --layout tp=2,dp=2,zero=2 --steps 5
//
// It prints the loss of every step, and for each layout the tokens per second and
// the largest differences from the single device, of losses and of norms of
// gradients. It exits with 1 where one is more than rounding explains
// (agreement.h), with 2 for options that make no model or layout, and with 6 where
// training fails; --runs 0 judges nothing, and saves the time of those runs.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "pipeline/gpt2/agreement.h"
#include "pipeline/gpt2/training.h"
#include "reference/bounded.h"
#include "reference/probe.h"

namespace shardproof::gpt2 {
namespace {

struct Options {
  TrainingOptions training;
  int runs = 8;
  std::vector<std::string> layouts = {"tp=4",        "pp=4",      "dp=4,zero=1",
                                      "dp=4,zero=3", "tp=2,pp=2", "cp=2,dp=2"};
};

struct Trained {
  std::string name;
  Curve curve;
};

// Of each step, of a loss and of a norm.
struct Allowed {
  std::vector<double> losses, norms;
};

// From the single device on neighbouring parameters; two runs at a time, since
// each is one thread.
StatusOr<Allowed> FindAllowed(const Options& options, const Layout& layout,
                              const std::vector<float>& initial,
                              const Curve& single, double population) {
  std::vector<StatusOr<Curve>> curves(static_cast<size_t>(options.runs),
                                      StatusOr<Curve>(Curve()));
  const auto run = [&](size_t k) {
    std::vector<float> moved = initial;
    MoveToNeighbours(k, moved);
    curves[k] = Train(options.training, layout, moved);
  };
  for (size_t k = 0; k < curves.size(); k += 2) {
    std::thread other;
    if (k + 1 < curves.size()) other = std::thread(run, k + 1);
    run(k);
    if (other.joinable()) other.join();
    fmt::print(stderr, "{} of {} runs from neighbouring parameters\n",
               std::min(k + 2, curves.size()), curves.size());
  }
  std::vector<std::vector<double>> losses, norms;
  for (StatusOr<Curve>& curve : curves) {
    SP_RETURN_IF_ERROR(curve.status());
    losses.push_back(std::move(curve->losses));
    norms.push_back(std::move(curve->norms));
  }
  return Allowed{AllowedDifferences(single.losses, losses, population),
                 AllowedDifferences(single.norms, norms, population)};
}

void PrintLosses(const std::vector<Trained>& all, const Allowed& allowed) {
  fmt::print("\nloss of each step, and the difference that is allowed\n{:4}",
             "step");
  for (const Trained& t : all) fmt::print("{:>13}", t.name);
  fmt::print("{:>11}\n", "allowed");
  for (size_t step = 0; step < allowed.losses.size(); ++step) {
    fmt::print("{:4}", step);
    for (const Trained& t : all) fmt::print("{:13.8f}", t.curve.losses[step]);
    fmt::print("{:>11.1e}\n", allowed.losses[step]);
  }
}

// Whether all are equal to the first.
bool PrintAgreement(const std::vector<Trained>& all, const Allowed& allowed) {
  const Curve& single = all.front().curve;
  fmt::print(
      "\nlargest differences from {}, and the largest shares of what is "
      "allowed\n{:13}{:>10}{:>11}{:>9}{:>10}{:>11}{:>9}{:>10}\n",
      all.front().name, "layout", "tokens/s", "of losses", "at step", "share",
      "of norms", "at step", "share");
  bool all_equal = true;
  for (const Trained& t : all) {
    const Agreement loss =
        Compare(t.curve.losses, single.losses, allowed.losses);
    const Agreement norm = Compare(t.curve.norms, single.norms, allowed.norms);
    const bool equal = loss.equal && norm.equal;
    all_equal = all_equal && equal;
    fmt::print("{:13}{:10.1f}{:11.1e}{:9}{:10.4f}{:11.1e}{:9}{:10.4f}{}\n",
               t.name, t.curve.tokens_per_second, loss.largest, loss.step,
               loss.share, norm.largest, norm.step, norm.share,
               equal ? "" : "  DIFFERS");
  }
  return all_equal;
}

StatusOr<bool> Run(const Options& options) {
  const TrainingOptions& training = options.training;
  SP_ASSIGN_OR_RETURN(const Layout single, ParseLayout("tp=1"));
  std::vector<Layout> layouts = {single};
  for (const std::string& text : options.layouts) {
    SP_ASSIGN_OR_RETURN(const Layout layout, ParseLayout(text));
    SP_RETURN_IF_ERROR(
        CheckTrainStep(ConfigOf(training, layout), layout.mesh.ranks())
            .WithContext(text));
    layouts.push_back(layout);
  }
  const std::vector<float> initial = InitialParameters(training);
  fmt::print(
      "{} blocks, hidden {}, {} heads, vocabulary {}: {:.1f} million "
      "parameters in f32\n{} steps on {} sequences of {} bytes\n",
      training.blocks, training.hidden, training.heads, training.vocabulary,
      1e-6 * static_cast<double>(initial.size()), training.steps,
      training.sequences, training.length);
  std::fflush(stdout);
  std::vector<Trained> all;
  for (const Layout& layout : layouts) {
    SP_ASSIGN_OR_RETURN(Curve curve, Train(training, layout, initial));
    all.push_back({Describe(layout), std::move(curve)});
    fmt::print(stderr, "trained {}: {:.1f} tokens/s\n", all.back().name,
               all.back().curve.tokens_per_second);
  }
  // A loss and a norm of each step; the single device is compared with itself
  // besides.
  const auto population =
      2 * static_cast<double>(layouts.size()) * training.steps;
  SP_ASSIGN_OR_RETURN(
      const Allowed allowed,
      FindAllowed(options, single, initial, all.front().curve, population));
  PrintLosses(all, allowed);
  const bool equal = PrintAgreement(all, allowed);
  if (options.runs == 0) {
    fmt::print("\nWithout runs to compare with, nothing was judged.\n");
  } else {
    fmt::print(
        "\nallowed: {:.1f} times the deviation of {} runs of {} from "
        "neighbouring parameters\n",
        ProbedLambda(Lambda(population), options.runs), options.runs,
        all.front().name);
  }
  return equal;
}

int Main(int argc, char** argv) {
  CLI::App app("GPT-2 124M on real text, on every layout and on one device");
  Options options;
  TrainingOptions& training = options.training;
  const auto number = [&](const char* name, auto* value, auto least, auto most,
                          const char* what) {
    app.add_option(name, *value, what)
        ->check(CLI::Range(least, most))
        ->capture_default_str();
  };
  constexpr int64_t kMost = 1 << 20;
  number("--steps", &training.steps, 1, 10000, "Steps");
  number("--length", &training.length, int64_t{1}, kMost,
         "Bytes of a sequence");
  number("--sequences", &training.sequences, int64_t{1}, kMost,
         "Sequences of a step");
  number("--blocks", &training.blocks, 1, 1000, "Blocks");
  number("--hidden", &training.hidden, int64_t{1}, kMost, "Hidden size");
  number("--heads", &training.heads, int64_t{1}, kMost,
         "Heads, which divide the hidden size");
  number("--vocabulary", &training.vocabulary, int64_t{256}, kMost,
         "Rows of the table");
  number("--runs", &options.runs, 0, 1000,
         "Runs of the single device from neighbouring parameters");
  app.add_option("--layout", options.layouts,
                 "A mesh, and ZeRO's stage; may be repeated")
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (training.hidden % training.heads != 0) {
    fmt::print(stderr, "{} heads do not divide a hidden size of {}\n",
               training.heads, training.hidden);
    return 2;
  }
  const StatusOr<bool> equal = Run(options);
  if (!equal.ok()) {
    fmt::print(stderr, "{}\n", equal.status().ToString());
    return equal.status().code() == StatusCode::kInvalidArgument ? 2 : 6;
  }
  return *equal ? 0 : 1;
}

}  // namespace
}  // namespace shardproof::gpt2

int main(int argc, char** argv) { return shardproof::gpt2::Main(argc, argv); }
