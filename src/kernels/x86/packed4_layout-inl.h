// Packing 4-bit weights (packed4.h), and unpacking all that are packed, on AVX2. No include guard and no includes: not
// a header of its own.

/// In each word of v, bytes a, b, c, d of it; kNoByte = 0.
constexpr int kNoByte = 0x80;
NIBBLE_INLINE __m256i pick_bytes(__m256i v, int a, int b, int c, int d) noexcept {
  const int first = a | b << 8 | c << 16 | d << 24, step = 0x04040404;
  const __m128i order = _mm_setr_epi32(first, first + step, first + 2 * step, first + 3 * step);
  return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(order));
}

/// Nibbles of each word, from the lowest: c1 c0 c3 c2 c5 c4 c7 c6, as stored, to c0 c4 c1 c5 c2 c6 c3 c7, as in a
/// record.
inline __m256i reordered(__m256i stored) noexcept {
  constexpr int no = kNoByte;
  const __m256i low_bits = _mm256_set1_epi8(15);
  const __m256i odd = _mm256_and_si256(stored, low_bits);                                                 // c1 c3 c5 c7
  const __m256i even = _mm256_and_si256(_mm256_srli_epi16(stored, 4), low_bits);                          // c0 c2 c4 c6
  const __m256i first = _mm256_or_si256(pick_bytes(even, 0, no, 1, no), pick_bytes(odd, no, 0, no, 1));   // c0 to c3
  const __m256i second = _mm256_or_si256(pick_bytes(even, 2, no, 3, no), pick_bytes(odd, no, 2, no, 3));  // c4 to c7
  return _mm256_or_si256(first, _mm256_slli_epi16(second, 4));
}

/// rows: 8 vectors of 8 words; rows[i] word j becomes rows[j] word i.
inline void transpose_words(__m256i rows[8]) noexcept {
  __m256i pairs[8], quads[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int k = 0; k < 2; ++k) {
      quads[i + 2 * k] = _mm256_unpacklo_epi64(pairs[i + k], pairs[i + k + 2]);
      quads[i + 2 * k + 1] = _mm256_unpackhi_epi64(pairs[i + k], pairs[i + k + 2]);
    }
  }
  for (int i = 0; i < 4; ++i) {
    rows[i] = _mm256_permute2x128_si256(quads[i], quads[i + 4], 0x20);
    rows[i + 4] = _mm256_permute2x128_si256(quads[i], quads[i + 4], 0x31);
  }
}

inline void store_scale(uint8_t* record, int64_t row, const RecordLayout& layout, int64_t n, float scale) noexcept {
  uint8_t* scales = record + record_code_bytes(layout) + scale_offset(layout, n);
  const uint32_t bits = __builtin_bit_cast(uint32_t, scale);
  const auto upper = static_cast<uint16_t>(bits >> 16);
  if (layout.scale_type == ScaleType::bf16) {
    std::memcpy(scales + row * 2, &upper, sizeof upper);
  } else {
    std::memcpy(scales + row * 4, &bits, sizeof bits);
  }
}

/// One record of 16 rows, of which `rows` are real; the others are left as they are (zero). The block, a power of two,
/// is 1 << block_bits: a division for every scale took half of the time.
inline void pack_record(const Pack4& a, int64_t row, int64_t rows, int64_t k, int block_bits,
                        uint8_t* record) noexcept {
  const int64_t group_inputs = kPackInputs / a.layout.groups;
  for (int64_t half = 0; half < kPackRows && half < rows; half += 8) {
    __m256i words[8];
    for (int64_t r = 0; r < 8; ++r) {
      const int64_t element = a.first + (row + half + r) * a.k + k;
      const bool real = half + r < rows;
      words[r] = real ? reordered(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a.packed + element / 2)))
                      : _mm256_setzero_si256();
      for (int64_t g = 0; real && g < a.layout.groups; ++g) {
        store_scale(record, half + r, a.layout, g, a.absmax[(element + g * group_inputs) >> block_bits]);
      }
    }
    transpose_words(words);
    for (int64_t j = 0; j < 8; ++j) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(record + j * 64 + half * 4), words[j]);
    }
  }
}

void pack_4bit(const Pack4& a) noexcept {
  const int64_t rows = (a.rows + kPackRows - 1) / kPackRows * kPackRows;
  const auto last = static_cast<size_t>(packed4_bytes(kPackRows, a.k, a.layout));
  if (rows > a.rows) std::memset(a.records + packed4_bytes(rows - kPackRows, a.k, a.layout), 0, last);
  const int block_bits = __builtin_ctzll(static_cast<unsigned long long>(a.block));
  uint8_t* record = a.records;
  for (int64_t row = 0; row < a.rows; row += kPackRows) {
    const int64_t real = a.rows - row < kPackRows ? a.rows - row : kPackRows;
    for (int64_t k = 0; k < a.k; k += kPackInputs, record += record_bytes(a.layout)) {
      pack_record(a, row, real, k, block_bits, record);
    }
  }
}

/// 8 levels of a row: its word of a line, levels 0 to 7 and 8 to 15 of the table.
inline __m256 looked_up(uint32_t word, __m256 low, __m256 high) noexcept {
  const uint64_t codes = (word & 0x0f0f0f0fu) | static_cast<uint64_t>(word >> 4 & 0x0f0f0f0fu) << 32;
  const __m256i index = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(codes)));
  const __m256 beyond = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));  // bit 3 becomes the sign
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index), beyond);
}

/// 8 codes of 8 bits: the words of two lines.
inline __m256 widened(uint32_t first, uint32_t second) noexcept {
  const auto codes = static_cast<long long>(first | static_cast<uint64_t>(second) << 32);
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(codes)));
}

inline uint32_t load_word(const uint8_t* at) noexcept {
  uint32_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

inline float load_half(const uint8_t* at) noexcept {
  uint16_t half;
  std::memcpy(&half, at, sizeof half);
  return _mm_cvtss_f32(_mm256_castps256_ps128(widen_f16(_mm_cvtsi32_si128(half))));
}

/// Scale or minimum n of a row. scales: what follows a record's codes.
inline float load_scale(const uint8_t* scales, int64_t row, const RecordLayout& layout, int64_t n) noexcept {
  const uint8_t* values = scales + scale_offset(layout, n);
  if (layout.scale_type == ScaleType::f32) return __builtin_bit_cast(float, load_word(values + row * 4));
  if (layout.scale_type == ScaleType::f16) return load_half(values + row * 2);
  if (layout.scale_type == ScaleType::f16_i8) {
    const float common = load_half(scales + n / layout.groups * 2 * kPackRows + row * 2);
    return common * static_cast<float>(static_cast<int8_t>(values[row]));
  }
  uint16_t upper;
  std::memcpy(&upper, values + row * 2, sizeof upper);
  return __builtin_bit_cast(float, static_cast<uint32_t>(upper) << 16);
}

/// 64 values of a row of a record.
template <bool kIs8Bit, bool kMinimums>
NIBBLE_INLINE void decode_block(const uint8_t* record, int64_t row, const RecordLayout& layout, __m256 low, __m256 high,
                                float* out) noexcept {
  const uint8_t *scales = record + record_code_bytes(layout), *words = record + row * 4;
  const int64_t vectors = 8 / layout.groups;
  for (int64_t g = 0; g < layout.groups; ++g) {
    const __m256 scale = all(load_scale(scales, row, layout, g));
    const __m256 minimum = all(kMinimums ? load_scale(scales, row, layout, layout.groups + g) : 0.0f);
#pragma GCC unroll 2
    for (int64_t j = g * vectors; j < (g + 1) * vectors; ++j) {
      const uint8_t* at = words + j * (kIs8Bit ? 128 : 64);
      const __m256 value =
          (kIs8Bit ? widened(load_word(at), load_word(at + 64)) : looked_up(load_word(at), low, high)) * scale;
      _mm256_storeu_ps(out + j * 8, kMinimums ? value + minimum : value);
    }
  }
}

template <bool kIs8Bit, bool kMinimums>
void decode_rows(const Packed4& w, int64_t first_row, int64_t rows, float* out) noexcept {
  const RecordLayout layout = w.layout;
  const __m256 low = kIs8Bit ? all(0) : _mm256_loadu_ps(w.levels->exact);
  const __m256 high = kIs8Bit ? all(0) : _mm256_loadu_ps(w.levels->exact + 8);
  const int64_t bytes = record_bytes(layout);
  for (int64_t r = first_row; r < first_row + rows; ++r) {
    const uint8_t* record = w.records + r / kPackRows * (w.k / kPackInputs) * bytes;
    for (int64_t k = 0; k < w.k; k += kPackInputs, record += bytes, out += kPackInputs) {
      decode_block<kIs8Bit, kMinimums>(record, r % kPackRows, layout, low, high, out);
    }
  }
}

void decode_packed4(const Packed4& w, int64_t first_row, int64_t rows, float* out) noexcept {
  if (w.layout.code_bits == 8) {
    w.layout.minimums ? decode_rows<true, true>(w, first_row, rows, out)
                      : decode_rows<true, false>(w, first_row, rows, out);
  } else {
    w.layout.minimums ? decode_rows<false, true>(w, first_row, rows, out)
                      : decode_rows<false, false>(w, first_row, rows, out);
  }
}
