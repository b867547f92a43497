// AVX-VNNI, the instructions of AVX-512 VNNI on vectors of 256 bits, beside AVX2: Intel from Alder Lake on, where most
// processors have no AVX-512. What it does not speed up is left to the table of AVX2. See avx2.cc for why there is a
// target region.
#include <cpuid.h>
#include <immintrin.h>

#include <cstring>
#include <limits>
#include <utility>

#include "kernels/tables.h"

#define NIBBLE_INLINE inline __attribute__((always_inline))

namespace nibble {
namespace {

bool supported() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool vnni = __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1u << 4)) != 0;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  return vnni && f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

}  // namespace
}  // namespace nibble

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avxvnni")
#endif

namespace nibble {
namespace {

#include "kernels/x86/vectors_256-inl.h"

constexpr int kPairTokens = 3, kPairVectors = 4;  // 12 accumulators, 3 words of x and one vector of w: all 16 registers
constexpr int kCodeTokens = 3, kCodeVectors = 4;

// An empty statement that "changes" a sum keeps GCC from reordering a step's products, which spills accumulators.
NIBBLE_INLINE Words mac_pairs(Words acc, Words a, Words b) noexcept {
  acc = _mm256_dpwssd_avx_epi32(acc, a, b);
  asm("" : "+x"(acc));
  return acc;
}
// Sums of four products, bytes of a being unsigned.
NIBBLE_INLINE Words mac_bytes(Words acc, Words a, Words b) noexcept {
  acc = _mm256_dpbusd_avx_epi32(acc, a, b);
  asm("" : "+x"(acc));
  return acc;
}
NIBBLE_INLINE Words all_words(int32_t x) noexcept { return _mm256_set1_epi32(x); }

// w + 128 is unsigned, and sum x (w + 128) - 128 sum x is the product; what overflows on the way wraps around and back,
// so the result is exact.
struct MatmulI8Steps {
  using Args = MatmulI8;
  using In = int8_t;
  using Acc = Words;
  using Term = int32_t;  // -128 * sum of the token's values
  struct Tail {
    size_t count;
  };
  static constexpr int64_t kStep = 32;
  static constexpr int kTokens = 3;
  static constexpr int kRowsAlone = 2;
  static constexpr int kPrefetch = kTokens;

  static Term term(const int8_t* x, int64_t count) noexcept {
    const Words ones = _mm256_set1_epi8(1);
    Acc total = all_words(0);
    int64_t k = 0;
    for (; k + kStep <= count; k += kStep) total = mac_bytes(total, ones, load_x(x + k, Whole{}));
    if (k < count) total = mac_bytes(total, ones, load_x(x + k, part(count - k)));
    return static_cast<Term>(0u - 128u * static_cast<uint32_t>(sum(total)));
  }
  static NIBBLE_INLINE Acc start(Term term) noexcept { return _mm256_setr_epi32(term, 0, 0, 0, 0, 0, 0, 0); }
  static NIBBLE_INLINE Tail part(int64_t count) noexcept { return {static_cast<size_t>(count)}; }
  static NIBBLE_INLINE Words load_x(const int8_t* p, Whole) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static NIBBLE_INLINE Words load_x(const int8_t* p, Tail tail) noexcept {
    int8_t bytes[kStep] = {};
    std::memcpy(bytes, p, tail.count);
    return load_x(bytes, Whole{});
  }
  template <class Lanes>
  static NIBBLE_INLINE Words load_w(const int8_t* p, Lanes lanes) noexcept {
    return _mm256_xor_si256(load_x(p, lanes), _mm256_set1_epi8(-128));
  }
  static NIBBLE_INLINE Acc mac(Words w, Words x, Acc acc) noexcept { return mac_bytes(acc, w, x); }
  static NIBBLE_INLINE int32_t sum(Acc acc) noexcept { return _mm_cvtsi128_si32(nibble::sums(acc, acc, acc, acc)); }
  static NIBBLE_INLINE void sum4(Acc a, Acc b, Acc c, Acc d, int32_t* y) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y), nibble::sums(a, b, c, d));
  }
};

#include "kernels/x86/code_sums_vnni-inl.h"
#include "kernels/x86/matmul-inl.h"
#include "kernels/x86/packed4_256-inl.h"
#include "kernels/x86/packed4_avxvnni-inl.h"
#include "kernels/x86/packed4_tiles-inl.h"
#include "kernels/x86/pair_sums-inl.h"

}  // namespace

constinit const Kernels kAvxVnniKernels = {
    .isa = "avxvnni",
    .supported = supported,
    .matmul_i8 = matmul<MatmulI8Steps>,
    .sum_codes = sum_codes,
    .sum_pairs = sum_pairs,
    .pair_columns = pair_columns,
    .panel_layout = panels_of,
    .matmul_packed4_i8 = matmul_packed4<PackedI8, Packed8I8>,
    .matmul_packed4_i16 = matmul_packed4<PackedI16, Packed8I16>,
};

}  // namespace nibble

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
