#include "pipeline/train_step/case_setup.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <utility>

#include "pipeline/registry.h"
#include "reference/probe.h"

namespace shardproof {

std::string FormatAxisValue(const TrainMesh& mesh) {
  std::string text = Describe(mesh);
  std::erase(text, '=');
  std::replace(text.begin(), text.end(), ',', 'x');
  return text;
}

Status ParseAxisValue(std::string_view text, TrainMesh* mesh) {
  std::string usual;
  for (const char c : text) {
    const bool digit = c >= '0' && c <= '9';
    if (digit && !usual.empty() && usual.back() >= 'a') usual += '=';
    usual += c == 'x' ? ',' : c;
  }
  SP_ASSIGN_OR_RETURN(*mesh, ParseTrainMesh(usual));
  return OkStatus();
}

}  // namespace shardproof

namespace shardproof::train_step {
namespace {

template <class T>
struct Named {
  T value;
  std::string_view name;
};

constexpr Named<Model> kModels[] = {{Model::kGpt, "gpt"},
                                    {Model::kLlama, "llama"},
                                    {Model::kMixtral, "mixtral"}};
constexpr Named<Matrix> kMatrices[] = {{Matrix::kSample, "sample"},
                                       {Matrix::kLayouts, "layouts"},
                                       {Matrix::kAll, "all"}};

template <class T, size_t N>
std::string NameIn(const Named<T> (&all)[N], T value) {
  for (const Named<T>& n : all) {
    if (n.value == value) return std::string(n.name);
  }
  return "?";
}
template <class T, size_t N>
Status FindIn(const Named<T> (&all)[N], std::string_view text, T* value) {
  std::string known;
  for (const Named<T>& n : all) {
    if (text == n.name) {
      *value = n.value;
      return OkStatus();
    }
    known += fmt::format("{}{}", known.empty() ? "" : ", ", n.name);
  }
  return InvalidArgument("\"{}\" is none of {}", text, known);
}

std::vector<std::string> DimensionsOf(Model model) {
  if (model == Model::kMixtral) return {"tp", "cp", "ep", "pp", "dp"};
  return {"tp", "cp", "pp", "dp"};
}

// The number of a mesh among those of its ranks, whatever its order.
int NumberOf(const P& p) {
  const std::vector<TrainMesh> all =
      Factorisations(p.mesh.ranks(), DimensionsOf(p.model));
  const auto same = [&](const TrainMesh& mesh) {
    return std::all_of(
        mesh.dimensions.begin(), mesh.dimensions.end(),
        [&](const MeshDimension& d) { return d.size == p.mesh.Size(d.name); });
  };
  return static_cast<int>(std::find_if(all.begin(), all.end(), same) -
                          all.begin());
}

// Whether a schedule can be made for a mesh; asked very often.
bool Runs(const P& p, const std::string& schedule) {
  static std::mutex mutex;
  static auto& known = *new std::map<std::string, bool>();
  P other = p;
  other.schedule = schedule;
  const TrainStepConfig config = ConfigOf(other);
  const std::string key =
      fmt::format("{} {} {} {} {}", schedule, config.mesh.pp(),
                  config.micro_batches, config.model.blocks, config.chunks);
  const std::lock_guard lock(mutex);
  const auto at = known.find(key);
  if (at != known.end()) return at->second;
  return known[key] = CheckTrainStep(config, p.ranks).ok();
}

// Whose turn it is.
std::string ScheduleInTurn(const P& p) {
  std::vector<std::string> able;
  for (const std::string& name : ScheduleValues()) {
    if (Runs(p, name)) able.push_back(name);
  }
  if (able.empty()) return {};
  const auto turn = static_cast<size_t>(NumberOf(p) + 3 * p.zero +
                                        5 * static_cast<int>(p.model) +
                                        (p.sequence_parallel ? 7 : 0));
  return able[turn % able.size()];
}

}  // namespace

std::string FormatAxisValue(Model model) { return NameIn(kModels, model); }
Status ParseAxisValue(std::string_view text, Model* model) {
  return FindIn(kModels, text, model);
}
std::string FormatAxisValue(Matrix matrix) { return NameIn(kMatrices, matrix); }
Status ParseAxisValue(std::string_view text, Matrix* matrix) {
  return FindIn(kMatrices, text, matrix);
}

std::vector<std::string> MeshValues() {
  std::vector<std::string> values;
  for (const int ranks : {1, 2, 3, 4, 5, 7, 8}) {
    for (const TrainMesh& mesh :
         Factorisations(ranks, DimensionsOf(Model::kMixtral))) {
      values.push_back(FormatAxisValue(mesh));
    }
  }
  return values;
}

std::vector<std::string> ScheduleValues() {
  return {"breadth_first", "chimera", "dualpipe",    "dualpipe_v",
          "eager_1f1b",    "gpipe",   "interleaved", "naive",
          "one_f_one_b",   "zb_auto", "zb_h1",       "zb_h2",
          "zb_v"};
}

LanguageModelConfig ModelOf(const P& p) {
  const bool gpt = p.model == Model::kGpt;
  LanguageModelConfig m;
  // As few as there are stages: the reference is what takes the time.
  const int few = p.model == Model::kMixtral ? 2 : 4;
  m.blocks = p.mesh.pp() > 2 ? 2 * few : few;
  m.vocabulary = 29;
  m.length = 8;
  m.hidden = 8;
  m.heads = 8;
  m.kv_heads = gpt ? 8 : 4;
  m.head_dim = 2;
  m.intermediate = 11;
  m.norm = gpt ? NormKind::kLayerNorm : NormKind::kRmsNorm;
  m.activation = gpt ? Activation::kGeluTanh : Activation::kSwiGlu;
  m.rope_theta = gpt ? 0 : 10000;
  m.bias = gpt;
  m.tied = gpt;
  m.learned_positions = gpt;
  if (p.model == Model::kMixtral) {
    m.experts = 4;
    m.top_k = 2;
    m.least_gap = 0x1p-16;
  }
  m.dtype = p.dtype;
  // Constants are sums of few powers of two. Every step is clipped; epsilon is
  // about the size of a clipped gradient, since it bounds by rate / epsilon how
  // much Adam magnifies the error of one that is next to nothing.
  m.optimizer = {.rule = OptimizerRule::kAdamW,
                 .learning_rate = 1.0 / 64,
                 .beta1 = 0.875,
                 .beta2 = 0.9375,
                 .epsilon = 1.0 / 64,
                 .weight_decay = 0.125,
                 .max_norm = 0.5};
  return m;
}

// 11 sequences in 8 micro-batches over all ranks with sequences of their own:
// some have two.
TrainStepConfig ConfigOf(const P& p) {
  const int number = NumberOf(p) + p.zero;
  TrainStepConfig config = {
      .model = ModelOf(p),
      .mesh = p.mesh,
      .schedule = p.schedule,
      .micro_batches = std::max(1, 8 / p.mesh.data_ranks()),
      .sequences = 11,
      .zero_stage = p.zero,
      .overlap = number % 2 == 0,
      .sequence_parallel = p.sequence_parallel};
  const ScheduleInfo* const info = FindSchedule(p.schedule);
  const bool halves = 2 * p.mesh.pp() <= config.model.blocks;
  config.chunks = info != nullptr && info->takes_chunks && halves ? 2 : 1;
  constexpr Recomputation kRecomputations[] = {
      Recomputation::kNone, Recomputation::kSelective, Recomputation::kFull};
  config.recompute = kRecomputations[number % 3];
  struct Way {
    ContextScheme scheme;
    SequenceLayout layout;
  };
  constexpr Way kWays[] = {
      {ContextScheme::kRing, SequenceLayout::kZigzag},
      {ContextScheme::kAllGatherKv, SequenceLayout::kContiguous},
      {ContextScheme::kRing, SequenceLayout::kStriped},
      {ContextScheme::kUlysses, SequenceLayout::kContiguous}};
  const Way& way = kWays[number % 4];
  config.scheme = way.scheme;
  config.layout = way.layout;
  // A zigzag has two chunks for each rank.
  const bool zigzag = config.model.length % (2 * p.mesh.cp()) == 0;
  if (!zigzag && way.layout == SequenceLayout::kZigzag) {
    config.layout = SequenceLayout::kStriped;
  }
  return config;
}

std::optional<std::string> Skip(const P& p) {
  if (p.mesh.ranks() != p.ranks) {
    return fmt::format("the mesh is of {} ranks", p.mesh.ranks());
  }
  if (p.model != Model::kMixtral && p.mesh.ep() > 1) {
    return "only mixtral has experts";
  }
  if (p.sequence_parallel && p.mesh.tp() == 1) {
    return "sequence parallelism needs several ranks along tp";
  }
  if (p.mesh.pp() == 1 && p.schedule != "one_f_one_b") {
    return "one stage has one schedule";
  }
  if (p.matrix == Matrix::kSample) {
    const int turn = NumberOf(p) + static_cast<int>(p.model);
    const bool sequence_parallel = p.mesh.tp() > 1 && turn / 4 % 2 == 0;
    const bool sampled =
        p.zero == turn % 4 && p.sequence_parallel == sequence_parallel;
    if (!sampled) return "not in the sample: --axis matrix=layouts has it";
    if (p.dtype == DType::kF64 && (p.model != Model::kLlama || turn % 4 != 0)) {
      return "in f64 a few of the sample";
    }
  }
  const Status runs = CheckTrainStep(ConfigOf(p), p.ranks);
  if (!runs.ok()) return std::string(runs.message());
  if (p.matrix != Matrix::kAll && p.mesh.pp() > 1 &&
      p.schedule != ScheduleInTurn(p)) {
    return "another schedule's turn: --axis matrix=all has every one";
  }
  return std::nullopt;
}

Tensors TensorsOf(const P& p) {
  const LanguageModelConfig m = ModelOf(p);
  const Shape batches = {p.steps, ConfigOf(p).sequences, m.length};
  Tensors tensors = {Input("ids", DType::kI64, batches, Replicated())
                         .Data({.ids_below = m.vocabulary}),
                     // A sixth of them does not count.
                     Input("targets", DType::kI64, batches, Replicated())
                         .Data({.ids_below = m.vocabulary * 6 / 5})};
  for (const LanguageModelParameter& w : LanguageModelParameters(m)) {
    TensorData data;
    // Products with a deviation of about 1; choices of experts that are clear.
    if (w.shape.rank() >= 2) {
      const bool router = w.name.ends_with("router");
      const auto inputs = static_cast<double>(w.shape[w.shape.rank() - 1]);
      data.bounded = Uniform(p.dtype, (router ? 16 : 2) / std::sqrt(inputs));
    }
    tensors.push_back(Input(w.name, p.dtype, w.shape, Replicated()).Data(data));
  }
  const Shape twice = {2, LanguageModelSize(m)};
  tensors.push_back(
      Output("loss", Accumulator(p.dtype), {p.steps}, Replicated()));
  tensors.push_back(Output("norm", DType::kF64, {p.steps}, Replicated()));
  // Of the first step and of the last.
  tensors.push_back(
      Output("gradients", p.dtype, twice, Replicated()).Gradient());
  tensors.push_back(Output("trained", p.dtype, twice, Replicated()).Gradient());
  return tensors;
}

// --- The reference -----------------------------------------------------------

namespace {

StatusOr<DenseOutputs> Train(const P& p, const Inputs& in) {
  const LanguageModelConfig m = ModelOf(p);
  std::vector<double> initial;
  for (const LanguageModelParameter& w : LanguageModelParameters(m)) {
    const std::vector<double> part = in.All(w.name);
    initial.insert(initial.end(), part.begin(), part.end());
  }
  const ConstTensorView ids = in.Global("ids"), targets = in.Global("targets");
  const int64_t n = ids.num_elements() / p.steps;
  TrainedLanguageModelReference reference(m, initial);
  DenseOutputs out;
  for (int64_t k = 0; k < p.steps; ++k) {
    std::vector<int64_t> counted(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      counted[static_cast<size_t>(i)] =
          TargetOf(p, targets.as<int64_t>()[k * n + i]);
    }
    SP_RETURN_IF_ERROR(reference.Step(
        std::span(ids.as<int64_t>() + k * n, static_cast<size_t>(n)), counted));
    out["loss"].push_back(reference.loss());
    out["norm"].push_back(reference.norm());
    for (const int64_t shown : {int64_t{0}, p.steps - 1}) {
      if (k != shown) continue;
      const std::vector<Bounded>& gradient = reference.gradient();
      const std::vector<Bounded> trained = reference.parameters();
      out["gradients"].insert(out["gradients"].end(), gradient.begin(),
                              gradient.end());
      out["trained"].insert(out["trained"].end(), trained.begin(),
                            trained.end());
    }
  }
  return out;
}

// Everything that the result depends on.
std::string KeyOf(const P& p, const Inputs& in) {
  std::string key = fmt::format(
      "{} {} {} probe {}:", Name(p.dtype), FormatAxisValue(p.model), p.steps,
      Probe::Current() ? static_cast<int64_t>(*Probe::Current()) : int64_t{-1});
  const auto add = [&](std::string_view name) {
    const ConstTensorView all = in.Global(name);
    key.append(static_cast<const char*>(all.data),
               static_cast<size_t>(all.num_bytes()));
  };
  add("ids");
  add("targets");
  for (const LanguageModelParameter& w : LanguageModelParameters(ModelOf(p))) {
    add(w.name);
  }
  return key;
}

}  // namespace

// The same for every mesh and schedule, so it is computed once for each model.
StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& /*summed*/,
                                const Inputs& in, const Sample& /*sample*/) {
  static std::mutex mutex;
  static auto& known = *new std::map<std::string, DenseOutputs>();
  const std::string key = KeyOf(p, in);
  {
    const std::lock_guard lock(mutex);
    if (const auto at = known.find(key); at != known.end()) return at->second;
  }
  SP_ASSIGN_OR_RETURN(DenseOutputs made, Train(p, in));
  const std::lock_guard lock(mutex);
  constexpr size_t kMost = 128;  // Of three models, repeats and probes.
  if (known.size() >= kMost) known.clear();
  return known.emplace(key, std::move(made)).first->second;
}

}  // namespace shardproof::train_step
