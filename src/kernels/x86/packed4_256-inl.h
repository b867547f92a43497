// What packed4_tiles-inl.h needs on vectors of 256 bits, and its arithmetic for activations of 16 bits, by the
// mac_pairs of the instruction set. No include guard and no includes: not a header of its own.

struct Rows {
  __m256i low, high;  // rows 0 to 7, 8 to 15
};
constexpr int kUnrolledLines = 4;
constexpr int kColumns = 4;  // 8 accumulators of 16 registers
constexpr int64_t kPanelsTogether = 4;

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
// The i8 levels of 4-bit codes, made unsigned, in both halves.
inline __m256i unsigned_levels(const Levels4* levels) noexcept {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(levels->i8));
  return _mm256_broadcastsi128_si256(_mm_add_epi8(bytes, _mm_set1_epi8(kLevelBias)));
}
template <bool Upper>
NIBBLE_INLINE Rows look_up_bytes(const Rows& codes, __m256i table) noexcept {
  return {_mm256_shuffle_epi8(table, nibbles<Upper>(codes.low)),
          _mm256_shuffle_epi8(table, nibbles<Upper>(codes.high))};
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
    return {mac_pairs(acc.low, weights.low, pair), mac_pairs(acc.high, weights.high, pair)};
  }
};

// Codes of 8 bits: the levels are the codes, without a table.
struct NoTable {};

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
