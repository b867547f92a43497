// The arithmetic of packed4_tiles-inl.h on AVX-512. No include guard and no includes: not a header of its own.

using Rows = __m512i;
constexpr int kUnrolledLines = 8;
constexpr int kColumns = 16;  // accumulators: all of a panel
constexpr int64_t kPanelsTogether = 1;

PanelLayout panels_of(const RecordLayout& layout) noexcept { return panels_by_groups(layout); }

NIBBLE_INLINE Rows reload(const Rows& rows) noexcept { return rows; }
NIBBLE_INLINE __m256i load_halves(const uint8_t* p) noexcept {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
NIBBLE_INLINE Rows load_scales(const uint8_t* scales, const RecordLayout& layout, int64_t n) noexcept {
  const uint8_t* values = scales + scale_offset(layout, n);
  if (layout.scale_type == ScaleType::bf16) return _mm512_slli_epi32(_mm512_cvtepu16_epi32(load_halves(values)), 16);
  if (layout.scale_type == ScaleType::f32) return _mm512_loadu_si512(values);
  if (layout.scale_type == ScaleType::f16) return _mm512_castps_si512(_mm512_cvtph_ps(load_halves(values)));
  const uint8_t* common = scales + (n < layout.groups ? 0 : 2 * kPackRows);
  const __m512i factors = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
  return _mm512_castps_si512(_mm512_cvtph_ps(load_halves(common)) * _mm512_cvtepi32_ps(factors));
}
NIBBLE_INLINE Rows times(Rows rows, float factor) noexcept {
  return _mm512_castps_si512(_mm512_castsi512_ps(rows) * all(factor));
}
NIBBLE_INLINE Rows same(const uint32_t* word) noexcept { return _mm512_set1_epi32(static_cast<int>(*word)); }
NIBBLE_INLINE void scaled_add(Rows value, Rows scales, float* sums) noexcept {
  _mm512_store_ps(sums, fma(_mm512_castsi512_ps(value), _mm512_castsi512_ps(scales), _mm512_load_ps(sums)));
}
NIBBLE_INLINE F broadcast(const uint32_t* number) noexcept {
  return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*number)));
}
NIBBLE_INLINE Rows scaled(__m512i total, const uint32_t* scale) noexcept {
  return _mm512_castps_si512(_mm512_cvtepi32_ps(total) * broadcast(scale));
}

// 32-bit sums of integers.
struct ExactSums {
  using Acc = __m512i;
  static constexpr bool kExact = true;
  static NIBBLE_INLINE Acc zero() noexcept { return _mm512_setzero_si512(); }
  static NIBBLE_INLINE Acc add(Acc a, Acc b) noexcept { return _mm512_add_epi32(a, b); }
  static NIBBLE_INLINE Rows value(Acc acc, const uint32_t* scale) noexcept { return scaled(acc, scale); }
};

// The compiler does not find the form of the product that broadcasts its operand from memory, so it is named here.
struct PackedI8 : ExactSums {
  using Table = __m512i;
  static constexpr PanelType kPanels = PanelType::i8;
  static constexpr int64_t kLines = 8;
  static constexpr int kSteps = 2;

  static float unit(const Levels4* levels) noexcept { return levels->i8_unit; }
  static Table table(const Levels4* levels) noexcept {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(levels->i8));
    return _mm512_broadcast_i32x4(_mm_add_epi8(bytes, _mm_set1_epi8(kLevelBias)));
  }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table table) noexcept {
    const __m512i codes = _mm512_loadu_si512(line);
    const __m512i chosen = Step == 0 ? codes : _mm512_srli_epi16(codes, 4);
    return _mm512_shuffle_epi8(table, _mm512_and_si512(chosen, _mm512_set1_epi8(15)));
  }
  static NIBBLE_INLINE Acc start(const uint32_t* correction) noexcept { return same(correction); }
  static NIBBLE_INLINE Acc dot(Rows weights, const uint32_t* x, Acc acc) noexcept {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(weights), "m"(*x));
    return acc;
  }
};

// A lookup takes the low five bits of every word, and the table is there twice.
struct PackedI16 : ExactSums {
  using Table = __m512i;
  static constexpr PanelType kPanels = PanelType::i16;
  static constexpr int64_t kLines = 8;
  static constexpr int kSteps = 4;

  static float unit(const Levels4* levels) noexcept { return levels->i16_unit; }
  static Table table(const Levels4* levels) noexcept {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(levels->i16)));
  }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table table) noexcept {
    constexpr unsigned kShifts[] = {0, 8, 4, 12};
    return _mm512_permutexvar_epi16(_mm512_srli_epi16(_mm512_loadu_si512(line), kShifts[Step]), table);
  }
  static NIBBLE_INLINE Acc start(const uint32_t*) noexcept { return zero(); }
  static NIBBLE_INLINE Acc dot(Rows weights, const uint32_t* x, Acc acc) noexcept {
    asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(weights), "m"(*x));
    return acc;
  }
};

struct PackedF32 {
  using Table = F;
  using Acc = F;
  static constexpr PanelType kPanels = PanelType::f32;
  static constexpr int64_t kLines = 8;
  static constexpr bool kExact = false;
  static constexpr int kSteps = 8;

  static float unit(const Levels4*) noexcept { return 1.0f; }
  static Table table(const Levels4* levels) noexcept { return _mm512_loadu_ps(levels->exact); }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table table) noexcept {
    constexpr auto kShift = static_cast<unsigned>(Step < 4 ? 8 * Step : 8 * (Step - 4) + 4);
    return _mm512_castps_si512(_mm512_permutexvar_ps(_mm512_srli_epi32(_mm512_loadu_si512(line), kShift), table));
  }
  static NIBBLE_INLINE Acc start(const uint32_t*) noexcept { return all(0); }
  static NIBBLE_INLINE Acc dot(Rows weights, const uint32_t* x, Acc acc) noexcept {
    asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(weights), "m"(*x));
    return acc;
  }
  static NIBBLE_INLINE Rows value(Acc acc, const uint32_t*) noexcept { return _mm512_castps_si512(acc); }
};

// Codes of 8 bits: the levels are the codes, without a table.
struct NoTable {};

struct Packed8I8 : PackedI8 {
  using Table = NoTable;
  static constexpr int64_t kLines = 16;
  static constexpr int kSteps = 1;

  static float unit(const Levels4*) noexcept { return 1.0f; }
  static Table table(const Levels4*) noexcept { return {}; }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table) noexcept {
    return _mm512_xor_si512(_mm512_loadu_si512(line), _mm512_set1_epi8(-128));  // adds kCodeBias8
  }
};

struct Packed8I16 : PackedI16 {
  using Table = NoTable;
  static constexpr int64_t kLines = 16;
  static constexpr int kSteps = 2;

  static float unit(const Levels4*) noexcept { return 1.0f; }
  static Table table(const Levels4*) noexcept { return {}; }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table) noexcept {
    const __m512i codes = _mm512_loadu_si512(line);
    return _mm512_srai_epi16(Step == 0 ? _mm512_slli_epi16(codes, 8) : codes, 8);
  }
};

struct Packed8F32 : PackedF32 {
  using Table = NoTable;
  static constexpr int64_t kLines = 16;
  static constexpr int kSteps = 4;

  static Table table(const Levels4*) noexcept { return {}; }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table) noexcept {
    const __m512i upper = _mm512_slli_epi32(_mm512_loadu_si512(line), static_cast<unsigned>(24 - 8 * Step));
    return _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_srai_epi32(upper, 24)));
  }
};
