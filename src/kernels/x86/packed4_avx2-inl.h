// The arithmetic of packed4_tiles-inl.h on AVX2. No include guard and no includes: not a header of its own.

struct Rows {
  __m256i low, high;  // rows 0 to 7, 8 to 15
};
constexpr int kUnrolledLines = 4;
constexpr int kColumns = 4;  // 8 accumulators of 16 registers

PanelLayout panels_of(const RecordLayout& layout) noexcept { return panels_by_lines(layout); }

NIBBLE_INLINE Rows load_rows(const void* p) noexcept {
  const auto* halves = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)};
}
// Compilers copy a struct in other pieces than it was stored in.
NIBBLE_INLINE Rows reload(const Rows& rows) noexcept {
  return {_mm256_load_si256(&rows.low), _mm256_load_si256(&rows.high)};
}
NIBBLE_INLINE __m128i load_halves(const uint8_t* p) noexcept {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
// Eight scales or minimums n, from row `half` on.
NIBBLE_INLINE F load_eight(const uint8_t* scales, const RecordLayout& layout, int64_t n, int64_t half) noexcept {
  const uint8_t* values = scales + scale_offset(layout, n);
  if (layout.scale_type == ScaleType::bf16) return widen_bf16(load_halves(values + 2 * half));
  if (layout.scale_type == ScaleType::f32) return _mm256_loadu_ps(reinterpret_cast<const float*>(values) + half);
  if (layout.scale_type == ScaleType::f16) return _mm256_cvtph_ps(load_halves(values + 2 * half));
  const uint8_t* common = scales + (n < layout.groups ? 0 : 2 * kPackRows) + 2 * half;
  const __m128i factors = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(values + half));
  return _mm256_cvtph_ps(load_halves(common)) * _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(factors));
}
NIBBLE_INLINE Rows load_scales(const uint8_t* scales, const RecordLayout& layout, int64_t n) noexcept {
  return {_mm256_castps_si256(load_eight(scales, layout, n, 0)), _mm256_castps_si256(load_eight(scales, layout, n, 8))};
}
NIBBLE_INLINE Rows times(const Rows& rows, float factor) noexcept {
  return {_mm256_castps_si256(_mm256_castsi256_ps(rows.low) * all(factor)),
          _mm256_castps_si256(_mm256_castsi256_ps(rows.high) * all(factor))};
}
NIBBLE_INLINE void scaled_add(const Rows& value, const Rows& scales, float* sums) noexcept {
  _mm256_store_ps(sums, fma(_mm256_castsi256_ps(value.low), _mm256_castsi256_ps(scales.low), _mm256_load_ps(sums)));
  _mm256_store_ps(sums + 8,
                  fma(_mm256_castsi256_ps(value.high), _mm256_castsi256_ps(scales.high), _mm256_load_ps(sums + 8)));
}
NIBBLE_INLINE __m256i broadcast(const uint32_t* word) noexcept { return _mm256_set1_epi32(static_cast<int>(*word)); }
NIBBLE_INLINE Rows same(const uint32_t* word) noexcept { return {broadcast(word), broadcast(word)}; }
NIBBLE_INLINE Rows scaled(const Rows& total, const uint32_t* scale) noexcept {
  const F factor = _mm256_castsi256_ps(broadcast(scale));
  return {_mm256_castps_si256(_mm256_cvtepi32_ps(total.low) * factor),
          _mm256_castps_si256(_mm256_cvtepi32_ps(total.high) * factor)};
}
template <bool Upper>
NIBBLE_INLINE __m256i nibbles(__m256i codes) noexcept {
  return _mm256_and_si256(Upper ? _mm256_srli_epi16(codes, 4) : codes, _mm256_set1_epi8(15));
}
// An empty statement that "changes" a sum keeps GCC from regrouping sums, which costs registers.
NIBBLE_INLINE void keep(Rows& acc) noexcept { asm("" : "+x"(acc.low), "+x"(acc.high)); }

// 32-bit sums of integers.
struct ExactSums {
  using Acc = Rows;
  static constexpr bool kExact = true;
  static NIBBLE_INLINE Acc zero() noexcept { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static NIBBLE_INLINE Acc add(const Acc& a, const Acc& b) noexcept {
    return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
  }
  static NIBBLE_INLINE Rows value(const Acc& acc, const uint32_t* scale) noexcept { return scaled(acc, scale); }
};

struct PackedI8 : ExactSums {
  using Table = __m256i;
  static constexpr PanelType kPanels = PanelType::i8;
  static constexpr int64_t kLines = 8;
  static constexpr int kSteps = 2;

  static float unit(const Levels4* levels) noexcept { return levels->i8_unit; }
  static Table table(const Levels4* levels) noexcept {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(levels->i8));
    return _mm256_broadcastsi128_si256(_mm_add_epi8(bytes, _mm_set1_epi8(kLevelBias)));
  }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table table) noexcept {
    const Rows codes = load_rows(line);
    return {_mm256_shuffle_epi8(table, nibbles<Step == 1>(codes.low)),
            _mm256_shuffle_epi8(table, nibbles<Step == 1>(codes.high))};
  }
  static NIBBLE_INLINE Acc start(const uint32_t*) noexcept { return zero(); }
  // Two products of a level up to 200 and of neighbours, together at most 163, fit 16 bits. Four do not, but without
  // what made the levels unsigned they do: up to 100 by twice 163. So their sum is right once it is corrected, though
  // it wraps around before.
  static NIBBLE_INLINE Acc dot_line(const Rows& first, const Rows& second, const uint32_t* x, int64_t next,
                                    const uint32_t* correction, Acc acc) noexcept {
    const __m256i words = broadcast(x), ones = _mm256_set1_epi16(1);
    Rows sums = {_mm256_maddubs_epi16(first.low, words), _mm256_maddubs_epi16(first.high, words)};
    keep(sums);
    const __m256i more = broadcast(x + next);
    sums.low = _mm256_add_epi16(sums.low, _mm256_maddubs_epi16(second.low, more));
    sums.high = _mm256_add_epi16(sums.high, _mm256_maddubs_epi16(second.high, more));
    keep(sums);
    const __m256i by = broadcast(correction);
    acc.low = _mm256_add_epi32(acc.low, _mm256_madd_epi16(_mm256_add_epi16(sums.low, by), ones));
    acc.high = _mm256_add_epi32(acc.high, _mm256_madd_epi16(_mm256_add_epi16(sums.high, by), ones));
    keep(acc);
    return acc;
  }
};

// Levels of 16 bits by two lookups of a byte each.
struct PackedI16 : ExactSums {
  struct Table {
    __m256i lower, upper;
  };
  static constexpr PanelType kPanels = PanelType::i16;
  static constexpr int64_t kLines = 8;
  static constexpr int kSteps = 4;

  static float unit(const Levels4* levels) noexcept { return levels->i16_unit; }
  static Table table(const Levels4* levels) noexcept {
    const Rows words = {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(levels->i16)), {}};
    const __m128i first = _mm256_castsi256_si128(words.low), second = _mm256_extracti128_si256(words.low, 1);
    const __m128i byte = _mm_set1_epi16(255);
    return {_mm256_broadcastsi128_si256(_mm_packus_epi16(_mm_and_si128(first, byte), _mm_and_si128(second, byte))),
            _mm256_broadcastsi128_si256(_mm_packus_epi16(_mm_srli_epi16(first, 8), _mm_srli_epi16(second, 8)))};
  }
  // Of each row, the words of codes 0 and 2 (Odd false) or 1 and 3 of the lower or the upper nibbles.
  template <bool Upper, bool Odd>
  static NIBBLE_INLINE __m256i words(__m256i codes, const Table& table) noexcept {
    const __m256i order = _mm256_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15,  //
                                           0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
    const __m256i chosen = nibbles<Upper>(_mm256_shuffle_epi8(codes, order));
    const __m256i lower = _mm256_shuffle_epi8(table.lower, chosen), upper = _mm256_shuffle_epi8(table.upper, chosen);
    const F rows01 = _mm256_castsi256_ps(_mm256_unpacklo_epi8(lower, upper));
    const F rows23 = _mm256_castsi256_ps(_mm256_unpackhi_epi8(lower, upper));
    return _mm256_castps_si256(_mm256_shuffle_ps(rows01, rows23, Odd ? 0xdd : 0x88));
  }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, const Table& table) noexcept {
    const Rows codes = load_rows(line);
    return {words<(Step >= 2), Step % 2 == 1>(codes.low, table), words<(Step >= 2), Step % 2 == 1>(codes.high, table)};
  }
  static NIBBLE_INLINE Acc start(const uint32_t*) noexcept { return zero(); }
  static NIBBLE_INLINE Acc dot(const Rows& weights, const uint32_t* x, Acc acc) noexcept {
    const __m256i pair = broadcast(x);
    acc.low = _mm256_add_epi32(acc.low, _mm256_madd_epi16(weights.low, pair));
    acc.high = _mm256_add_epi32(acc.high, _mm256_madd_epi16(weights.high, pair));
    keep(acc);
    return acc;
  }
};

struct PackedF32 {
  using Table = Levels;
  using Acc = Rows;
  static constexpr PanelType kPanels = PanelType::f32;
  static constexpr int64_t kLines = 8;
  static constexpr bool kExact = false;
  static constexpr int kSteps = 8;

  static float unit(const Levels4*) noexcept { return 1.0f; }
  static Table table(const Levels4* levels) noexcept { return load_levels(levels->exact, 1.0f); }
  template <int Shift>
  static NIBBLE_INLINE __m256i numbers(__m256i line, const Table& table) noexcept {
    const __m256i codes = _mm256_srli_epi32(line, Shift);
    const F low = _mm256_permutevar8x32_ps(table.low, codes), high = _mm256_permutevar8x32_ps(table.high, codes);
    return _mm256_castps_si256(_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28))));
  }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, const Table& table) noexcept {
    constexpr int kShift = Step < 4 ? 8 * Step : 8 * (Step - 4) + 4;
    const Rows codes = load_rows(line);
    return {numbers<kShift>(codes.low, table), numbers<kShift>(codes.high, table)};
  }
  static NIBBLE_INLINE Acc start(const uint32_t*) noexcept { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static NIBBLE_INLINE Acc dot(const Rows& weights, const uint32_t* x, Acc acc) noexcept {
    const F number = _mm256_castsi256_ps(broadcast(x));
    acc.low = _mm256_castps_si256(fma(_mm256_castsi256_ps(weights.low), number, _mm256_castsi256_ps(acc.low)));
    acc.high = _mm256_castps_si256(fma(_mm256_castsi256_ps(weights.high), number, _mm256_castsi256_ps(acc.high)));
    return acc;
  }
  static NIBBLE_INLINE Rows value(const Acc& acc, const uint32_t*) noexcept { return acc; }
};

// Codes of 8 bits: the levels are the codes, without a table.
struct NoTable {};

// The magnitude of the code by the value with the code's sign: at most 128 by neighbours of at most 163 together, which
// fit 16 bits. Values are never -128, so that the sign can always be changed.
struct Packed8I8 : ExactSums {
  using Table = NoTable;
  static constexpr PanelType kPanels = PanelType::i8;
  static constexpr int64_t kLines = 16;
  static constexpr int kSteps = 1;

  static float unit(const Levels4*) noexcept { return 1.0f; }
  static Table table(const Levels4*) noexcept { return {}; }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table) noexcept {
    return load_rows(line);
  }
  static NIBBLE_INLINE Acc start(const uint32_t*) noexcept { return zero(); }
  static NIBBLE_INLINE __m256i products(__m256i codes, __m256i x) noexcept {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  }
  static NIBBLE_INLINE Acc dot(const Rows& codes, const uint32_t* x, Acc acc) noexcept {
    const __m256i words = broadcast(x);
    acc.low = _mm256_add_epi32(acc.low, products(codes.low, words));
    acc.high = _mm256_add_epi32(acc.high, products(codes.high, words));
    keep(acc);
    return acc;
  }
};

struct Packed8I16 : PackedI16 {
  using Table = NoTable;
  static constexpr int64_t kLines = 16;
  static constexpr int kSteps = 2;

  static float unit(const Levels4*) noexcept { return 1.0f; }
  static Table table(const Levels4*) noexcept { return {}; }
  template <int Step>
  static NIBBLE_INLINE __m256i halves(__m256i codes) noexcept {
    return _mm256_srai_epi16(Step == 0 ? _mm256_slli_epi16(codes, 8) : codes, 8);
  }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table) noexcept {
    const Rows codes = load_rows(line);
    return {halves<Step>(codes.low), halves<Step>(codes.high)};
  }
};

struct Packed8F32 : PackedF32 {
  using Table = NoTable;
  static constexpr int64_t kLines = 16;
  static constexpr int kSteps = 4;

  static Table table(const Levels4*) noexcept { return {}; }
  template <int Step>
  static NIBBLE_INLINE __m256i numbers(__m256i codes) noexcept {
    const __m256i upper = _mm256_slli_epi32(codes, 24 - 8 * Step);
    return _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_srai_epi32(upper, 24)));
  }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table) noexcept {
    const Rows codes = load_rows(line);
    return {numbers<Step>(codes.low), numbers<Step>(codes.high)};
  }
};
