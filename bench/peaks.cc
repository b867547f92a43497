#include "peaks.h"

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/buffer.h"
#include "kernels/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace nibble::bench {
namespace {

constexpr int kTrials = 10;

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The shortest of several trials, in processor time as the benchmarks' rates: other programs only ever make one longer.
template <class Work>
double best_seconds(Work work) {
  double best = 1e9;
  for (int i = 0; i < kTrials; ++i) {
    const double start = thread_seconds();
    work();
    best = std::min(best, thread_seconds() - start);
  }
  return best;
}

#if defined(__x86_64__)
constexpr int64_t kRounds = 2'000'000;
constexpr int kChains = 12;  // enough to cover the latency of both units

// An empty asm statement that "changes" each accumulator keeps the compiler from merging rounds.
__attribute__((target("avx2,fma"))) void fma_rounds_avx2() {
  __m256 sums[kChains] = {};
  const __m256 x = _mm256_set1_ps(0.5f);
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (__m256& sum : sums) {
      sum = _mm256_fmadd_ps(sum, x, x);
      asm volatile("" : "+x"(sum));
    }
  }
}

__attribute__((target("avx512f"))) void fma_rounds_avx512() {
  __m512 sums[kChains] = {};
  const __m512 x = _mm512_set1_ps(0.5f);
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (__m512& sum : sums) {
      sum = _mm512_fmadd_ps(sum, x, x);
      asm volatile("" : "+v"(sum));
    }
  }
}

__attribute__((target("avx2"))) void i8_rounds_avx2() {
  __m256i sums[kChains] = {};
  const __m256i x = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (__m256i& sum : sums) {
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(sum, x), ones));
      asm volatile("" : "+x"(sum));
    }
  }
}

__attribute__((target("avx2"))) void i16_rounds_avx2() {
  __m256i sums[kChains] = {};
  const __m256i x = _mm256_set1_epi16(3);
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (__m256i& sum : sums) {
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(sum, x));
      asm volatile("" : "+x"(sum));
    }
  }
}

__attribute__((target("avx2,avxvnni"))) void i8_rounds_avxvnni() {
  __m256i sums[kChains] = {};
  const __m256i x = _mm256_set1_epi8(3);
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (__m256i& sum : sums) {
      sum = _mm256_dpbusd_avx_epi32(sum, x, x);
      asm volatile("" : "+x"(sum));
    }
  }
}

__attribute__((target("avx2,avxvnni"))) void i16_rounds_avxvnni() {
  __m256i sums[kChains] = {};
  const __m256i x = _mm256_set1_epi16(3);
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (__m256i& sum : sums) {
      sum = _mm256_dpwssd_avx_epi32(sum, x, x);
      asm volatile("" : "+x"(sum));
    }
  }
}

__attribute__((target("avx512f,avx512vnni"))) void i8_rounds_avx512() {
  __m512i sums[kChains] = {};
  const __m512i x = _mm512_set1_epi8(3);
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (__m512i& sum : sums) {
      sum = _mm512_dpbusd_epi32(sum, x, x);
      asm volatile("" : "+v"(sum));
    }
  }
}

__attribute__((target("avx512f,avx512vnni"))) void i16_rounds_avx512() {
  __m512i sums[kChains] = {};
  const __m512i x = _mm512_set1_epi16(3);
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (__m512i& sum : sums) {
      sum = _mm512_dpwssd_epi32(sum, x, x);
      asm volatile("" : "+v"(sum));
    }
  }
}
#endif

}  // namespace

double dot_peak_gops([[maybe_unused]] std::string_view isa, [[maybe_unused]] int bits) {
#if defined(__x86_64__)
  struct Row {
    std::string_view isa;
    int bits;
    int64_t products;
    void (*rounds)();
  };
  constexpr Row kRows[] = {{"avx2", 32, 8, fma_rounds_avx2},      {"avxvnni", 32, 8, fma_rounds_avx2},
                           {"avx512", 32, 16, fma_rounds_avx512}, {"avx2", 8, 32, i8_rounds_avx2},
                           {"avxvnni", 8, 32, i8_rounds_avxvnni}, {"avx512", 8, 64, i8_rounds_avx512},
                           {"avx2", 16, 16, i16_rounds_avx2},     {"avxvnni", 16, 16, i16_rounds_avxvnni},
                           {"avx512", 16, 32, i16_rounds_avx512}};
  const auto& tables = supported_kernels();
  for (const Row& row : kRows) {
    const bool available =
        std::any_of(tables.begin(), tables.end(), [&](const Kernels& k) { return k.isa == row.isa; });
    if (row.isa == isa && row.bits == bits && available) {
      return static_cast<double>(kRounds * kChains * row.products * 2) / best_seconds(row.rounds) / 1e9;
    }
  }
#endif
  return 0;
}

// By the absmax kernel, which does nothing else; in pieces of 4 KiB from four places in turn.
double dram_read_gbs() {
  constexpr int64_t kCount = int64_t{128} << 20, kStreams = 4, kPiece = 1024;
  const auto buffer = Buffer::allocate(kCount * sizeof(float));
  std::memset(buffer->data(), 1, buffer->size());
  const auto* x = reinterpret_cast<const float*>(buffer->data());
  volatile float sink = 0;
  const double seconds = best_seconds([&] {
    for (int64_t i = 0; i < kCount / kStreams; i += kPiece) {
      for (int64_t s = 0; s < kStreams; ++s) sink = kernels().absmax(x + s * kCount / kStreams + i, kPiece);
    }
  });
  return static_cast<double>(kCount) * sizeof(float) / seconds / 1e9;
}

}  // namespace nibble::bench
