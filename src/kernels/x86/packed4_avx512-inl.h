// The arithmetic of packed4_tiles-inl.h on AVX-512. No include guard and no includes: not a header of its own.

using Rows = __m512i;
constexpr int kColumns = 16;  // accumulators

NIBBLE_INLINE Rows load_scales(const uint8_t* p, int64_t bytes) noexcept {
  if (bytes == 4) return _mm512_loadu_si512(p);
  return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16);
}
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
  static NIBBLE_INLINE Rows value(Acc acc, const uint32_t* after, int64_t) noexcept { return scaled(acc, after); }
};

// The compiler does not find the form of the product that broadcasts its operand from memory, so it is named here.
struct PackedI8 : ExactSums {
  using Table = __m512i;
  static constexpr int64_t kWords = kWordsI8;
  static constexpr int kSteps = 2;

  static float unit(const Levels4& levels) noexcept { return levels.i8_unit; }
  static Table table(const Levels4& levels) noexcept {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(levels.i8));
    return _mm512_broadcast_i32x4(_mm_add_epi8(bytes, _mm_set1_epi8(kLevelBias)));
  }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table table) noexcept {
    const __m512i codes = _mm512_loadu_si512(line);
    const __m512i chosen = Step == 0 ? codes : _mm512_srli_epi16(codes, 4);
    return _mm512_shuffle_epi8(table, _mm512_and_si512(chosen, _mm512_set1_epi8(15)));
  }
  static NIBBLE_INLINE Acc start(const uint32_t* after, int64_t width) noexcept {
    return _mm512_set1_epi32(static_cast<int>(after[width]));
  }
  static NIBBLE_INLINE Acc dot(Rows weights, const uint32_t* x, Acc acc) noexcept {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(weights), "m"(*x));
    return acc;
  }
};

// A lookup takes the low five bits of every word, and the table is there twice.
struct PackedI16 : ExactSums {
  using Table = __m512i;
  static constexpr int64_t kWords = kWordsI16;
  static constexpr int kSteps = 4;

  static float unit(const Levels4& levels) noexcept { return levels.i16_unit; }
  static Table table(const Levels4& levels) noexcept {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(levels.i16)));
  }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table table) noexcept {
    constexpr unsigned kShifts[] = {0, 8, 4, 12};
    return _mm512_permutexvar_epi16(_mm512_srli_epi16(_mm512_loadu_si512(line), kShifts[Step]), table);
  }
  static NIBBLE_INLINE Acc start(const uint32_t*, int64_t) noexcept { return zero(); }
  static NIBBLE_INLINE Acc dot(Rows weights, const uint32_t* x, Acc acc) noexcept {
    asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(weights), "m"(*x));
    return acc;
  }
};

struct PackedF32 {
  using Table = F;
  using Acc = F;
  static constexpr int64_t kWords = kWordsF32;
  static constexpr bool kExact = false;
  static constexpr int kSteps = 8;

  static float unit(const Levels4&) noexcept { return 1.0f; }
  static Table table(const Levels4& levels) noexcept { return _mm512_loadu_ps(levels.exact); }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table table) noexcept {
    constexpr auto kShift = static_cast<unsigned>(Step < 4 ? 8 * Step : 8 * (Step - 4) + 4);
    return _mm512_castps_si512(_mm512_permutexvar_ps(_mm512_srli_epi32(_mm512_loadu_si512(line), kShift), table));
  }
  static NIBBLE_INLINE Acc start(const uint32_t*, int64_t) noexcept { return all(0); }
  static NIBBLE_INLINE Acc dot(Rows weights, const uint32_t* x, Acc acc) noexcept {
    asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(weights), "m"(*x));
    return acc;
  }
  static NIBBLE_INLINE Rows value(Acc acc, const uint32_t*, int64_t) noexcept { return _mm512_castps_si512(acc); }
};
