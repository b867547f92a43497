// AVX-512 F, BW, DQ, VL and VNNI: Intel from Ice Lake and Cascade Lake on, AMD from Zen 4 on. See avx2.cc for why there
// is a target region. The BF16 instructions are not used: they flush subnormal numbers to zero.
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/tables.h"

#define NIBBLE_INLINE inline __attribute__((always_inline))

namespace nibble {
namespace {

// Each of these also asks whether the system saves the registers.
bool supported() noexcept {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

}  // namespace
}  // namespace nibble

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
// GCC 12 takes the undefined operands inside its own intrinsics for mistakes.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace nibble {
namespace {

using F = __m512;
using Magnitudes = __m512i;
constexpr int64_t kLanes = 16;

struct Whole {};
struct Part {
  __mmask16 mask;
};

NIBBLE_INLINE Part part(int64_t count) noexcept { return {static_cast<__mmask16>((1u << count) - 1u)}; }

NIBBLE_INLINE F all(float x) noexcept { return _mm512_set1_ps(x); }
NIBBLE_INLINE F fma(F a, F b, F c) noexcept { return _mm512_fmadd_ps(a, b, c); }
NIBBLE_INLINE F larger(F a, F b) noexcept { return _mm512_max_ps(a, b); }
NIBBLE_INLINE F smaller(F a, F b) noexcept { return _mm512_min_ps(a, b); }
NIBBLE_INLINE F round_even(F x) noexcept {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
NIBBLE_INLINE F scale_by_power(F x, F n) noexcept { return _mm512_scalef_ps(x, n); }  // x * 2^n

NIBBLE_INLINE F load(const float* p, Whole) noexcept { return _mm512_loadu_ps(p); }
NIBBLE_INLINE F load(const float* p, Part lanes) noexcept { return _mm512_maskz_loadu_ps(lanes.mask, p); }
NIBBLE_INLINE F load(const float* p, Whole, F) noexcept { return _mm512_loadu_ps(p); }
NIBBLE_INLINE F load(const float* p, Part lanes, F other) noexcept {
  return _mm512_mask_loadu_ps(other, lanes.mask, p);
}
NIBBLE_INLINE void store(float* p, Whole, F x) noexcept { _mm512_storeu_ps(p, x); }
NIBBLE_INLINE void store(float* p, Part lanes, F x) noexcept { _mm512_mask_storeu_ps(p, lanes.mask, x); }

NIBBLE_INLINE __m256i load(const uint16_t* p, Whole) noexcept {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
NIBBLE_INLINE __m256i load(const uint16_t* p, Part lanes) noexcept { return _mm256_maskz_loadu_epi16(lanes.mask, p); }
NIBBLE_INLINE void store(uint16_t* p, Whole, __m256i x) noexcept {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
}
NIBBLE_INLINE void store(uint16_t* p, Part lanes, __m256i x) noexcept { _mm256_mask_storeu_epi16(p, lanes.mask, x); }

// Lanes i and i + 8 first.
NIBBLE_INLINE __m256 fold(F x) noexcept {
  return _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
}

// The four sums, each ((0+1)+(2+3)) + ((4+5)+(6+7)) of the folded lanes.
NIBBLE_INLINE __m128 sums(F a, F b, F c, F d) noexcept {
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(fold(a), fold(b)), _mm256_hadd_ps(fold(c), fold(d)));
  return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}
NIBBLE_INLINE float sum(F x) noexcept { return _mm_cvtss_f32(sums(x, x, x, x)); }
NIBBLE_INLINE float max_of(F x) noexcept { return _mm512_reduce_max_ps(x); }

// Magnitudes are the floats' bits without the sign: as integers they have the same order, with NaN on top.
NIBBLE_INLINE Magnitudes magnitudes(F x) noexcept {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}
NIBBLE_INLINE Magnitudes larger(Magnitudes a, Magnitudes b) noexcept { return _mm512_max_epi32(a, b); }
NIBBLE_INLINE float max_of(Magnitudes x) noexcept {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(x))));
}

// result where it is a number and source is finite, 0 elsewhere
NIBBLE_INLINE F zero_unless_finite(F result, F source) noexcept {
  const F infinity = all(std::numeric_limits<float>::infinity());
  const __mmask16 finite = _mm512_cmp_ps_mask(_mm512_abs_ps(source), infinity, _CMP_LT_OQ);
  return _mm512_maskz_mov_ps(_mm512_mask_cmp_ps_mask(finite, result, result, _CMP_ORD_Q), result);
}

NIBBLE_INLINE void store_rounded(int8_t* p, Whole, F x) noexcept {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}
NIBBLE_INLINE void store_rounded(int8_t* p, Part lanes, F x) noexcept {
  _mm512_mask_cvtepi32_storeu_epi8(p, lanes.mask, _mm512_cvtps_epi32(x));
}
NIBBLE_INLINE void store_rounded(int16_t* p, Whole, F x) noexcept {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x)));
}
NIBBLE_INLINE void store_rounded(int16_t* p, Part lanes, F x) noexcept {
  _mm512_mask_cvtepi32_storeu_epi16(p, lanes.mask, _mm512_cvtps_epi32(x));
}

NIBBLE_INLINE __m512i load(const int32_t* p, Whole) noexcept { return _mm512_loadu_si512(p); }
NIBBLE_INLINE __m512i load(const int32_t* p, Part lanes) noexcept { return _mm512_maskz_loadu_epi32(lanes.mask, p); }
NIBBLE_INLINE F sum_to_float(__m512i sums, __m512i column_sums, int32_t offset) noexcept {
  return _mm512_cvtepi32_ps(_mm512_add_epi32(sums, _mm512_mullo_epi32(column_sums, _mm512_set1_epi32(offset))));
}

// The instruction makes every NaN quiet; ours keep their bits.
NIBBLE_INLINE F widen_f16(__m256i halves) noexcept {
  const F x = _mm512_cvtph_ps(halves);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i payload =
      _mm512_and_si512(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 13), _mm512_set1_epi32(0x007fe000));
  const F sign_and_exponent = _mm512_and_ps(x, _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(0xff800000u))));
  return _mm512_mask_or_ps(x, nan, sign_and_exponent, _mm512_castsi512_ps(payload));
}
NIBBLE_INLINE F widen_bf16(__m256i halves) noexcept {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
NIBBLE_INLINE __m256i narrow_f16(F x) noexcept { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }
NIBBLE_INLINE __m256i narrow_bf16(F x) noexcept {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i upper = _mm512_srli_epi32(bits, 16);
  const __m512i half_ulp = _mm512_add_epi32(_mm512_set1_epi32(0x7fff), _mm512_and_si512(upper, _mm512_set1_epi32(1)));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, half_ulp), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, upper, _mm512_set1_epi32(0x40)));
}

struct MatmulF32Steps {
  using Args = MatmulF32;
  using In = float;
  using Acc = F;
  struct Term {};
  static constexpr int64_t kStep = kLanes;
  static constexpr int kTokens = 6;  // 24 accumulators, 6 vectors of x and one of w, of 32 registers
  static constexpr int kRowsAlone = 4;
  static constexpr int kPrefetch = 4;

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
template <__m512 (*widen)(__m256i)>
struct MatvecHalfSteps : MatmulF32Steps {
  using Args = MatvecHalf;
  using In = uint16_t;
  static constexpr int kTokens = 4;
  static constexpr int kRowsAlone = 2;
  static constexpr int kPrefetch = kTokens;
  template <class Lanes>
  static NIBBLE_INLINE F load_w(const uint16_t* p, Lanes lanes) noexcept {
    return widen(load(p, lanes));
  }
};
NIBBLE_INLINE F widen_f16_number(__m256i halves) noexcept { return _mm512_cvtph_ps(halves); }

// Codes of 8 bits.
struct MatvecI8Steps : MatmulF32Steps {
  using Args = MatvecI8;
  using In = int8_t;
  static constexpr int kPrefetch = kTokens;
  static NIBBLE_INLINE F load_w(const int8_t* p, Whole) noexcept {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static NIBBLE_INLINE F load_w(const int8_t* p, Part lanes) noexcept {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes.mask, p)));
  }
};
constexpr int kSumTokens = 6, kSumVectors = 4;  // 24 accumulators and 4 vectors of w, of 32 registers

// Words of 32 bits: pairs of 16-bit numbers, or four bytes.
using Words = __m512i;
constexpr int kPairTokens = 6, kPairVectors = 4;  // 24 accumulators, 6 words of x and one vector of w
constexpr int kCodeTokens = 6, kCodeVectors = 4;

template <class T>
NIBBLE_INLINE Words same_word(const T* bytes) noexcept {
  int32_t word;
  std::memcpy(&word, bytes, 4);
  return _mm512_set1_epi32(word);
}
NIBBLE_INLINE Words mac_pairs(Words acc, Words a, Words b) noexcept {
  acc = _mm512_dpwssd_epi32(acc, a, b);
  asm("" : "+v"(acc));  // as in mac_bytes
  return acc;
}
// Sums of four products, bytes of a being unsigned.
NIBBLE_INLINE Words mac_bytes(Words acc, Words a, Words b) noexcept {
  acc = _mm512_dpbusd_epi32(acc, a, b);
  asm("" : "+v"(acc));  // keeps GCC from reordering a step's products, which spills accumulators
  return acc;
}
NIBBLE_INLINE Words all_words(int32_t x) noexcept { return _mm512_set1_epi32(x); }
NIBBLE_INLINE void store(int32_t* p, Whole, Words x) noexcept { _mm512_storeu_si512(p, x); }
NIBBLE_INLINE void store(int32_t* p, Part lanes, Words x) noexcept { _mm512_mask_storeu_epi32(p, lanes.mask, x); }
NIBBLE_INLINE F to_float(Words x) noexcept { return _mm512_cvtepi32_ps(x); }
NIBBLE_INLINE F as_float(Magnitudes x) noexcept { return _mm512_castsi512_ps(x); }
NIBBLE_INLINE F to_pairs(F low, F high) noexcept {
  const __m512i upper = _mm512_slli_epi32(_mm512_cvtps_epi32(high), 16);
  return _mm512_castsi512_ps(_mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_cvtps_epi32(low), upper));
}

// VNNI multiplies unsigned by signed bytes. w + 128 is unsigned, and sum x (w + 128) - 128 sum x is the product; what
// overflows on the way wraps around and back, so the result is exact.
struct MatmulI8Steps {
  using Args = MatmulI8;
  using In = int8_t;
  using Acc = __m512i;
  using Term = int32_t;  // -128 * sum of the token's values
  struct Tail {
    __mmask64 mask;
  };
  static constexpr int64_t kStep = 64;
  static constexpr int kTokens = 5;
  static constexpr int kRowsAlone = 2;
  static constexpr int kPrefetch = kTokens;

  static Term term(const int8_t* x, int64_t count) noexcept {
    const __m512i ones = _mm512_set1_epi8(1);
    Acc total = _mm512_setzero_si512();
    int64_t k = 0;
    for (; k + kStep <= count; k += kStep) total = _mm512_dpbusd_epi32(total, ones, load_x(x + k, Whole{}));
    if (k < count) total = _mm512_dpbusd_epi32(total, ones, load_x(x + k, part(count - k)));
    return static_cast<Term>(0u - 128u * static_cast<uint32_t>(_mm512_reduce_add_epi32(total)));
  }
  static NIBBLE_INLINE Acc start(Term term) noexcept { return _mm512_maskz_set1_epi32(1, term); }
  static NIBBLE_INLINE Tail part(int64_t count) noexcept { return {(__mmask64{1} << count) - 1}; }
  static NIBBLE_INLINE __m512i load_x(const int8_t* p, Whole) noexcept { return _mm512_loadu_si512(p); }
  static NIBBLE_INLINE __m512i load_x(const int8_t* p, Tail tail) noexcept {
    return _mm512_maskz_loadu_epi8(tail.mask, p);
  }
  template <class Lanes>
  static NIBBLE_INLINE __m512i load_w(const int8_t* p, Lanes lanes) noexcept {
    return _mm512_xor_si512(load_x(p, lanes), _mm512_set1_epi8(-128));
  }
  static NIBBLE_INLINE Acc mac(__m512i w, __m512i x, Acc acc) noexcept { return mac_bytes(acc, w, x); }
  static NIBBLE_INLINE __m256i fold(Acc x) noexcept {
    return _mm256_add_epi32(_mm512_castsi512_si256(x), _mm512_extracti32x8_epi32(x, 1));
  }
  static NIBBLE_INLINE __m128i sums(Acc a, Acc b, Acc c, Acc d) noexcept {
    const __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(fold(a), fold(b)), _mm256_hadd_epi32(fold(c), fold(d)));
    return _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  }
  static NIBBLE_INLINE int32_t sum(Acc acc) noexcept { return _mm_cvtsi128_si32(sums(acc, acc, acc, acc)); }
  static NIBBLE_INLINE void sum4(Acc a, Acc b, Acc c, Acc d, int32_t* y) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y), sums(a, b, c, d));
  }
};

using Levels = F;

NIBBLE_INLINE Levels load_levels(const float* levels, float scale) noexcept {
  return _mm512_loadu_ps(levels) * all(scale);
}

// Sixteen codes are two dwords; each lane shifts its own code down to bit 0, and the lookup ignores the bits above.
NIBBLE_INLINE void decode_32(const uint8_t* packed, Levels levels, float* out) noexcept {
  const __m512i shifts = _mm512_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24, 4, 0, 12, 8, 20, 16, 28, 24);
  const __m512i dwords = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  const __m512i both = _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
  const __m512i first = _mm512_permutexvar_epi32(dwords, both);
  const __m512i second = _mm512_permutexvar_epi32(_mm512_add_epi32(dwords, _mm512_set1_epi32(2)), both);
  _mm512_storeu_ps(out, _mm512_permutexvar_ps(_mm512_srlv_epi32(first, shifts), levels));
  _mm512_storeu_ps(out + 16, _mm512_permutexvar_ps(_mm512_srlv_epi32(second, shifts), levels));
}

// Lane l holds byte l: the code of value 2l above that of value 2l + 1.
constexpr int kRows4 = 4;  // with 4 tokens 16 accumulators
using Codes = __m512i;

NIBBLE_INLINE Codes load_codes(const uint8_t* packed) noexcept {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
}
template <int Part>
NIBBLE_INLINE F lookup(Codes codes, Levels levels) noexcept {  // looks at the low four bits
  return _mm512_permutexvar_ps(Part == 0 ? _mm512_srli_epi32(codes, 4) : codes, levels);
}
template <int Part>
NIBBLE_INLINE F load_group(const float* x) noexcept {  // part 0: the even values, part 1: the odd ones
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i order = Part == 0 ? even : _mm512_add_epi32(even, _mm512_set1_epi32(1));
  return _mm512_permutex2var_ps(_mm512_loadu_ps(x), order, _mm512_loadu_ps(x + 16));
}

#include "kernels/x86/code_sums_vnni-inl.h"
#include "kernels/x86/decode-inl.h"
#include "kernels/x86/float-inl.h"
// Needs the functions of the file above.
#include "kernels/x86/encode4_avx512-inl.h"
#include "kernels/x86/matmul-inl.h"
#include "kernels/x86/matvec4-inl.h"
#include "kernels/x86/packed4_avx512-inl.h"
#include "kernels/x86/packed4_tiles-inl.h"
#include "kernels/x86/pair_sums-inl.h"
#include "kernels/x86/sum_rows-inl.h"

}  // namespace

constinit const Kernels kAvx512Kernels = {
    .isa = "avx512",
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
    .sum_codes = sum_codes,
    .sum_pairs = sum_pairs,
    .pair_columns = pair_columns,
    .panel_layout = panels_of,
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
