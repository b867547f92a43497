// Activations of packed weights on AVX2. Included after activations4-inl.h and float-inl.h inside the target
// region and anonymous namespace. No include guard and no includes: not a header of its own.

constexpr int kVectors = 8;  // of a block

struct InputBlock {
  F x[kVectors];
  float largest;
};

NIBBLE_INLINE InputBlock load_block(const float* x) noexcept {
  InputBlock block;
  Magnitudes largest = magnitudes(all(0));
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) {
    block.x[i] = _mm256_loadu_ps(x + i * kLanes);
    largest = larger(largest, magnitudes(block.x[i]));
  }
  block.largest = max_of(largest);
  return block;
}

NIBBLE_INLINE float largest_mean_of_neighbours(const InputBlock& block) noexcept {
  F largest = all(0);
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; i += 2) {
    const F first = _mm256_castsi256_ps(magnitudes(block.x[i])) * all(0.5f);
    const F second = _mm256_castsi256_ps(magnitudes(block.x[i + 1])) * all(0.5f);
    largest = larger(largest, _mm256_hadd_ps(first, second));
  }
  return max_of(largest);
}

NIBBLE_INLINE __m256i steps(F x, float multiplier) noexcept { return _mm256_cvtps_epi32(x * all(multiplier)); }

// 32 values as bytes, in order.
NIBBLE_INLINE __m256i to_bytes(const F* x, float multiplier) noexcept {
  const __m256i first = _mm256_packs_epi32(steps(x[0], multiplier), steps(x[1], multiplier));
  const __m256i second = _mm256_packs_epi32(steps(x[2], multiplier), steps(x[3], multiplier));
  return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// The four sums of the lanes.
NIBBLE_INLINE __m128i sums_of_lanes(__m256i a, __m256i b, __m256i c, __m256i d) noexcept {
  const __m256i halves = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
  return _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
}

// Of 16 bytes each.
NIBBLE_INLINE __m128i sums_of_quarters(__m256i first, __m256i second) noexcept {
  const __m256i ones = _mm256_set1_epi8(1), wide_ones = _mm256_set1_epi16(1);
  const __m256i a = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, first), wide_ones);
  const __m256i b = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, second), wide_ones);
  const __m256i pairs = _mm256_hadd_epi32(a, b), sums = _mm256_hadd_epi32(pairs, pairs);
  return _mm_unpacklo_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
}

NIBBLE_INLINE uint32_t bits_of(float x) noexcept {
  uint32_t result;
  std::memcpy(&result, &x, sizeof result);
  return result;
}

// What follows from a block that is not finite: values of 0, and NaN for the scale and the sums.
NIBBLE_INLINE void put_nan_block(Column out, PanelType type, const PanelLayout& layout) noexcept {
  const int64_t words = block_words(type, layout), sums = words - layout.groups * layout.sums;
  const uint32_t nan = bits_of(std::numeric_limits<float>::quiet_NaN());
  for (int64_t d = 0; d < words; ++d) put(out, d, d == value_words(type) || d >= sums ? nan : 0);
}

struct GroupSums {
  alignas(16) int32_t of[4];
};

// quarters: the sums of 16 values each.
NIBBLE_INLINE GroupSums sums_of_groups(__m128i quarters, const PanelLayout& layout) noexcept {
  if (layout.groups < 4) quarters = _mm_hadd_epi32(quarters, quarters);
  if (layout.groups < 2) quarters = _mm_hadd_epi32(quarters, quarters);
  GroupSums sums;
  _mm_store_si128(reinterpret_cast<__m128i*>(sums.of), quarters);
  return sums;
}

// From word d on.
NIBBLE_INLINE void put_sums(Column out, int64_t d, const GroupSums& sums, float scale,
                            const PanelLayout& layout) noexcept {
  for (int64_t g = 0; layout.sums != 0 && g < layout.groups; ++g) {
    put(out, d + g, bits_of(static_cast<float>(sums.of[g]) * scale));
  }
}

// Of the four lines of 32 values, from word d on.
NIBBLE_INLINE void put_line_corrections(Column out, int64_t d, __m256i values, int32_t bias) noexcept {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), values);
  const __m256i lines = _mm256_add_epi16(pairs, _mm256_srli_epi64(pairs, 32));
  alignas(32) uint32_t words[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words),
                     _mm256_mullo_epi16(lines, _mm256_set1_epi16(static_cast<int16_t>(-bias))));
  for (int64_t j = 0; j < 4; ++j) put(out, d + j, words[2 * j]);
}

void quantize_block_i8(const float* x, Column out, const PanelLayout& layout) noexcept {
  const InputBlock block = load_block(x);
  if (!(block.largest < std::numeric_limits<float>::infinity())) return put_nan_block(out, PanelType::i8, layout);
  const float multiplier = multiplier_i8(block.largest, largest_mean_of_neighbours(block));
  const __m256i first = to_bytes(block.x, multiplier), second = to_bytes(block.x + 4, multiplier);
  alignas(32) uint32_t words[16];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), first);
  _mm256_store_si256(reinterpret_cast<__m256i*>(words + 8), second);
  for (int64_t d = 0; d < 16; ++d) put(out, d, words[d]);
  put(out, 16, bits_of(1.0f / multiplier));
  if (layout.corrections == kBlockLines) {
    put_line_corrections(out, 17, first, layout.bias);
    put_line_corrections(out, 21, second, layout.bias);
  }
  if (layout.corrections != layout.groups && layout.sums == 0) return;
  const GroupSums sums = sums_of_groups(sums_of_quarters(first, second), layout);
  if (layout.corrections == layout.groups) {
    for (int64_t g = 0; g < layout.groups; ++g) put(out, 17 + g, static_cast<uint32_t>(-layout.bias * sums.of[g]));
  }
  put_sums(out, 17 + layout.corrections, sums, 1.0f / multiplier, layout);
}

void quantize_block_i16(const float* x, Column out, const PanelLayout& layout) noexcept {
  const InputBlock block = load_block(x);
  if (!(block.largest < std::numeric_limits<float>::infinity())) return put_nan_block(out, PanelType::i16, layout);
  const float multiplier = multiplier_i16(block.largest);
  alignas(16) uint32_t words[32];
  __m256i quarters[4];
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) {
    // In each half, values 2 and 3 above values 0 and 1.
    const __m256i values = steps(block.x[i], multiplier);
    quarters[i / 2] = i % 2 == 0 ? values : _mm256_add_epi32(quarters[i / 2], values);
    const __m256i above = _mm256_slli_epi32(_mm256_shuffle_epi32(values, 0xee), 16);
    const __m256i pairs = _mm256_or_si256(_mm256_and_si256(values, _mm256_set1_epi32(0xffff)), above);
    const __m256i packed = _mm256_permute4x64_epi64(pairs, 0x08);
    _mm_store_si128(reinterpret_cast<__m128i*>(words + 4 * i), _mm256_castsi256_si128(packed));
  }
  for (int64_t d = 0; d < 32; ++d) put(out, d, words[d]);
  put(out, 32, bits_of(1.0f / multiplier));
  if (layout.sums == 0) return;
  const __m128i sums = sums_of_lanes(quarters[0], quarters[1], quarters[2], quarters[3]);
  put_sums(out, 33, sums_of_groups(sums, layout), 1.0f / multiplier, layout);
}

void activations4_i8(const Activations4& a) noexcept { for_blocks(a, PanelType::i8, quantize_block_i8); }
void activations4_i16(const Activations4& a) noexcept { for_blocks(a, PanelType::i16, quantize_block_i16); }
