// Nearest codes of 4 bits (encode_4bit, encode_4bit_bf16). Included inside the target region and anonymous namespace of
// AVX-512. No include guard and no includes: not a header of its own.
//
// The values of a block lie between -1 and 1. That range is cut into 32 cells, so narrow that each has one threshold at
// most: a value's cell says how many thresholds lie below and which one it has to be compared with, exactly.

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

NIBBLE_INLINE F load_values(const float* x) noexcept { return load(x, Whole{}); }
NIBBLE_INLINE F load_values(const uint16_t* bf16) noexcept { return widen_bf16(load(bf16, Whole{})); }

// absmax of a multiple of 64 values.
template <class X>
NIBBLE_INLINE float largest_magnitude(const X* x, int64_t count) noexcept {
  Magnitudes found[4] = {magnitudes(all(0)), magnitudes(all(0)), magnitudes(all(0)), magnitudes(all(0))};
  for (int64_t i = 0; i < count; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) found[v] = larger(found[v], magnitudes(load_values(x + i + v * kLanes)));
  }
  return max_of(larger(larger(found[0], found[1]), larger(found[2], found[3])));
}

// 64 values as 32 bytes. Packing works within quarters, so each has four values of every vector until the end.
template <class X>
NIBBLE_INLINE void encode_64(const X* x, F scale, const Cells& cells, uint8_t* packed) noexcept {
  __m512i found[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) found[v] = intervals(load_values(x + v * kLanes) * scale, cells);
  const __m512i bytes =
      _mm512_packus_epi16(_mm512_packus_epi32(found[0], found[1]), _mm512_packus_epi32(found[2], found[3]));
  const __m512i codes = _mm512_shuffle_epi8(cells.codes, bytes);
  const __m512i pairs = _mm512_maddubs_epi16(codes, _mm512_set1_epi16(0x0110));  // 16 * even + odd
  const __m256i order = _mm256_setr_epi16(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(packed), _mm256_permutexvar_epi16(order, _mm512_cvtepi16_epi8(pairs)));
}

// X: float or, for bf16, uint16_t. search: the kernel for everything else.
template <class X, auto search>
void encode_by_cells(const X* x, int64_t blocks, int64_t block, const Codebook4& codebook, uint8_t* packed,
                     float* absmaxes) noexcept {
  CellTables tables;
  if (block % 64 != 0 || !make_cells(codebook.thresholds, tables)) {
    return (kAvx2Kernels.*search)(x, blocks, block, codebook, packed, absmaxes);
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
