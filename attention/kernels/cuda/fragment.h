// Which element of a matrix each register of a warp holds: mma.sync m16n8k16 and ldmatrix, as plain functions.
//
//     mma      D [16, 8] = A [16, 16] B [16, 8] + C [16, 8], A and B of 16 bits, C and D of f32
//              element i of a lane, two of A and B in a word, the first one in its low half
//
//     g = lane / 4, t = lane % 4
//     A  i = 0..7   row g, and 8 more where i / 2 is odd    column 2 t + i % 2, and 8 more from i = 4 on
//     B  i = 0..3   row 2 t + i % 2, and 8 more from i = 2  column g
//     C  i = 0..3   row g, and 8 more from i = 2            column 2 t + i % 2
//
//     ldmatrix.x4  loads four matrices of 8 x 8: lane 8 m + r gives the address of row r of matrix m, of 16 bytes, and
//                  gets in word m the elements (g, 2 t) and (g, 2 t + 1) of matrix m, or (2 t, g) and (2 t + 1, g)
//                  with .trans
//
// Since C and A hold the same rows and columns in the same lanes, two results side by side are an operand of 16 columns
// without any exchange: WordOfAFromC. That is how the probabilities go from one product to the next.
//
// Source: PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix".
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_FRAGMENT_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_FRAGMENT_H_

namespace shardproof::cuda {

// Of the product of one instruction.
inline constexpr int kMmaRows = 16, kMmaColumns = 8, kMmaDepth = 16;
inline constexpr int kLanesOfAQuad = 4;

struct FragmentPlace {
  int row = 0;
  int column = 0;

  bool operator==(const FragmentPlace&) const = default;
};

constexpr FragmentPlace PlaceInA(int lane, int element) {
  return {lane / 4 + element / 2 % 2 * 8,
          lane % 4 * 2 + element % 2 + element / 4 * 8};
}
constexpr FragmentPlace PlaceInB(int lane, int element) {
  return {lane % 4 * 2 + element % 2 + element / 2 * 8, lane / 4};
}
constexpr FragmentPlace PlaceInC(int lane, int element) {
  return {lane / 4 + element / 2 * 8, lane % 4 * 2 + element % 2};
}

// Of an 8 x 8 matrix that ldmatrix loads: element 0 or 1 of the word that a lane gets.
constexpr FragmentPlace LoadedPlace(int lane, int element, bool transposed) {
  const FragmentPlace place = {lane / 4, lane % 4 * 2 + element};
  return transposed ? FragmentPlace{place.column, place.row} : place;
}

// Where the 16 bytes begin whose address a lane gives. Of rows as they are stored:
//
//     A  [16 rows, 16 deep]                  its four words, in order
//     B  stored as [16 columns, 16 deep]     words 0 and 1 are B of columns 0 to 7, words 2 and 3 of columns 8 to 15
//     B  stored as [16 deep, 16 columns]     the same, by .trans
constexpr FragmentPlace RowAddressOfA(int lane) {
  return {lane % 16, lane / 16 * 8};
}
constexpr FragmentPlace RowAddressOfB(int lane) {
  return {lane % 8 + lane / 16 * 8, lane / 8 % 2 * 8};
}
constexpr FragmentPlace RowAddressOfTransposedB(int lane) {
  return {lane % 16, lane / 16 * 8};
}

// Word i of A, of columns 16 s to 16 s + 15 of results that lie side by side, is made of elements `first` and
// first + 1 of result number 2 s + `tile`.
struct WordOfC {
  int tile = 0;
  int first = 0;
};
constexpr WordOfC WordOfAFromC(int word) { return {word / 2, word % 2 * 2}; }

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_FRAGMENT_H_
