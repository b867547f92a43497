// The arithmetic of packed4_tiles-inl.h for activations of 8 bits with AVX-VNNI, beside that of packed4_256-inl.h. No
// include guard and no includes: not a header of its own.

PanelLayout panels_of(const RecordLayout& layout) noexcept { return panels_by_groups(layout); }

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
  static NIBBLE_INLINE Acc start(const uint32_t* correction) noexcept { return same(correction); }
  static NIBBLE_INLINE Acc dot(const Rows& weights, const uint32_t* x, Acc acc) noexcept {
    const __m256i words = broadcast(x);
    return {mac_bytes(acc.low, weights.low, words), mac_bytes(acc.high, weights.high, words)};
  }
};

struct Packed8I8 : PackedI8 {
  using Table = NoTable;
  static constexpr int64_t kLines = 16;
  static constexpr int kSteps = 1;

  static float unit(const Levels4*) noexcept { return 1.0f; }
  static Table table(const Levels4*) noexcept { return {}; }
  template <int Step>
  static NIBBLE_INLINE Rows weights(const uint8_t* line, Table) noexcept {
    const Rows codes = load_rows(line);
    const __m256i flip = _mm256_set1_epi8(-128);  // adds kCodeBias8
    return {_mm256_xor_si256(codes.low, flip), _mm256_xor_si256(codes.high, flip)};
  }
};
