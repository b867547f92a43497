// Products over packed weights (packed4.h), for whatever arithmetic M an instruction set has. Included inside its
// target region and anonymous namespace. No include guard and no includes: not a header of its own.
//
// A tile is a record's 16 rows by up to kColumns tokens of a panel. Its sums over the groups are kept in memory, in the
// first-level cache: one load and one store per 1024 products, or per 512 or 256 in smaller groups. Where a panel has
// more columns than a tile, its weights are looked up once for several panels.
//
// The instruction set provides Rows, 16 lanes of 32 bits, one per row; reload(rows), the same from memory; kColumns;
// kPanelsTogether, 1 where kColumns is a whole panel; kUnrolledLines, a compromise with the size of the code;
// panels_of(layout), of the panels for a record; scaled_add(value, scales, sums) in place; load_scales(scales, layout,
// n), scale or minimum n of what follows a record's codes; times(rows, factor); same(word), its float in all lanes. M
// has: kPanels; kLines, the lines of a record; kSteps, the words of a line; kExact (integers); Acc, zero and add if
// exact; Table table(levels), unit(levels); weights<step>(line, table) -> Rows; start(correction); dot(weights, x,
// acc), x being one word; value(acc, scale of x) -> Rows of floats. Or, where corrections are per line, instead of dot
// dot_line(first, second, x, next, correction, acc), the words of a line being x[0] and x[next]; start ignores its
// argument then.

constexpr int64_t kLineBytes = 64;
constexpr int64_t kPrefetchBytes = 8448;    // measured: the longest linear read is still slower without
constexpr int64_t kPanelBytes = 384 << 10;  // panels that stay in the second-level cache while all rows pass by

// Where a tile's weights come from: the codes of a record.
template <class M>
struct FromCodes {
  const uint8_t* codes;
  const typename M::Table* table;

  NIBBLE_INLINE void prefetch(int64_t line) const noexcept {
    _mm_prefetch(codes + kPrefetchBytes + line * kLineBytes, _MM_HINT_T0);
  }
  template <int Step>
  NIBBLE_INLINE Rows weights(int64_t line) const noexcept {
    return M::template weights<Step>(codes + line * kLineBytes, *table);
  }
};

// Or, for more than kColumns tokens, what was looked up once.
template <class M>
struct FromTile {
  const Rows* rows;

  NIBBLE_INLINE void prefetch(int64_t) const noexcept {}
  template <int Step>
  NIBBLE_INLINE Rows weights(int64_t line) const noexcept {
    return reload(rows[line * M::kSteps + Step]);
  }
};

template <class M>
constexpr bool kByLines = requires {
  M::dot_line;
};

template <class M, int N, class Source>
NIBBLE_INLINE void multiply_whole_line(const Source& source, int64_t line, const uint32_t* x, int64_t width,
                                       const uint32_t* correction, typename M::Acc (&acc)[1][N]) noexcept {
  const Rows first = source.template weights<0>(line), second = source.template weights<1>(line);
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n) acc[0][n] = M::dot_line(first, second, x + n, width, correction + n, acc[0][n]);
}

template <class M, int N, int Sums, class Source, int... Step>
NIBBLE_INLINE void multiply_line(const Source& source, int64_t line, const uint32_t* x, int64_t width,
                                 typename M::Acc (&acc)[Sums][N], std::integer_sequence<int, Step...>) noexcept {
  const auto step = [&](Rows weights, const uint32_t* words, auto& sums) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) sums[n] = M::dot(weights, words + n, sums[n]);
  };
  (step(source.template weights<Step>(line), x + Step * width, acc[Step % Sums]), ...);
}

// What follows a record's codes, and what it takes to use it.
struct Scales {
  const uint8_t* at;
  const RecordLayout* layout;
  float inverse_unit;
};

// N columns of a block of W tokens; sums: [N][16]. Few columns get two accumulators each, or every product would wait
// for the one before; floats do not, because the order of their sums must not depend on the number of tokens.
template <class M, int N, int W, int Groups, class Source>
NIBBLE_INLINE void multiply_block(const Source& source, const uint32_t* x, const Scales& scales, float* sums) noexcept {
  constexpr int kSums = M::kExact && !kByLines<M> && 2 * N <= kColumns ? 2 : 1;
  constexpr int64_t kGroupLines = M::kLines / Groups;
  const uint32_t* after = x + M::kLines * M::kSteps * W;
  const int64_t sums_at = block_words(M::kPanels, panels_of(*scales.layout)) - Groups;  // if there are any
#pragma GCC unroll 1
  for (int64_t g = 0; g < Groups; ++g) {
    typename M::Acc acc[kSums][N];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      acc[0][n] = M::start(after + (1 + g) * W + n);
      if constexpr (kSums == 2) acc[1][n] = M::zero();
    }
#pragma GCC unroll kUnrolledLines
    for (int64_t line = g * kGroupLines; line < (g + 1) * kGroupLines; ++line) {
      source.prefetch(line);
      const uint32_t* words = x + line * M::kSteps * W;
      if constexpr (kByLines<M>) {
        multiply_whole_line<M, N>(source, line, words, W, after + (1 + line) * W, acc);
      } else {
        multiply_line<M, N, kSums>(source, line, words, W, acc, std::make_integer_sequence<int, M::kSteps>{});
      }
    }
    const Rows factors = load_scales(scales.at, *scales.layout, g);
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      if constexpr (kSums == 2) acc[0][n] = M::add(acc[0][n], acc[1][n]);
      scaled_add(M::value(acc[0][n], after + n), factors, sums + n * kPackRows);
    }
    if (scales.layout->minimums == 0) continue;
    const Rows minimums = times(load_scales(scales.at, *scales.layout, Groups + g), scales.inverse_unit);
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) scaled_add(same(x + (sums_at + g) * W + n), minimums, sums + n * kPackRows);
  }
}

template <class M, int... Step>
NIBBLE_INLINE void look_up(const FromCodes<M>& codes, Rows* tile, std::integer_sequence<int, Step...>) noexcept {
  for (int64_t line = 0; line < M::kLines; ++line) {
    ((tile[line * M::kSteps + Step] = codes.template weights<Step>(line)), ...);
  }
}

// The columns of panels that lie so many words apart, by one record: few from its codes, more from what was looked up
// once for all.
template <class M, int W, int Groups>
NIBBLE_INLINE void multiply_record(const FromCodes<M>& codes, const uint32_t* x, int64_t panels, int64_t apart,
                                   const Scales& scales, float* sums) noexcept {
  if constexpr (W <= kColumns) {
    multiply_block<M, W, W, Groups>(codes, x, scales, sums);
  } else {
    Rows tile[M::kLines * M::kSteps];
    look_up<M>(codes, tile, std::make_integer_sequence<int, M::kSteps>{});
    for (int64_t p = 0; p < panels; ++p, x += apart, sums += kPanelTokens * kPackRows) {
      for (int64_t n = 0; n < W; n += kColumns) {
        multiply_block<M, kColumns, W, Groups>(FromTile<M>{tile}, x + n, scales, sums + n * kPackRows);
      }
    }
  }
}

// sums: of the panels, [kPanelTokens][kPackRows] each.
template <class M, int W, int Groups>
void multiply_panels(const MatmulPacked4& a, const uint8_t* record, const uint32_t* x, int64_t panels,
                     float* sums) noexcept {
  const typename M::Table table = M::table(a.w.levels);
  const RecordLayout& layout = a.w.layout;
  const int64_t blocks = a.w.k / kPackInputs, bytes = record_bytes(layout);
  const int64_t words = W * block_words(M::kPanels, panels_of(layout));
  Scales scales = {nullptr, &layout, 1.0f / M::unit(a.w.levels)};
  for (int64_t b = 0; b < blocks; ++b, record += bytes, x += words) {
    scales.at = record + M::kLines * kLineBytes;
    multiply_record<M, W, Groups>({record, &table}, x, panels, blocks * words, scales, sums);
  }
}

using MultiplyPanels = void (*)(const MatmulPacked4&, const uint8_t*, const uint32_t*, int64_t, float*) noexcept;

// By the width of the panels.
template <class M, int Groups>
MultiplyPanels panels_function(int64_t width) noexcept {
  constexpr MultiplyPanels kByWidth[] = {multiply_panels<M, 1, Groups>, multiply_panels<M, 2, Groups>,
                                         multiply_panels<M, 4, Groups>, multiply_panels<M, 8, Groups>,
                                         multiply_panels<M, 16, Groups>};
  return kByWidth[__builtin_ctzll(static_cast<unsigned long long>(width))];
}

template <class M>
MultiplyPanels panels_function(int64_t width, int64_t groups) noexcept {
  return groups == 1   ? panels_function<M, 1>(width)
         : groups == 2 ? panels_function<M, 2>(width)
                       : panels_function<M, 4>(width);
}

// Some whole panels, or one of any width, by the rows of a record.
template <class M>
void multiply_rows(const MatmulPacked4& a, int64_t words, int64_t row, int64_t token, int64_t panels) noexcept {
  constexpr size_t kTokenBytes = kPackRows * sizeof(float);
  alignas(64) float sums[kPanelsTogether * kPanelTokens * kPackRows];
  const int64_t width = panel_width(a.tokens - token), columns = panels * width;
  std::memset(sums, 0, static_cast<size_t>(columns) * kTokenBytes);
  const uint8_t* record = a.w.records + packed4_bytes(row, a.w.k, a.w.layout);
  const uint32_t* x = a.panels + panel_words(token, a.w.k, words);
  panels_function<M>(width, a.w.layout.groups)(a, record, x, panels, sums);
  const float unit = M::unit(a.w.levels);
  const int64_t rows = a.w.rows - row < kPackRows ? a.w.rows - row : kPackRows;
  for (int64_t n = 0; n < columns && token + n < a.tokens; ++n) {
    float *y = a.y + (token + n) * a.ldy + row, *values = sums + n * kPackRows;
    for (int64_t r = 0; r < kPackRows; ++r) values[r] *= unit;
    std::memcpy(y, values, rows == kPackRows ? kTokenBytes : static_cast<size_t>(rows) * sizeof(float));
  }
}

template <class M>
void multiply_packed(const MatmulPacked4& a) noexcept {
  const int64_t words = block_words(M::kPanels, panels_of(a.w.layout));
  const int64_t panel_bytes = 4 * panel_words(kPanelTokens, a.w.k, words) + 1;
  const int64_t pass = (kPanelBytes / panel_bytes + 1) * kPanelTokens;
  for (int64_t first = 0; first < a.tokens; first += pass) {
    const int64_t last = first + pass < a.tokens ? first + pass : a.tokens;
    for (int64_t row = 0; row < a.w.rows; row += kPackRows) {
      for (int64_t token = first, panels = 1; token < last; token += panels * kPanelTokens) {
        const int64_t whole = (last - token) / kPanelTokens;
        panels = whole > kPanelsTogether ? kPanelsTogether : whole > 1 ? whole : 1;
        multiply_rows<M>(a, words, row, token, panels);
      }
    }
  }
}

// M4: of 4-bit codes, M8: of 8-bit codes.
template <class M4, class M8>
void matmul_packed4(const MatmulPacked4& a) noexcept {
  if (a.w.layout.code_bits == 8) return multiply_packed<M8>(a);
  multiply_packed<M4>(a);
}
