#pragma once
// How products of many tokens are cut into work that stays in the caches: weights in panels of 64 columns, which the
// kernels sum_rows and sum_codes take, and some of the tokens at a time.
#include <algorithm>
#include <cstdint>

#include "core/checked.h"
#include "core/parallel.h"

namespace nibble {

inline constexpr int64_t kPanelCols = 64;       // what a tile of either kernel takes, or two
inline constexpr int64_t kTokensTogether = 48;  // a multiple of the tokens of every instruction set's tile
inline constexpr int64_t kTurnedRows = 32;      // of weights, turned together: half of a panel's columns
inline constexpr int64_t kTurnFrom = 32;        // tokens; for fewer, turning the weights costs more than it gains

/// From begin to before end.
struct Span {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

/// Columns of k words that are made into panels together: 1 MiB, half of a second-level cache.
inline int64_t columns_together(int64_t k) {
  constexpr int64_t kWords = 256 * 1024;
  return std::max(kPanelCols, kWords / std::max<int64_t>(k, 1) / kPanelCols * kPanelCols);
}

/// Where column c of panels of k words begins: panels lie one behind the other, each as [k, 64].
inline int64_t column_in_panels(int64_t c, int64_t k) { return c / kPanelCols * kPanelCols * k + c % kPanelCols; }

/// body(tokens, columns) for every panel and some of the tokens, shared by the threads.
template <class Body>
void for_panels(int64_t tokens, int64_t columns, Body body) {
  const int64_t blocks = ceil_div(tokens, kTokensTogether);
  parallel_for(ceil_div(columns, kPanelCols) * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t column = unit / blocks * kPanelCols, token = unit % blocks * kTokensTogether;
      body(Span{token, std::min(tokens, token + kTokensTogether)},
           Span{column, std::min(columns, column + kPanelCols)});
    }
  });
}

/// body(rows) for rows of weights that become columns of one panel, shared by the threads.
template <class Body>
void for_turned_rows(int64_t rows, Body body) {
  parallel_for(rows, kTurnedRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r += kTurnedRows) body(Span{r, std::min(end, r + kTurnedRows)});
  });
}

}  // namespace nibble
