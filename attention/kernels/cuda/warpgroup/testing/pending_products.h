// For the tests: the products of one thread that are under way, and what must not happen to their registers meanwhile.
//
//     issued       D's registers become poison, their values go into `sums`; those of A are remembered
//     landed       computed, from shared memory as it is then, into `sums`: at some time from the issue to the wait
//     waited for   D's registers, which must still be poison, get the sums; those of A must be as they were
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TESTING_PENDING_PRODUCTS_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TESTING_PENDING_PRODUCTS_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "attention/kernels/cuda/warpgroup/wgmma.h"

namespace shardproof::cuda::testing {

// One instruction, as its thread needs it: two rows of A, and B.
struct PendingProduct {
  float* d = nullptr;  // The first register of D.
  int columns = 0;
  int thread = 0;  // Of the warpgroup.
  // Rows t % 32 / 4 and 8 more of the warp's.
  bool a_is_shared = false;
  OperandLayout a;
  float a_rows[2][kWgmmaDepth] = {};
  const uint32_t* a_words = nullptr;
  uint32_t a_before[4] = {};
  OperandLayout b;
  Major b_major = Major::kDepth;
  float (*widen)(uint16_t bits) = nullptr;
  int group = 0;
  bool landed = false;
};

// D of the products that add to it.
struct PendingSums {
  float* d = nullptr;
  int count = 0;
  int products = 0;
  std::array<float, 128> sums;
};

class PendingProducts {
 public:
  // A number that no product comes near, another one in every register. Finite: fmax leaves NaN out.
  static float Poison(int register_number) {
    return std::bit_cast<float>(0x70000000U +
                                static_cast<uint32_t>(register_number));
  }

  int size() const { return count_; }
  int group() const { return group_; }
  void Commit() { ++group_; }

  // False where there is no room, or D's registers were touched.
  const char* Issue(PendingProduct product, bool accumulates) {
    if (count_ == static_cast<int>(products_.size())) {
      return "too many products under way for this machine";
    }
    PendingSums* sums = Find(product.d);
    if (sums == nullptr) {
      sums = Find(nullptr);
      if (sums == nullptr) return "too many results under way";
      sums->d = product.d;
      sums->count = product.columns / 2;
      sums->products = 0;
      for (int i = 0; i < sums->count; ++i) {
        sums->sums[i] = product.d[i];
        product.d[i] = Poison(i);
      }
    } else if (!IsPoison(*sums)) {
      return "registers of a product under way are touched";
    }
    if (!accumulates) sums->sums.fill(0);
    ++sums->products;
    product.group = group_;
    products_[static_cast<size_t>(count_++)] = product;
    return nullptr;
  }

  // Lands those that have not landed, of groups before `group`. read(address) is what shared memory has there.
  template <class Read>
  void Land(int group, const Read& read) {
    for (int i = 0; i < count_; ++i) {
      PendingProduct& product = products_[static_cast<size_t>(i)];
      if (product.landed || product.group >= group) continue;
      product.landed = true;
      Multiply(product, *Find(product.d), read);
    }
  }
  // Hands out the results of groups before `group`, all landed. done(product) is called for each.
  template <class Done>
  const char* Finish(int group, const Done& done) {
    const char* error = nullptr;
    int later = 0;
    for (int i = 0; i < count_; ++i) {
      const PendingProduct product = products_[static_cast<size_t>(i)];
      if (product.group >= group) {
        products_[static_cast<size_t>(later++)] = product;
        continue;
      }
      done(product);
      if (!product.a_is_shared && std::memcmp(product.a_words, product.a_before,
                                              sizeof(product.a_before)) != 0) {
        error = "operands of a product under way are touched";
      }
      PendingSums& sums = *Find(product.d);
      if (--sums.products > 0) continue;
      if (!IsPoison(sums))
        error = "registers of a product under way are touched";
      for (int r = 0; r < sums.count; ++r) sums.d[r] = sums.sums[r];
      sums.d = nullptr;
    }
    count_ = later;
    return error;
  }

 private:
  PendingSums* Find(const float* d) {
    for (PendingSums& sums : sums_) {
      if (sums.d == d) return &sums;
    }
    return nullptr;
  }
  static bool IsPoison(const PendingSums& sums) {
    for (int i = 0; i < sums.count; ++i) {
      if (sums.d[i] != Poison(i)) return false;
    }
    return true;
  }

  template <class Read>
  static void Multiply(const PendingProduct& product, PendingSums& sums,
                       const Read& read) {
    float a[2][kWgmmaDepth];
    std::memcpy(a, product.a_rows, sizeof(a));
    for (int i = 0; product.a_is_shared && i < 2; ++i) {
      const int row = PlaceInWgmmaD(product.thread, 2 * i).row;
      for (int k = 0; k < kWgmmaDepth; ++k) {
        a[i][k] = product.widen(
            read(ElementAddress(product.a, Major::kDepth, row, k)));
      }
    }
    for (int r = 0; r < sums.count; r += 4) {
      for (int j = 0; j < 2; ++j) {
        const int column = PlaceInWgmmaD(product.thread, r + j).column;
        float b[kWgmmaDepth];
        for (int k = 0; k < kWgmmaDepth; ++k) {
          b[k] = product.widen(
              read(ElementAddress(product.b, product.b_major, column, k)));
        }
        for (int i = 0; i < 2; ++i) {
          float& sum = sums.sums[static_cast<size_t>(r + j + 2 * i)];
          for (int k = 0; k < kWgmmaDepth; ++k) sum += a[i][k] * b[k];
        }
      }
    }
  }

  // Two groups of 8.
  std::array<PendingProduct, 24> products_;
  std::array<PendingSums, 3> sums_;
  int count_ = 0;
  int group_ = 0;
};

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_TESTING_PENDING_PRODUCTS_H_
