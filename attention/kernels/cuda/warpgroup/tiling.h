// What the forward kernel of warpgroups is given, and how its block is cut.
//
// Block: one warpgroup that copies (the producer), kConsumers that multiply, of 64 queries each. Shared memory: Q, then
// kStages places for tiles of K and as many for V, each of head_dim / 64 panels [rows, 64] with swizzled lines of 128
// bytes, then the barriers.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TILING_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TILING_H_

#include <cstdint>

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/cuda/warpgroup/tile_map.h"
#include "attention/kernels/cuda/warpgroup/wgmma.h"

namespace shardproof::cuda {

struct WarpgroupForwardArgs {
  FlashForwardArgs flash;
  // Of flash.q with boxes of the tiling's kRows tokens, of flash.k and flash.v with boxes of kKeys.
  TileMap q, k, v;
};

template <int kHeadDimT>
struct WarpgroupTiling {
  static constexpr int kHeadDim = kHeadDimT;
  static constexpr int kPanels = kHeadDim / kPanelColumns;
  static constexpr int kConsumers = 2;
  static constexpr int kThreads = (1 + kConsumers) * kWarpgroupThreads;
  static constexpr int kRows = kConsumers * kWgmmaRows;
  static constexpr int kKeys = 128;
  static constexpr int kStages = 2;

  // Registers of a thread: 65536 / kThreads, down to a multiple of 8, when the block begins; then as here.
  static constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;
  static_assert(kWarpgroupThreads *
                    (kProducerRegisters + kConsumers * kConsumerRegisters) <=
                65536);

  static constexpr uint32_t PanelBytes(int rows) {
    return static_cast<uint32_t>(rows) * kPanelLineBytes;
  }
  static constexpr uint32_t kRowsBytes = kPanels * PanelBytes(kRows);
  static constexpr uint32_t kKeysBytes = kPanels * PanelBytes(kKeys);
  static_assert(PanelBytes(kRows) % kAtomBytes == 0 &&
                PanelBytes(kKeys) % kAtomBytes == 0);

  // Bytes of shared memory at which they begin.
  static constexpr uint32_t kQ = 0;
  static constexpr uint32_t KeysAt(int stage) {
    return kRowsBytes + static_cast<uint32_t>(stage) * kKeysBytes;
  }
  static constexpr uint32_t ValuesAt(int stage) {
    return KeysAt(kStages + stage);
  }
  static constexpr uint32_t kBarriers = KeysAt(2 * kStages);
  static constexpr uint32_t BarrierAt(int number) {
    return kBarriers + static_cast<uint32_t>(number) * 8;
  }
  // What has come, and what may be overwritten.
  static constexpr uint32_t kQCame = BarrierAt(0);
  static constexpr uint32_t KeysCame(int stage) { return BarrierAt(1 + stage); }
  static constexpr uint32_t KeysLeft(int stage) {
    return BarrierAt(1 + kStages + stage);
  }
  static constexpr uint32_t ValuesCame(int stage) {
    return BarrierAt(1 + 2 * kStages + stage);
  }
  static constexpr uint32_t ValuesLeft(int stage) {
    return BarrierAt(1 + 3 * kStages + stage);
  }
  static constexpr int kBarrierCount = 1 + 4 * kStages;
  static constexpr uint32_t kSharedBytes =
      (BarrierAt(kBarrierCount) + 15) / 16 * 16;
};

// The maps of a call. Null where the kernel serves it; else why not, and mma.sync is to be taken.
inline const char* WhyNotWarpgroups(const FlashForwardArgs& args, DType dtype,
                                    int head_dim, int rows, int keys,
                                    TileMapSpec (&specs)[3]) {
  if (dtype != DType::kBF16 && dtype != DType::kF16) return "another type";
  if (head_dim != 64 && head_dim != 128) return "another head dimension";
  const FlashWork& work = args.work;
  const auto spec = [&](const FlashIn& tokens, int heads, int count,
                        int box_rows) {
    return SpecOf(tokens, dtype, heads, count, work.sequences, head_dim,
                  box_rows);
  };
  specs[0] = spec(args.q, work.heads, work.sight.queries.count, rows);
  specs[1] = spec(args.k, work.kv_heads, work.sight.keys.count, keys);
  specs[2] = spec(args.v, work.kv_heads, work.sight.keys.count, keys);
  for (const TileMapSpec& each : specs) {
    if (const char* reason = WhyNotTileMap(each)) return reason;
  }
  return nullptr;
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TILING_H_
