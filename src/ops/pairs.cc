#include "ops/pairs.h"

#include <algorithm>

#include "core/checked.h"
#include "core/parallel.h"
#include "kernels/kernels.h"

namespace nibble {

PairedLeft::PairedLeft(const Left& x, int64_t k)
    : tokens(x.tokens),
      words(ceil_div(k, int64_t{2})),
      numbers(Tensor::scratch(DType::i32, {tokens, words})),
      scales(Tensor::scratch(DType::f32, {ceil_div(k, kPairTerms), tokens})) {
  parallel_for(tokens, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      auto* to = numbers.data<int16_t>() + 2 * t * words;
      if (k % 2 != 0) to[k] = 0;
      for (int64_t at = 0; at < k; at += kPairTerms) {
        const int64_t count = std::min(kPairTerms, k - at);
        const float* from = x.data + t * x.token_step + at;
        const float largest = kernels().absmax(from, count);
        const float used = largest < kPairSmallest ? kPairSmallest : largest;  // NaN stays
        kernels().quantize_i16(from, kPairX / used, to + at, count);
        scales.f32()[at / kPairTerms * tokens + t] = used / kPairX;
      }
    }
  });
}

PairedPanels::PairedPanels(int64_t k, int64_t cols)
    : k_(k),
      cols_(cols),
      pairs_(ceil_div(k, int64_t{2})),
      words_(Tensor::scratch(DType::i32, {ceil_div(cols, kPanelCols), pairs_, kPanelCols})),
      scales_(Tensor::scratch(DType::f32, {ceil_div(cols, kPanelCols), groups(), kPanelCols})) {}

int64_t PairedPanels::groups() const { return ceil_div(k_, kPairTerms); }

int64_t PairedPanels::word_at(int64_t row, int64_t column) const {
  return column_in_panels(column, pairs_) + row / 2 * kPanelCols;
}

int64_t PairedPanels::scale_at(int64_t row, int64_t column) const {
  return column_in_panels(column, groups()) + row / kPairTerms * kPanelCols;
}

void PairedPanels::fill(int64_t row, Span columns, const float* values, int64_t row_step) {
  kernels().pair_columns({.x = values,
                          .w = words_.data<uint32_t>() + word_at(row, columns.begin),
                          .scale = scales_.f32() + scale_at(row, columns.begin),
                          .k = std::min(kPairTerms, k_ - row),
                          .cols = columns.size(),
                          .ldx = row_step,
                          .ldw = kPanelCols});
}

void PairedPanels::multiply(const PairedLeft& x, Result y, bool add) const {
  for_panels(x.tokens, cols_, [&](Span tokens, Span columns) {
    for (int64_t k = 0; k < k_; k += kPairTerms) {
      kernels().sum_pairs({.x = x.numbers.data<int16_t>() + 2 * tokens.begin * x.words + k,
                           .w = words_.data<uint32_t>() + word_at(k, columns.begin),
                           .x_scale = x.scales.f32() + k / kPairTerms * x.tokens + tokens.begin,
                           .w_scale = scales_.f32() + scale_at(k, columns.begin),
                           .y = y.data + tokens.begin * y.row_step + columns.begin,
                           .tokens = tokens.size(),
                           .k = round_up(std::min(kPairTerms, k_ - k), int64_t{2}),
                           .cols = columns.size(),
                           .ldx = 2 * x.words,
                           .ldw = kPanelCols,
                           .ldy = y.row_step,
                           .add = add || k > 0});
    }
  });
}

}  // namespace nibble
