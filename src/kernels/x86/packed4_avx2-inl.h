// The arithmetic of packed4_tiles-inl.h on AVX2, beside that of packed4_256-inl.h. No include guard and no includes:
// not a header of its own.

PanelLayout panels_of(const RecordLayout& layout) noexcept { return panels_by_lines(layout); }

struct PackedI8 : ExactSums {
  using Table = __m256i;
  static constexpr PanelType kPanels = PanelType::i8;
  static constexpr int64_t kLines = 8;
  static constexpr int kSteps = 2;

  static float unit(const Levels4* levels) noexcept { return levels->i8_unit; }
  static Table table(const Levels4* levels) noexcept { return unsigned_levels(levels); }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table table) noexcept {
    return look_up_bytes<Step == 1>(load_rows(line), table);
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
