// Vectors of 256 bits, for AVX2 and what adds to it. Included inside the target region and anonymous namespace of an
// instruction set. No include guard and no includes: not a header of its own.

using F = __m256;
using Magnitudes = __m256i;
constexpr int64_t kLanes = 8;

struct Whole {};
struct Part {
  __m256i mask;
  size_t count;
};

NIBBLE_INLINE Part part(int64_t count) noexcept {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane), static_cast<size_t>(count)};
}

NIBBLE_INLINE F all(float x) noexcept { return _mm256_set1_ps(x); }
NIBBLE_INLINE F fma(F a, F b, F c) noexcept { return _mm256_fmadd_ps(a, b, c); }
NIBBLE_INLINE F larger(F a, F b) noexcept { return _mm256_max_ps(a, b); }
NIBBLE_INLINE F smaller(F a, F b) noexcept { return _mm256_min_ps(a, b); }
NIBBLE_INLINE F round_even(F x) noexcept { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

NIBBLE_INLINE F load(const float* p, Whole) noexcept { return _mm256_loadu_ps(p); }
NIBBLE_INLINE F load(const float* p, Part lanes) noexcept { return _mm256_maskload_ps(p, lanes.mask); }
NIBBLE_INLINE F load(const float* p, Whole, F) noexcept { return _mm256_loadu_ps(p); }
NIBBLE_INLINE F load(const float* p, Part lanes, F other) noexcept {
  return _mm256_blendv_ps(other, _mm256_maskload_ps(p, lanes.mask), _mm256_castsi256_ps(lanes.mask));
}
NIBBLE_INLINE void store(float* p, Whole, F x) noexcept { _mm256_storeu_ps(p, x); }
NIBBLE_INLINE void store(float* p, Part lanes, F x) noexcept { _mm256_maskstore_ps(p, lanes.mask, x); }

NIBBLE_INLINE __m128i load(const uint16_t* p, Whole) noexcept {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
NIBBLE_INLINE __m128i load(const uint16_t* p, Part lanes) noexcept {
  uint16_t halves[kLanes] = {};
  std::memcpy(halves, p, lanes.count * sizeof(uint16_t));
  return load(halves, Whole{});
}
NIBBLE_INLINE void store(uint16_t* p, Whole, __m128i x) noexcept { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), x); }
NIBBLE_INLINE void store(uint16_t* p, Part lanes, __m128i x) noexcept {
  uint16_t halves[kLanes];
  store(halves, Whole{}, x);
  std::memcpy(p, halves, lanes.count * sizeof(uint16_t));
}

// The four sums, each ((0+1)+(2+3)) + ((4+5)+(6+7)).
NIBBLE_INLINE __m128 sums(F a, F b, F c, F d) noexcept {
  const F pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}
NIBBLE_INLINE float sum(F x) noexcept { return _mm_cvtss_f32(sums(x, x, x, x)); }

NIBBLE_INLINE float max_of(F x) noexcept {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// Magnitudes are the floats' bits without the sign: as integers they have the same order, with NaN on top.
NIBBLE_INLINE Magnitudes magnitudes(F x) noexcept {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}
NIBBLE_INLINE Magnitudes larger(Magnitudes a, Magnitudes b) noexcept { return _mm256_max_epi32(a, b); }
NIBBLE_INLINE float max_of(Magnitudes x) noexcept {
  const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1))));
}

// x * 2^n for |n| < 250, in two factors so that the result may be subnormal or infinite.
NIBBLE_INLINE F scale_by_power(F x, F n) noexcept {
  const __m256i power = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(power, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(power, half), bias), 23);
  return x * _mm256_castsi256_ps(first) * _mm256_castsi256_ps(second);
}

// result where it is a number and source is finite, 0 elsewhere
NIBBLE_INLINE F zero_unless_finite(F result, F source) noexcept {
  const F infinity = all(std::numeric_limits<float>::infinity());
  const F finite = _mm256_cmp_ps(_mm256_castsi256_ps(magnitudes(source)), infinity, _CMP_LT_OQ);
  return _mm256_and_ps(result, _mm256_and_ps(finite, _mm256_cmp_ps(result, result, _CMP_ORD_Q)));
}

NIBBLE_INLINE __m128i to_i16(F x) noexcept {  // rounds to nearest even
  const __m256i words = _mm256_cvtps_epi32(x);
  return _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}
NIBBLE_INLINE void store_rounded(int8_t* p, Whole, F x) noexcept {
  const __m128i halves = to_i16(x);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(halves, halves));
}
NIBBLE_INLINE void store_rounded(int16_t* p, Whole, F x) noexcept {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_i16(x));
}
template <class Q>
NIBBLE_INLINE void store_rounded(Q* p, Part lanes, F x) noexcept {
  Q numbers[kLanes];
  store_rounded(numbers, Whole{}, x);
  std::memcpy(p, numbers, lanes.count * sizeof(Q));
}

NIBBLE_INLINE __m256i load(const int32_t* p, Whole) noexcept {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
NIBBLE_INLINE __m256i load(const int32_t* p, Part lanes) noexcept { return _mm256_maskload_epi32(p, lanes.mask); }
NIBBLE_INLINE F sum_to_float(__m256i sums, __m256i column_sums, int32_t offset) noexcept {
  return _mm256_cvtepi32_ps(_mm256_add_epi32(sums, _mm256_mullo_epi32(column_sums, _mm256_set1_epi32(offset))));
}

// The instruction makes every NaN quiet; ours keep their bits.
NIBBLE_INLINE F widen_f16(__m128i halves) noexcept {
  const F x = _mm256_cvtph_ps(halves);
  const F nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  const __m256i payload =
      _mm256_and_si256(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 13), _mm256_set1_epi32(0x007fe000));
  const F sign_and_exponent = _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xff800000u))));
  return _mm256_blendv_ps(x, _mm256_or_ps(sign_and_exponent, _mm256_castsi256_ps(payload)), nan);
}
NIBBLE_INLINE F widen_bf16(__m128i halves) noexcept {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
NIBBLE_INLINE __m128i narrow_f16(F x) noexcept { return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }
NIBBLE_INLINE __m128i narrow_bf16(F x) noexcept {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i upper = _mm256_srli_epi32(bits, 16);
  const __m256i half_ulp = _mm256_add_epi32(_mm256_set1_epi32(0x7fff), _mm256_and_si256(upper, _mm256_set1_epi32(1)));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half_ulp), 16);
  const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i words = _mm256_blendv_epi8(rounded, quiet, nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

// Words of 32 bits, among them pairs of 16-bit numbers.
using Words = __m256i;

template <class T>
NIBBLE_INLINE Words same_word(const T* bytes) noexcept {
  int32_t word;
  std::memcpy(&word, bytes, 4);
  return _mm256_set1_epi32(word);
}
NIBBLE_INLINE F to_float(Words x) noexcept { return _mm256_cvtepi32_ps(x); }
NIBBLE_INLINE F as_float(Magnitudes x) noexcept { return _mm256_castsi256_ps(x); }
NIBBLE_INLINE F to_pairs(F low, F high) noexcept {
  const __m256i upper = _mm256_slli_epi32(_mm256_cvtps_epi32(high), 16);
  return _mm256_castsi256_ps(_mm256_blend_epi16(_mm256_cvtps_epi32(low), upper, 0xaa));
}
NIBBLE_INLINE void store(int32_t* p, Whole, Words x) noexcept { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x); }
NIBBLE_INLINE void store(int32_t* p, Part lanes, Words x) noexcept { _mm256_maskstore_epi32(p, lanes.mask, x); }

// The four sums of words.
NIBBLE_INLINE __m128i sums(Words a, Words b, Words c, Words d) noexcept {
  const Words pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
  return _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
}
