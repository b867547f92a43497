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

#include "kernels/x86/vectors_256-inl.h"

struct MatmulF32Steps {
  using Args = MatmulF32;
  using In = float;
  using Acc = F;
  struct Term {};
  static constexpr int64_t kStep = kLanes;
  static constexpr int kTokens = 3;  // 12 accumulators, 3 vectors of x and one of w: all 16 registers
  static constexpr int kRowsAlone = 4;
  static constexpr int kPrefetch = 2;

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

constexpr int kPairTokens = 4, kPairVectors = 2;  // 8 accumulators, 4 words of x, one vector of w and one of products

NIBBLE_INLINE Words mac_pairs(Words acc, Words a, Words b) noexcept {
  acc = _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
  asm("" : "+x"(acc));  // keeps GCC from regrouping the sums of two steps, which costs registers
  return acc;
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
  static constexpr int kTokens = 2;
  static constexpr int kRowsAlone = 4;
  static constexpr int kPrefetch = kTokens;

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
  static NIBBLE_INLINE Acc mac(__m256i w, __m256i x, Acc acc) noexcept { return mac_pairs(acc, w, x); }
  static NIBBLE_INLINE int32_t sum(Acc acc) noexcept { return _mm_cvtsi128_si32(nibble::sums(acc, acc, acc, acc)); }
  static NIBBLE_INLINE void sum4(Acc a, Acc b, Acc c, Acc d, int32_t* y) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y), nibble::sums(a, b, c, d));
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
#include "kernels/x86/packed4_256-inl.h"
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
