// AVX2 with FMA and F16C: every x86 processor of the last ten years. Intrinsics live in a target region opened after
// the includes, and everything in it has internal linkage: compiling the file with -mavx2 instead would put vector
// code into the inline functions of the standard library, which the linker may then pick for the whole program.
#include <cpuid.h>
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/tables.h"

#define NIBBLE_INLINE inline __attribute__((always_inline))

namespace nibble {
namespace {

bool supported() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

}  // namespace
}  // namespace nibble

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace nibble {
namespace {

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

struct MatmulF32Steps {
  using Args = MatmulF32;
  using In = float;
  using Acc = F;
  struct Term {};
  static constexpr int64_t kStep = kLanes;
  static constexpr int kPrefetch = 2;
  static constexpr int kTokens = 3;  // 12 accumulators, 3 vectors of x and one of w: all 16 registers

  static Term term(const float*, int64_t) noexcept { return {}; }
  static NIBBLE_INLINE Acc start(Term) noexcept { return all(0); }
  static NIBBLE_INLINE Part part(int64_t count) noexcept { return nibble::part(count); }
  template <class Lanes>
  static NIBBLE_INLINE F load_x(const float* p, Lanes lanes) noexcept {
    return load(p, lanes);
  }
  template <class Lanes>
  static NIBBLE_INLINE F load_w(const float* p, Lanes lanes) noexcept {
    return load(p, lanes);
  }
  static NIBBLE_INLINE Acc mac(F w, F x, Acc acc) noexcept { return fma(w, x, acc); }
  static NIBBLE_INLINE float sum(Acc acc) noexcept { return nibble::sum(acc); }
  static NIBBLE_INLINE void sum4(Acc a, Acc b, Acc c, Acc d, float* y) noexcept { _mm_storeu_ps(y, sums(a, b, c, d)); }
};

// As MatmulF32Steps; the widening instructions may make NaNs quiet, which no sum can show.
template <__m256 (*widen)(__m128i)>
struct MatvecHalfSteps : MatmulF32Steps {
  using Args = MatvecHalf;
  using In = uint16_t;
  static constexpr int kPrefetch = kTokens;
  template <class Lanes>
  static NIBBLE_INLINE F load_w(const uint16_t* p, Lanes lanes) noexcept {
    return widen(load(p, lanes));
  }
};
NIBBLE_INLINE F widen_f16_number(__m128i halves) noexcept { return _mm256_cvtph_ps(halves); }

// Codes of 8 bits.
struct MatvecI8Steps : MatmulF32Steps {
  using Args = MatvecI8;
  using In = int8_t;
  static constexpr int kPrefetch = kTokens;
  static NIBBLE_INLINE F load_w(const int8_t* p, Whole) noexcept {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static NIBBLE_INLINE F load_w(const int8_t* p, Part lanes) noexcept {
    int8_t bytes[kLanes] = {};
    std::memcpy(bytes, p, lanes.count);
    return load_w(bytes, Whole{});
  }
};
constexpr int kSumTokens = 3, kSumVectors = 4;  // 12 accumulators, 3 values of x and one vector of w: all 16 registers

// Pairs of 16-bit numbers.
using Words = __m256i;
constexpr int kPairTokens = 4, kPairVectors = 2;  // 8 accumulators, 4 words of x, one vector of w and one of products

template <class T>
NIBBLE_INLINE Words same_word(const T* bytes) noexcept {
  int32_t word;
  std::memcpy(&word, bytes, 4);
  return _mm256_set1_epi32(word);
}
NIBBLE_INLINE Words mac_pairs(Words acc, Words a, Words b) noexcept {
  acc = _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
  asm("" : "+x"(acc));  // as in MatmulI8Steps
  return acc;
}
NIBBLE_INLINE F to_float(Words x) noexcept { return _mm256_cvtepi32_ps(x); }
NIBBLE_INLINE F as_float(Magnitudes x) noexcept { return _mm256_castsi256_ps(x); }
NIBBLE_INLINE F to_pairs(F low, F high) noexcept {
  const __m256i upper = _mm256_slli_epi32(_mm256_cvtps_epi32(high), 16);
  return _mm256_castsi256_ps(_mm256_blend_epi16(_mm256_cvtps_epi32(low), upper, 0xaa));
}

// Bytes are widened to 16 bits and multiplied in pairs: |a * b + c * d| <= 2^15 fits 32 bits, so all sums are exact.
struct MatmulI8Steps {
  using Args = MatmulI8;
  using In = int8_t;
  using Acc = __m256i;
  struct Term {};
  struct Tail {
    size_t count;
  };
  static constexpr int64_t kStep = 16;
  static constexpr int kPrefetch = 0;
  static constexpr int kTokens = 2;

  static Term term(const int8_t*, int64_t) noexcept { return {}; }
  static NIBBLE_INLINE Acc start(Term) noexcept { return _mm256_setzero_si256(); }
  static NIBBLE_INLINE Tail part(int64_t count) noexcept { return {static_cast<size_t>(count)}; }
  static NIBBLE_INLINE __m256i load_x(const int8_t* p, Whole) noexcept {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static NIBBLE_INLINE __m256i load_x(const int8_t* p, Tail tail) noexcept {
    int8_t bytes[kStep] = {};
    std::memcpy(bytes, p, tail.count);
    return load_x(bytes, Whole{});
  }
  template <class Lanes>
  static NIBBLE_INLINE __m256i load_w(const int8_t* p, Lanes lanes) noexcept {
    return load_x(p, lanes);
  }
  static NIBBLE_INLINE Acc mac(__m256i w, __m256i x, Acc acc) noexcept {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(w, x));
    asm("" : "+x"(acc));  // keeps GCC from regrouping the sums of two steps, which costs registers
    return acc;
  }
  static NIBBLE_INLINE __m128i sums(Acc a, Acc b, Acc c, Acc d) noexcept {
    const Acc pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    return _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  }
  static NIBBLE_INLINE int32_t sum(Acc acc) noexcept { return _mm_cvtsi128_si32(sums(acc, acc, acc, acc)); }
  static NIBBLE_INLINE void sum4(Acc a, Acc b, Acc c, Acc d, int32_t* y) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y), sums(a, b, c, d));
  }
};

struct Levels {
  F low, high;  // codes 0 to 7 and 8 to 15
};

NIBBLE_INLINE Levels load_levels(const float* levels, float scale) noexcept {
  return {_mm256_loadu_ps(levels) * all(scale), _mm256_loadu_ps(levels + 8) * all(scale)};
}

constexpr int kRows4 = 2;  // with 4 tokens 8 accumulators; 16 would not stay in registers
using Codes = const uint8_t*;

NIBBLE_INLINE Codes load_codes(const uint8_t* packed) noexcept { return packed; }

// Eight codes are four bytes; each lane shifts its own down to bit 0. The lookups use the low three bits only, and the
// fourth chooses between them.
template <int Part>
NIBBLE_INLINE F lookup(Codes packed, const Levels& levels) noexcept {
  const __m256i shifts = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);
  int32_t eight;
  std::memcpy(&eight, packed + 4 * Part, 4);
  const __m256i codes = _mm256_srlv_epi32(_mm256_set1_epi32(eight), shifts);
  const F low = _mm256_permutevar8x32_ps(levels.low, codes);
  const F high = _mm256_permutevar8x32_ps(levels.high, codes);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
}
template <int Part>
NIBBLE_INLINE F load_group(const float* x) noexcept {
  return _mm256_loadu_ps(x + 8 * Part);
}

NIBBLE_INLINE void decode_32(const uint8_t* packed, const Levels& levels, float* out) noexcept {
  _mm256_storeu_ps(out, lookup<0>(packed, levels));
  _mm256_storeu_ps(out + 8, lookup<1>(packed, levels));
  _mm256_storeu_ps(out + 16, lookup<2>(packed, levels));
  _mm256_storeu_ps(out + 24, lookup<3>(packed, levels));
}

#include "kernels/activations4-inl.h"
#include "kernels/x86/code_sums_avx2-inl.h"
#include "kernels/x86/decode-inl.h"
#include "kernels/x86/encode4_avx2-inl.h"
#include "kernels/x86/float-inl.h"
#include "kernels/x86/matmul-inl.h"
#include "kernels/x86/matvec4-inl.h"
#include "kernels/x86/packed4_avx2-inl.h"
#include "kernels/x86/packed4_layout-inl.h"
#include "kernels/x86/packed4_tiles-inl.h"
#include "kernels/x86/pair_sums-inl.h"
#include "kernels/x86/sum_rows-inl.h"
#include "kernels/x86/transpose-inl.h"
// The following uses all of the above.
#include "kernels/x86/activations4_avx2-inl.h"

}  // namespace

constinit const Kernels kAvx2Kernels = {
    .isa = "avx2",
    .supported = supported,
    .matmul_f32 = matmul<MatmulF32Steps>,
    .matmul_i8 = matmul<MatmulI8Steps>,
    .matvec_f16 = matmul<MatvecHalfSteps<widen_f16_number>>,
    .matvec_bf16 = matmul<MatvecHalfSteps<widen_bf16>>,
    .matvec_i8 = matmul<MatvecI8Steps>,
    .matvec_4bit = matvec_4bit,
    .sum_rows_f32 = sum_rows<MatmulF32Steps>,
    .sum_rows_f16 = sum_rows<MatvecHalfSteps<widen_f16_number>>,
    .sum_rows_bf16 = sum_rows<MatvecHalfSteps<widen_bf16>>,
    .sum_rows_i8 = sum_rows<MatvecI8Steps>,
    .transpose = transpose,
    .sum_codes = sum_codes,
    .sum_pairs = sum_pairs,
    .pair_columns = pair_columns,
    .panel_layout = panels_of,
    .pack_4bit = pack_4bit,
    .decode_packed4 = decode_packed4,
    .activations4_i8 = activations4_i8,
    .activations4_i16 = activations4_i16,
    .matmul_packed4_i8 = matmul_packed4<PackedI8, Packed8I8>,
    .matmul_packed4_i16 = matmul_packed4<PackedI16, Packed8I16>,
    .matmul_packed4_f32 = matmul_packed4<PackedF32, Packed8F32>,
    .f16_to_f32 = f16_to_f32,
    .bf16_to_f32 = bf16_to_f32,
    .f32_to_f16 = f32_to_f16,
    .f32_to_bf16 = f32_to_bf16,
    .decode_4bit = decode_4bit,
    .encode_4bit = encode_4bit,
    .encode_4bit_bf16 = encode_4bit_bf16,
    .absmax = absmax,
    .quantize_i8 = quantize<int8_t, 127>,
    .quantize_i16 = quantize<int16_t, kPairX>,
    .quantize_affine = quantize_affine,
    .scale_sums = scale_sums,
    .extent = extent,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .softmax = softmax,
    .softmax_part = softmax_part,
    .silu_mul = silu_mul,
    .silu_mul_backward = silu_mul_backward,
    .gelu_erf = gelu_erf,
    .gelu_tanh = gelu_tanh,
    .dot = dot,
    .axpy = axpy,
};

}  // namespace nibble

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
