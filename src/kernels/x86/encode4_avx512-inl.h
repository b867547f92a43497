// Nearest codes of 4 bits (encode_4bit, encode_4bit_bf16). Included inside the target region and anonymous namespace of
// AVX-512. No include guard and no includes: not a header of its own.
//
// f32: the values of a block lie between -1 and 1. That range is cut into 32 cells, so narrow that each has one
// threshold at most: a value's cell says how many thresholds lie below and which one it has to be compared with,
// exactly.

constexpr int kCells = 32;
constexpr float kCellsPerUnit = 15.99f;  // so that 1 falls into the last cell
constexpr float kCellSlack = 1e-5f;      // a value may be put into the neighbour of its cell, so near to the edge

struct CellTables {
  alignas(64) float threshold[kCells];  // 2 where there is none
  alignas(64) int32_t below[kCells];    // how many thresholds lie below the cell
};

// False where two thresholds are too close to each other, as those of fp4 around zero.
bool make_cells(const float* thresholds, CellTables& cells) noexcept {
  const auto is_up_to = [&](int t, float limit) { return t < 15 && thresholds[t] <= limit; };
  int next = 0;  // the first threshold that is not below the cell
  for (int i = 0; i < kCells; ++i) {
    const float begin = static_cast<float>(i - kCells / 2) / kCellsPerUnit - kCellSlack;
    const float end = static_cast<float>(i + 1 - kCells / 2) / kCellsPerUnit + kCellSlack;
    while (next < 15 && thresholds[next] < begin) ++next;
    cells.below[i] = next;
    cells.threshold[i] = is_up_to(next, end) ? thresholds[next] : 2;
    if (is_up_to(next + 1, end)) return false;
  }
  return true;
}

struct Cells {
  F threshold[2];
  __m512i below[2];
  __m512i codes;  // by interval, in every quarter
};

// 16 intervals; NaN belongs to the last one.
NIBBLE_INLINE __m512i intervals(F x, const Cells& cells) noexcept {
  const F value = smaller(x, all(1.0f));
  const __m512i cell = _mm512_cvttps_epi32(fma(value, all(kCellsPerUnit), all(kCells / 2)));
  const F threshold = _mm512_permutex2var_ps(cells.threshold[0], cell, cells.threshold[1]);
  const __m512i below = _mm512_permutex2var_epi32(cells.below[0], cell, cells.below[1]);
  const __mmask16 above = _mm512_cmp_ps_mask(value, threshold, _CMP_GT_OQ);
  return _mm512_mask_add_epi32(below, above, below, _mm512_set1_epi32(1));
}

constexpr int64_t kEncodeAhead = 4096;  // values that are fetched before they are looked at

// absmax of a multiple of 64 values.
NIBBLE_INLINE float largest_magnitude(const float* x, int64_t count) noexcept {
  Magnitudes found[4] = {magnitudes(all(0)), magnitudes(all(0)), magnitudes(all(0)), magnitudes(all(0))};
  for (int64_t i = 0; i < count; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      _mm_prefetch(x + i + v * kLanes + kEncodeAhead, _MM_HINT_T0);
      found[v] = larger(found[v], magnitudes(load(x + i + v * kLanes, Whole{})));
    }
  }
  return max_of(larger(larger(found[0], found[1]), larger(found[2], found[3])));
}

// 64 values as 32 bytes. Packing works within quarters, so each has four values of every vector until the end.
NIBBLE_INLINE void encode_64(const float* x, F scale, const Cells& cells, uint8_t* packed) noexcept {
  __m512i found[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) found[v] = intervals(load(x + v * kLanes, Whole{}) * scale, cells);
  const __m512i bytes =
      _mm512_packus_epi16(_mm512_packus_epi32(found[0], found[1]), _mm512_packus_epi32(found[2], found[3]));
  const __m512i codes = _mm512_shuffle_epi8(cells.codes, bytes);
  const __m512i pairs = _mm512_maddubs_epi16(codes, _mm512_set1_epi16(0x0110));  // 16 * even + odd
  const __m256i order = _mm256_setr_epi16(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(packed), _mm256_permutexvar_epi16(order, _mm512_cvtepi16_epi8(pairs)));
}

void encode_4bit(const float* x, int64_t blocks, int64_t block, const Codebook4& codebook, uint8_t* packed,
                 float* absmaxes) noexcept {
  CellTables tables;
  if (block % 64 != 0 || !make_cells(codebook.thresholds, tables)) {
    return kAvx2Kernels.encode_4bit(x, blocks, block, codebook, packed, absmaxes);
  }
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codebook.codes));
  const Cells cells = {{_mm512_load_ps(tables.threshold), _mm512_load_ps(tables.threshold + 16)},
                       {_mm512_load_si512(tables.below), _mm512_load_si512(tables.below + 16)},
                       _mm512_broadcast_i32x4(codes)};
  for (int64_t b = 0; b < blocks; b += kLanes) {
    const int64_t some = blocks - b < kLanes ? blocks - b : kLanes;
    for (int64_t i = 0; i < some; ++i) absmaxes[b + i] = largest_magnitude(x + i * block, block);
    alignas(64) float scales[kLanes] = {};
    const F largest = load(absmaxes + b, part(some), all(1.0f));
    store(scales, Whole{}, all(1.0f) / larger(all(1e-38f), largest));
    for (int64_t i = 0; i < some; ++i, x += block, packed += block / 2) {
      for (int64_t j = 0; j < block; j += 64) encode_64(x + j, all(scales[i]), cells, packed + j / 2);
    }
  }
}

// bf16: once the scale of a block is known, every threshold becomes the last bf16 that is not above it, and the search
// among these compares integers of 16 bits, 32 at once; as in encode4_avx2-inl.h, but with a table for each step.

// Numbers of 16 bits, and of 32 of which the upper half counts, in their order as integers: -0 comes before 0.
NIBBLE_INLINE __m512i in_order(__m512i bf16) noexcept {
  const __m512i sign = _mm512_srai_epi16(bf16, 15);
  return _mm512_xor_si512(bf16, _mm512_and_si512(sign, _mm512_set1_epi16(0x7fff)));
}
NIBBLE_INLINE __m512i upper_in_order(__m512i bits) noexcept {
  const __m512i upper = _mm512_srai_epi32(bits, 16);
  return _mm512_xor_si512(upper, _mm512_and_si512(_mm512_srai_epi32(bits, 31), _mm512_set1_epi32(0x7fff)));
}

// Of 16 thresholds the last x, in order, with x * reciprocal <= threshold, in the lower half of 32 bits each.
NIBBLE_INLINE __m512i last_not_above(F thresholds, F twice, float half_divisor, float reciprocal) noexcept {
  const __m512i bits = _mm512_add_epi32(_mm512_castps_si512(twice * all(half_divisor)), _mm512_set1_epi32(0x8000));
  const F nearest = _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(-0x10000)));
  const __mmask16 above = _mm512_cmp_ps_mask(nearest * all(reciprocal), thresholds, _CMP_NLE_UQ);
  const __m512i order = upper_in_order(bits);
  return _mm512_mask_sub_epi32(order, above, order, _mm512_set1_epi32(1));
}

// Four tables of 8 numbers, one for each step of a search. What steps one to three have found is where the next one
// looks: 4, 2 and 1 places further for "above".
struct SearchTables {
  alignas(64) uint16_t steps[4][8];
};

// Where in 16 thresholds those of the tables are, as the lower halves of 32 bits.
NIBBLE_INLINE __m512i places_of_thresholds() noexcept {
  alignas(64) uint16_t places[32];
  for (int step = 0; step < 4; ++step) {
    for (int i = 0; i < 8; ++i) {
      const int width = 8 >> step;  // of the thresholds on either side, with the middle one
      places[8 * step + i] = static_cast<uint16_t>(2 * (2 * i / (2 * width) * (2 * width) + width - 1));
    }
  }
  return _mm512_load_si512(places);
}

struct SearchSteps {
  __m512i first, second, third, fourth;  // each in every quarter
};

NIBBLE_INLINE SearchSteps load_steps(const SearchTables& tables) noexcept {
  const auto step = [&](int i) __attribute__((always_inline)) {
    return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(tables.steps[i])));
  };
  return {step(0), step(1), step(2), step(3)};
}

NIBBLE_INLINE __mmask32 above(__m512i x, __m512i table, __m512i place) noexcept {
  return _mm512_cmpgt_epi16_mask(x, _mm512_shuffle_epi8(table, place));
}
NIBBLE_INLINE __m512i move(__m512i place, __mmask32 up, int16_t by) noexcept {
  return _mm512_mask_add_epi16(place, up, place, _mm512_set1_epi16(by));
}

// The interval of 32 values, in the low byte of each. Numbers are looked up by bytes: place i is 2i in the low byte and
// 2i + 1 in the high one.
NIBBLE_INLINE __m512i search(__m512i x, const SearchSteps& steps) noexcept {
  __m512i place = move(_mm512_set1_epi16(0x0100), _mm512_cmpgt_epi16_mask(x, steps.first), 0x0808);
  place = move(place, above(x, steps.second, place), 0x0404);
  place = move(place, above(x, steps.third, place), 0x0202);
  return move(place, above(x, steps.fourth, place), 0x0001);
}

// The largest magnitudes of a multiple of 64 values, in 32 places.
NIBBLE_INLINE __m512i largest_magnitudes(const uint16_t* x, int64_t count) noexcept {
  const __m512i no_sign = _mm512_set1_epi16(0x7fff);
  __m512i found = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += 64) {
    const __m512i first = _mm512_loadu_si512(x + i), second = _mm512_loadu_si512(x + i + 32);
    _mm_prefetch(x + i + kEncodeAhead, _MM_HINT_T0);
    _mm_prefetch(x + i + kEncodeAhead + 32, _MM_HINT_T0);
    found =
        _mm512_max_epu16(found, _mm512_max_epu16(_mm512_and_si512(first, no_sign), _mm512_and_si512(second, no_sign)));
  }
  return found;
}

// The larger of each half's numbers: a's in the lower half, b's in the upper.
NIBBLE_INLINE __m512i fold_halves(__m512i a, __m512i b) noexcept {
  return _mm512_max_epu16(_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xee));
}

// The absmax of up to 4 blocks, as f32. The magnitudes of NaN are above all others.
NIBBLE_INLINE void store_absmax(const uint16_t* x, int64_t block, int64_t blocks, float* absmaxes) noexcept {
  const auto of_block = [&](int64_t i) __attribute__((always_inline)) {
    return largest_magnitudes(x + (i < blocks ? i : blocks - 1) * block, block);
  };
  const __m512i first = fold_halves(of_block(0), of_block(1)), second = fold_halves(of_block(2), of_block(3));
  // A quarter for each block, until one place of it has the largest of the eight.
  __m512i found =
      _mm512_max_epu16(_mm512_shuffle_i64x2(first, second, 0x88), _mm512_shuffle_i64x2(first, second, 0xdd));
  found = _mm512_max_epu16(found, _mm512_shuffle_epi32(found, _MM_PERM_BADC));
  found = _mm512_max_epu16(found, _mm512_shuffle_epi32(found, _MM_PERM_CDAB));
  const __m512i upper = _mm512_and_si512(found, _mm512_set1_epi32(-0x10000));
  found = _mm512_max_epu16(_mm512_slli_epi32(found, 16), upper);
  const __m512i quarters = _mm512_castsi128_si512(_mm_setr_epi32(0, 4, 8, 12));
  const __m128i four = _mm512_castsi512_si128(_mm512_permutexvar_epi32(quarters, found));
  _mm_mask_storeu_epi32(absmaxes, static_cast<__mmask8>((1u << blocks) - 1u), four);
}

// 64 values as 32 bytes. codes: by interval, in every quarter.
NIBBLE_INLINE void encode_64(const uint16_t* x, const SearchSteps& steps, __m512i codes, uint8_t* packed) noexcept {
  constexpr __mmask64 kLowBytes = 0x5555555555555555;
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const __m512i found = search(in_order(_mm512_loadu_si512(x + 32 * half)), steps);
    const __m512i pairs =  // 16 * even + odd
        _mm512_madd_epi16(_mm512_maskz_shuffle_epi8(kLowBytes, codes, found), _mm512_set1_epi32(0x00010010));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(packed + 16 * half), _mm512_cvtepi32_epi8(pairs));
  }
}

void encode_4bit_bf16(const uint16_t* x, int64_t blocks, int64_t block, const Codebook4& codebook, uint8_t* packed,
                      float* absmaxes) noexcept {
  if (block % 64 != 0) return kAvx2Kernels.encode_4bit_bf16(x, blocks, block, codebook, packed, absmaxes);
  const F thresholds = load(codebook.thresholds, part(15), all(1.0f));
  const __m512i places = places_of_thresholds();
  // A threshold of 0 is not passed by what x * reciprocal rounds to 0: up to half the smallest float. So all are taken
  // times two, and that one is the smallest float.
  const __mmask16 zero = _mm512_cmp_ps_mask(thresholds, all(0), _CMP_EQ_OQ);
  const F twice = _mm512_mask_mov_ps(thresholds + thresholds, zero, all(std::numeric_limits<float>::denorm_min()));
  const __m512i codes = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codebook.codes)));
  for (int64_t b = 0; b < blocks; b += kLanes, absmaxes += kLanes) {
    const int64_t some = blocks - b < kLanes ? blocks - b : kLanes;
    for (int64_t i = 0; i < some; i += 4) {
      store_absmax(x + i * block, block, some - i < 4 ? some - i : 4, absmaxes + i);
    }
    alignas(64) float halves[kLanes], reciprocals[kLanes];
    const F divisor = larger(all(1e-38f), load(absmaxes, part(some), all(1.0f)));
    store(halves, Whole{}, divisor * all(0.5f));
    store(reciprocals, Whole{}, all(1.0f) / divisor);
    SearchTables tables[kLanes];  // in a loop of their own, or searches would wait for them
    for (int64_t i = 0; i < some; ++i) {
      const __m512i order = last_not_above(thresholds, twice, halves[i], reciprocals[i]);
      _mm512_store_si512(&tables[i], _mm512_permutexvar_epi16(places, order));
    }
    for (int64_t i = 0; i < some; ++i, x += block, packed += block / 2) {
      if (!std::isfinite(absmaxes[i])) {  // nothing is in order then
        kAvx2Kernels.encode_4bit_bf16(x, 1, block, codebook, packed, absmaxes + i);
        continue;
      }
      const SearchSteps steps = load_steps(tables[i]);
      for (int64_t j = 0; j < block; j += 64) encode_64(x + j, steps, codes, packed + j / 2);
    }
  }
}
