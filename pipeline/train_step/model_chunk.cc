#include "pipeline/train_step/model_chunk.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "layers/kernels/activation.h"

namespace shardproof {
namespace {

size_t BytesOf(int64_t count, DType dtype) {
  return static_cast<size_t>(count * SizeOf(dtype));
}

template <class Void>
MoeParts<Void> MixtureParts(const ModelBlock& block, DType dtype, Void* flat) {
  MoeParts<Void> parts;
  for (const ParameterShard& p : block.parameters) {
    Void* const at = At(flat, dtype, p.begin);
    if (p.name == "router") parts.router = at;
    if (p.name == "w_gate") parts.experts.gate = at;
    if (p.name == "w_up") parts.experts.up = at;
    if (p.name == "w_down") parts.experts.down = at;
  }
  return parts;
}

}  // namespace

// --- Set-up ------------------------------------------------------------------

using ModelLayer = std::variant<TransformerBlock, MixtureBlock>;

struct ModelChunk::Kept {
  int64_t tokens = 0;  // With those of other ranks of tp.
  int64_t count = 0;   // Elements of x_l on this rank.
  Chunk own;           // This rank's of the tokens.
  std::vector<ModelLayer> layers;
  std::vector<Buffer> outputs;  // Of each layer; the last chunk's last too.
  Buffer embedded;
  std::optional<VocabParallelEmbedding> embedding;
  std::optional<ParallelNorm> norm;
  std::optional<TiedOutputProjection> head;
  std::optional<VocabParallelCrossEntropy> loss;
  Buffer normed, logits;
  Tensor losses, ones;  // [tokens]
};

struct ModelChunk::Slot {
  std::vector<Kept> kinds;
  // Between BackwardInput and BackwardWeight, by use.
  std::vector<Tensor> stash;
  size_t made = 0;
};

ModelChunk::ModelChunk(const ChunkGroups& groups,
                       const ModelChunkConfig& config,
                       const CollectiveFamily& collectives)
    : groups_(groups),
      config_(config),
      collectives_(collectives),
      dtype_(config.model.dtype) {}
ModelChunk::~ModelChunk() = default;

StatusOr<std::unique_ptr<ModelChunk>> ModelChunk::Create(
    const ChunkGroups& groups, const ModelChunkConfig& config,
    const CollectiveFamily& collectives) {
  std::unique_ptr<ModelChunk> chunk(
      new ModelChunk(groups, config, collectives));
  SP_RETURN_IF_ERROR(chunk->SetUp());
  return chunk;
}

Status ModelChunk::SetUp() {
  length_ = static_cast<int64_t>(config_.positions.size());
  int64_t token = 0;
  for (const std::vector<int64_t>& sequences : config_.sequences) {
    const auto at = std::find(kinds_.begin(), kinds_.end(), sequences);
    kind_of_.push_back(static_cast<size_t>(at - kinds_.begin()));
    if (at == kinds_.end()) kinds_.push_back(sequences);
    first_token_.push_back(token);
    token += length_ * sequences[static_cast<size_t>(groups_.experts.rank())];
  }
  slots_.resize(static_cast<size_t>(config_.slots));
  int64_t largest = 0;
  for (Slot& slot : slots_) {
    slot.kinds.resize(kinds_.size());
    for (size_t kind = 0; kind < kinds_.size(); ++kind) {
      SP_RETURN_IF_ERROR(MakeKept(kinds_[kind], slot.kinds[kind]));
      largest = std::max(largest, slot.kinds[kind].count);
    }
  }
  for (Buffer& buffer : scratch_) {
    SP_ASSIGN_OR_RETURN(buffer,
                        groups_.tensor.Allocate(BytesOf(largest, dtype_)));
  }
  return OkStatus();
}

Status ModelChunk::MakeKept(const std::vector<int64_t>& sequences, Kept& kept) {
  const LanguageModelConfig& m = config_.model;
  const Communicator& tp = groups_.tensor;
  const TransformerBlockConfig block = BlockConfigOf(
      config_, sequences[static_cast<size_t>(groups_.experts.rank())]);
  kept.tokens = block.tokens();
  kept.own = config_.sequence_parallel
                 ? BalancedChunk(kept.tokens, tp.size(), tp.rank())
                 : Chunk{0, kept.tokens};
  kept.count = kept.own.count * m.hidden;
  AttentionCoreFactory core = CreatePlainAttention;
  if (groups_.context.size() > 1) {
    core = ContextParallelCore(groups_.context, {.scheme = config_.scheme,
                                                 .layout = config_.layout,
                                                 .tokens = m.length});
  }
  const auto allocate = [&](int64_t elements) {
    return tp.Allocate(BytesOf(elements, dtype_));
  };
  for (int64_t l = 0; l < config_.layers.count; ++l) {
    if (m.experts > 0) {
      SP_ASSIGN_OR_RETURN(
          MixtureBlock made,
          MixtureBlock::Create({.tensor = tp, .experts = groups_.experts},
                               {.block = block,
                                .experts = m.experts,
                                .top_k = m.top_k,
                                .sequences_of = sequences},
                               collectives_, core));
      kept.layers.emplace_back(std::move(made));
    } else {
      SP_ASSIGN_OR_RETURN(
          TransformerBlock made,
          TransformerBlock::Create(tp, block, collectives_, core));
      kept.layers.emplace_back(std::move(made));
    }
    SP_ASSIGN_OR_RETURN(Buffer output, allocate(kept.count));
    kept.outputs.push_back(std::move(output));
  }
  const VocabEmbeddingConfig vocabulary = {
      .vocabulary = m.vocabulary,
      .hidden = m.hidden,
      .tokens = kept.tokens,
      .dtype = dtype_,
      .sequence_parallel = config_.sequence_parallel};
  if (config_.first) {
    SP_ASSIGN_OR_RETURN(
        VocabParallelEmbedding made,
        VocabParallelEmbedding::Create(tp, vocabulary, collectives_));
    kept.embedding.emplace(std::move(made));
    SP_ASSIGN_OR_RETURN(kept.embedded, allocate(kept.count));
  }
  if (!config_.last) return OkStatus();
  SP_ASSIGN_OR_RETURN(
      ParallelNorm norm,
      ParallelNorm::Create(tp, NormConfigOf(block, false), collectives_));
  kept.norm.emplace(std::move(norm));
  SP_ASSIGN_OR_RETURN(
      TiedOutputProjection head,
      TiedOutputProjection::Create(tp, vocabulary, collectives_));
  kept.head.emplace(std::move(head));
  SP_ASSIGN_OR_RETURN(
      VocabParallelCrossEntropy loss,
      VocabParallelCrossEntropy::Create(tp,
                                        {.tokens = kept.tokens,
                                         .vocabulary = m.vocabulary,
                                         .dtype = dtype_,
                                         .ignore_index = kIgnoredTarget,
                                         .per_token = true},
                                        nullptr, collectives_));
  kept.loss.emplace(std::move(loss));
  SP_ASSIGN_OR_RETURN(kept.normed, allocate(kept.count));
  SP_ASSIGN_OR_RETURN(kept.logits,
                      allocate(kept.tokens * kept.loss->partition().rows));
  const DType lane = Accumulator(dtype_);
  kept.losses = Tensor::Zeros(lane, {kept.tokens});
  kept.ones = Tensor::Zeros(lane, {kept.tokens});
  const std::vector<double> ones(static_cast<size_t>(kept.tokens), 1.0);
  FromDouble(lane, ones.data(), kept.tokens, kept.ones.raw());
  return OkStatus();
}

Status ModelChunk::SetMemory(ModelMemory& memory) {
  memory_ = &memory;
  const LanguageModelConfig& m = config_.model;
  if (config_.first) {
    table_ = memory.BlockOf("table");
    if (m.learned_positions) position_block_ = memory.BlockOf("positions");
  }
  if (config_.last) {
    norm_ = memory.BlockOf("norm");
    head_ = memory.BlockOf(HeadOf(m));
  }
  for (int64_t l = 0; l < config_.layers.count; ++l) {
    const int64_t layer = config_.layers.begin + l;
    const size_t dense = memory.BlockOf(fmt::format("block{}", layer));
    dense_.push_back(dense);
    std::vector<BlockParameter>& parts = dense_parts_.emplace_back();
    for (const ParameterShard& p : memory.blocks()[dense].parameters) {
      parts.push_back({p.name, p.shape, p.begin});
    }
    if (m.experts > 0) {
      experts_.push_back(memory.BlockOf(fmt::format("experts{}", layer)));
    }
  }
  // Gradients of one use, before they are added: two at once where experts are
  // made within their block.
  int64_t largest = 0;
  for (const NamedUse& use : UsesOf(config_, ActionKind::kWeight)) {
    const int64_t count = memory.blocks()[memory.BlockOf(use.block)].count;
    largest = std::max(largest, count);
  }
  SP_ASSIGN_OR_RETURN(aside_,
                      groups_.tensor.Allocate(BytesOf(2 * largest, dtype_)));
  if (config_.first && m.learned_positions) {
    SP_ASSIGN_OR_RETURN(position_gradient_, groups_.tensor.Allocate(BytesOf(
                                                m.length * m.hidden, dtype_)));
  }
  return OkStatus();
}

void ModelChunk::SetBatch(const int64_t* ids, const int64_t* targets) {
  ids_ = ids;
  targets_ = targets;
  loss_ = 0;
}

int64_t ModelChunk::ActivationCount(int micro) const {
  return slots_[0].kinds[kind_of_[static_cast<size_t>(micro)]].count;
}

ModelChunk::Kept& ModelChunk::KeptOf(const StageVisit& visit) {
  return slots_[static_cast<size_t>(visit.slot)]
      .kinds[kind_of_[static_cast<size_t>(visit.micro_batch)]];
}

TokenPositions ModelChunk::Positions(const Kept& kept) const {
  return {.dtype = dtype_,
          .hidden = config_.model.hidden,
          .sequence = config_.positions,
          .tokens = kept.own};
}

// --- Forward -----------------------------------------------------------------

Status ModelChunk::Read(size_t block,
                        const std::function<Status(const void*)>& use) {
  SP_ASSIGN_OR_RETURN(const ShardedParameters::Use begun,
                      memory_->Begin(block));
  SP_RETURN_IF_ERROR(use(begun.parameters));
  return memory_->End(block);
}

Status ModelChunk::Forward(const StageVisit& visit, const void* x, void* y) {
  Kept& kept = KeptOf(visit);
  const void* at = x;
  if (config_.first) {
    SP_RETURN_IF_ERROR(Embed(kept, visit.micro_batch, kept.embedded.data()));
    at = kept.embedded.data();
  }
  const size_t layers = kept.layers.size();
  for (size_t l = 0; l < layers; ++l) {
    const bool leaves = l + 1 == layers && !config_.last;
    void* const to = leaves ? y : kept.outputs[l].data();
    SP_RETURN_IF_ERROR(LayerForward(kept, l, at, to));
    at = to;
  }
  if (config_.last) return Loss(kept, visit.micro_batch, at);
  if (layers == 0) std::memcpy(y, at, BytesOf(kept.count, dtype_));
  return OkStatus();
}

Status ModelChunk::Embed(Kept& kept, int micro, void* y) {
  const int64_t* const ids = ids_ + first_token_[static_cast<size_t>(micro)];
  SP_RETURN_IF_ERROR(Read(table_, [&](const void* table) {
    return kept.embedding->Forward({.ids = ids, .table = table, .y = y});
  }));
  if (!config_.model.learned_positions) return OkStatus();
  return Read(position_block_, [&](const void* table) {
    return AddPositions(Positions(kept), table, y);
  });
}

Status ModelChunk::LayerForward(Kept& kept, size_t layer, const void* x,
                                void* y) {
  return Read(dense_[layer], [&](const void* dense) -> Status {
    const TransformerBlockWeights weights =
        PartsOfBlock(dense_parts_[layer], dtype_, dense);
    if (auto* const block =
            std::get_if<TransformerBlock>(&kept.layers[layer])) {
      return block->Forward(x, weights, y);
    }
    const size_t index = experts_[layer];
    return Read(index, [&](const void* experts) {
      return std::get<MixtureBlock>(kept.layers[layer])
          .Forward(x, weights,
                   MixtureParts(memory_->blocks()[index], dtype_, experts), y);
    });
  });
}

Status ModelChunk::Loss(Kept& kept, int micro, const void* h) {
  SP_RETURN_IF_ERROR(Read(norm_, [&](const void* weights) {
    return kept.norm->Forward(
        {.x = h,
         .weight = weights,
         .bias = At(weights, dtype_, config_.model.hidden),
         .y = kept.normed.data()});
  }));
  SP_RETURN_IF_ERROR(Read(head_, [&](const void* table) {
    return kept.head->Forward({.x = kept.normed.data(),
                               .table = table,
                               .logits = kept.logits.data()});
  }));
  SP_RETURN_IF_ERROR(kept.loss->Forward(
      {.logits = kept.logits.data(),
       .targets = targets_ + first_token_[static_cast<size_t>(micro)],
       .loss = kept.losses.raw()}));
  std::vector<double> losses(static_cast<size_t>(kept.tokens));
  ToDouble(Accumulator(dtype_), kept.losses.raw(), kept.tokens, losses.data());
  for (const double loss : losses) loss_ += loss;
  return OkStatus();
}

// --- Backward ----------------------------------------------------------------

Status ModelChunk::Backward(const StageVisit& visit, const void* x,
                            const void* dy, void* dx) {
  return RunBackward(visit, Pass::kWhole, x, dy, dx);
}
Status ModelChunk::BackwardInput(const StageVisit& visit, const void* x,
                                 const void* dy, void* dx) {
  return RunBackward(visit, Pass::kInput, x, dy, dx);
}

Status ModelChunk::BackwardWeight(const StageVisit& visit, const void* /*x*/,
                                  const void* /*dy*/) {
  const Slot& slot = slots_[static_cast<size_t>(visit.slot)];
  size_t made = 0;
  for (const NamedUse& named : UsesOf(config_, ActionKind::kWeight)) {
    const size_t block = memory_->BlockOf(named.block);
    SP_ASSIGN_OR_RETURN(const ShardedParameters::Use use,
                        memory_->Begin(block));
    SP_RETURN_IF_ERROR(AddTo(block, slot.stash[made++].raw(), use));
    SP_RETURN_IF_ERROR(memory_->End(block));
  }
  return OkStatus();
}

Status ModelChunk::AddTo(size_t block, const void* from,
                         const ShardedParameters::Use& use) const {
  const int64_t count = memory_->blocks()[block].count;
  if (use.accumulate) {
    return AddBias(Stream::Inline(), dtype_, 1, count, from, use.gradients);
  }
  std::memcpy(use.gradients, from, BytesOf(count, dtype_));
  return OkStatus();
}

Status ModelChunk::MakeGradient(Slot& slot, Pass pass, size_t block, bool reads,
                                const Maker& make) {
  const int64_t count = memory_->blocks()[block].count;
  if (pass == Pass::kInput) {
    const size_t at = slot.made++;
    if (slot.stash.size() <= at) {
      slot.stash.push_back(Tensor::Zeros(dtype_, {count}));
    }
    if (!reads) return make(nullptr, slot.stash[at].raw());
    return Read(block, [&](const void* parameters) {
      return make(parameters, slot.stash[at].raw());
    });
  }
  SP_ASSIGN_OR_RETURN(const ShardedParameters::Use use, memory_->Begin(block));
  if (!use.accumulate) {
    SP_RETURN_IF_ERROR(make(use.parameters, use.gradients));
    return memory_->End(block);
  }
  // Experts are made while their block is.
  const int64_t half =
      static_cast<int64_t>(aside_.bytes()) / SizeOf(dtype_) / 2;
  void* const aside =
      At(aside_.data(), dtype_, memory_->blocks()[block].experts ? half : 0);
  SP_RETURN_IF_ERROR(make(use.parameters, aside));
  SP_RETURN_IF_ERROR(AddTo(block, aside, use));
  return memory_->End(block);
}

Status ModelChunk::RunBackward(const StageVisit& visit, Pass pass,
                               const void* x, const void* dy, void* dx) {
  Kept& kept = KeptOf(visit);
  Slot& slot = slots_[static_cast<size_t>(visit.slot)];
  slot.made = 0;
  const size_t layers = kept.layers.size();
  const void* const first = config_.first ? kept.embedded.data() : x;
  const auto input = [&](size_t l) {
    return l == 0 ? first : kept.outputs[l - 1].data();
  };
  const void* at = dy;
  size_t turn = 0;
  if (config_.last) {
    SP_RETURN_IF_ERROR(LossBackward(slot, pass, kept, visit.micro_batch,
                                    input(layers), scratch_[turn].data()));
    at = scratch_[turn].data();
    turn = 1 - turn;
  }
  for (size_t l = layers; l-- > 0;) {
    void* const to = l == 0 && !config_.first ? dx : scratch_[turn].data();
    SP_RETURN_IF_ERROR(LayerBackward(slot, pass, kept, l, input(l), at, to));
    at = to;
    turn = 1 - turn;
  }
  if (config_.first) {
    return EmbedBackward(slot, pass, kept, visit.micro_batch, at);
  }
  if (layers == 0) std::memcpy(dx, at, BytesOf(kept.count, dtype_));
  return OkStatus();
}

Status ModelChunk::LossBackward(Slot& slot, Pass pass, Kept& kept, int micro,
                                const void* h, void* dh) {
  SP_RETURN_IF_ERROR(kept.loss->Backward(
      {.logits = kept.logits.data(),
       .targets = targets_ + first_token_[static_cast<size_t>(micro)],
       .upstream = kept.ones.raw(),
       .dlogits = kept.logits.data()}));
  SP_RETURN_IF_ERROR(MakeGradient(
      slot, pass, head_, true, [&](const void* table, void* gradient) {
        return kept.head->Backward({.x = kept.normed.data(),
                                    .table = table,
                                    .dlogits = kept.logits.data(),
                                    .dx = dh,
                                    .dtable = gradient});
      }));
  const int64_t bias = config_.model.hidden;
  return MakeGradient(
      slot, pass, norm_, true, [&](const void* weights, void* gradient) {
        return kept.norm->Backward({.z = h,
                                    .weight = weights,
                                    .dy = dh,
                                    .dx = dh,
                                    .dweight = gradient,
                                    .dbias = At(gradient, dtype_, bias)});
      });
}

Status ModelChunk::LayerBackward(Slot& slot, Pass pass, Kept& kept,
                                 size_t layer, const void* x, const void* dy,
                                 void* dx) {
  const auto dense = [&](const void* weights, void* gradients) -> Status {
    const TransformerBlockWeights parts =
        PartsOfBlock(dense_parts_[layer], dtype_, weights);
    const TransformerBlockGradients made =
        PartsOfBlock(dense_parts_[layer], dtype_, gradients);
    if (auto* const block =
            std::get_if<TransformerBlock>(&kept.layers[layer])) {
      return block->Backward(x, parts, dy, dx, made);
    }
    const size_t index = experts_[layer];
    const ModelBlock& experts = memory_->blocks()[index];
    return MakeGradient(
        slot, pass, index, true, [&](const void* mixture, void* d_mixture) {
          return std::get<MixtureBlock>(kept.layers[layer])
              .Backward(x, parts, MixtureParts(experts, dtype_, mixture), dy,
                        dx, made, MixtureParts(experts, dtype_, d_mixture));
        });
  };
  return MakeGradient(slot, pass, dense_[layer], true, dense);
}

Status ModelChunk::EmbedBackward(Slot& slot, Pass pass, Kept& kept, int micro,
                                 const void* dy) {
  if (config_.model.learned_positions) {
    const auto positions = [&](const void*, void* gradient) -> Status {
      const int64_t n = config_.model.length * config_.model.hidden;
      void* const sum = position_gradient_.data();
      SP_RETURN_IF_ERROR(
          PositionGradients(Positions(kept), dy, config_.model.length, sum));
      // Tokens of other ranks are as much of it.
      if (config_.sequence_parallel && groups_.tensor.size() > 1) {
        return collectives_.all_reduce(
            groups_.tensor,
            {.send = sum, .recv = gradient, .count = n, .dtype = dtype_});
      }
      std::memcpy(gradient, sum, BytesOf(n, dtype_));
      return OkStatus();
    };
    SP_RETURN_IF_ERROR(
        MakeGradient(slot, pass, position_block_, false, positions));
  }
  const int64_t* const ids = ids_ + first_token_[static_cast<size_t>(micro)];
  return MakeGradient(slot, pass, table_, false,
                      [&](const void*, void* gradient) {
                        return kept.embedding->Backward(
                            {.ids = ids, .dy = dy, .dtable = gradient});
                      });
}

}  // namespace shardproof
