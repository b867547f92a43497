#pragma once
// Products of f32 in whole numbers of 16 bits (PairSums): both factors as numbers with scales. Of matrix.cc.
#include <cstdint>

#include "core/tensor.h"
#include "quant/panels.h"

namespace nibble {

/// Tokens by k, wherever the values lie.
struct Left {
  const float* data;
  int64_t tokens;
  int64_t token_step, k_step;
};

struct Result {
  float* data;
  int64_t row_step;
};

/// x in whole numbers, a scale per token and kPairTerms of k.
struct PairedLeft {
  int64_t tokens, words;  // words: of a token
  Tensor numbers;         // [tokens, words]
  Tensor scales;          // [groups, tokens]

  /// x.k_step: 1
  PairedLeft(const Left& x, int64_t k);
};

/// Panels of a weight in whole numbers, a scale per column and kPairTerms of k.
class PairedPanels {
 public:
  PairedPanels(int64_t k, int64_t cols);

  /// Fills columns of one panel and kPairTerms rows, or what is left of them. values: of the first, row_step apart.
  void fill(int64_t row, Span columns, const float* values, int64_t row_step);

  int64_t groups() const;

  /// y = x w, or with `add` y += x w.
  void multiply(const PairedLeft& x, Result y, bool add) const;

 private:
  /// Where a column begins that belongs to a row's pair, and to its group.
  int64_t word_at(int64_t row, int64_t column) const;
  int64_t scale_at(int64_t row, int64_t column) const;

  int64_t k_, cols_, pairs_;
  Tensor words_;   // [panels, pairs, 64]
  Tensor scales_;  // [panels, groups, 64]
};

}  // namespace nibble
