// Exact sums of products of codes (CodeSums) in 16 bits. Included inside the target region and anonymous namespace of
// AVX2. No include guard and no includes: not a header of its own.
//
// Of the four codes of a word, bytes 0 and 2 become one pair of 16-bit numbers and bytes 1 and 3 the other, w by two
// operations for a tile, x once for all columns. The codes of w are unsigned, and -128 * sum x makes up for it. A tile
// is up to 4 tokens by 16 columns: 8 accumulators, 4 vectors of w.

constexpr int kCodeTokens = 4, kCodeVectors = 2;
constexpr int64_t kCodeWords = 256;  // of x, made into pairs at a time

// Words of some tokens as pairs of 16 bits.
struct CodePairs {
  alignas(32) uint32_t even[kCodeTokens][kCodeWords], odd[kCodeTokens][kCodeWords];
};

// 16 bits from the even and from the odd bytes; with the sign.
NIBBLE_INLINE __m256i even_codes(__m256i bytes) noexcept { return _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8); }
NIBBLE_INLINE __m256i odd_codes(__m256i bytes) noexcept { return _mm256_srai_epi16(bytes, 8); }

NIBBLE_INLINE void make_pairs(const int8_t* x, int64_t words, uint32_t* even, uint32_t* odd) noexcept {
  for (int64_t j = 0; j < words; j += kLanes) {
    alignas(32) int8_t last[4 * kLanes] = {};
    const bool whole = j + kLanes <= words;
    if (!whole) std::memcpy(last, x + 4 * j, static_cast<size_t>(4 * (words - j)));
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(whole ? x + 4 * j : last));
    _mm256_store_si256(reinterpret_cast<__m256i*>(even + j), even_codes(bytes));
    _mm256_store_si256(reinterpret_cast<__m256i*>(odd + j), odd_codes(bytes));
  }
}

NIBBLE_INLINE int32_t sum_of_pairs(const uint32_t* even, const uint32_t* odd, int64_t words) noexcept {
  __m256i total = _mm256_setzero_si256();
  for (int64_t j = 0; j < words; j += kLanes) {
    const __m256i both = _mm256_add_epi16(_mm256_load_si256(reinterpret_cast<const __m256i*>(even + j)),
                                          _mm256_load_si256(reinterpret_cast<const __m256i*>(odd + j)));
    total = _mm256_add_epi32(total, _mm256_madd_epi16(both, _mm256_set1_epi16(1)));
  }
  alignas(32) int32_t lanes[kLanes];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), total);
  int32_t sum = 0;
  for (const int32_t lane : lanes) sum += lane;
  return sum;
}

// y: where the sums begin, and end up. words: of the pairs.
template <int T, int V, class Lanes>
void code_tile(const CodePairs& x, const uint32_t* w, int64_t words, int64_t ldw, int32_t* y, int64_t ldy,
               Lanes last) noexcept {
  const auto sums_at = [&](int t, int v) { return reinterpret_cast<float*>(y + t * ldy + v * kLanes); };
  __m256i acc[T][V];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v + 1 < V; ++v) acc[t][v] = _mm256_castps_si256(load(sums_at(t, v), Whole{}));
    acc[t][V - 1] = _mm256_castps_si256(load(sums_at(t, V - 1), last));
  }
  for (int64_t j = 0; j < words; ++j, w += ldw) {
    __m256i even[V], odd[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const auto* at = reinterpret_cast<const float*>(w) + v * kLanes;
      const __m256i bytes = _mm256_castps_si256(v + 1 < V ? load(at, Whole{}) : load(at, last));
      even[v] = _mm256_and_si256(bytes, _mm256_set1_epi16(0xff));
      odd[v] = _mm256_srli_epi16(bytes, 8);
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const __m256i evens = same_word(x.even[t] + j), odds = same_word(x.odd[t] + j);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        acc[t][v] = _mm256_add_epi32(acc[t][v], _mm256_madd_epi16(even[v], evens));
        asm("" : "+x"(acc[t][v]));  // as in keep()
        acc[t][v] = _mm256_add_epi32(acc[t][v], _mm256_madd_epi16(odd[v], odds));
        asm("" : "+x"(acc[t][v]));
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v + 1 < V; ++v) store(sums_at(t, v), Whole{}, _mm256_castsi256_ps(acc[t][v]));
    store(sums_at(t, V - 1), last, _mm256_castsi256_ps(acc[t][V - 1]));
  }
}

// Words [first, first + words) of T tokens.
template <int T>
void code_tiles(const CodeSums& a, int64_t token, int64_t first, int64_t words) noexcept {
  CodePairs x;
  int32_t* y = a.y + token * a.ldy;
  for (int t = 0; t < T; ++t) {
    make_pairs(a.x + (token + t) * a.ldx + 4 * first, words, x.even[t], x.odd[t]);
    // On the way sums may pass 2^31, as unsigned ones; in the end they are in range.
    const auto term = static_cast<uint32_t>(-128 * sum_of_pairs(x.even[t], x.odd[t], words));
    for (int64_t c = 0; c < a.cols; ++c) {
      int32_t& sum = y[t * a.ldy + c];
      sum = static_cast<int32_t>(first == 0 ? term : static_cast<uint32_t>(sum) + term);
    }
  }
  const uint32_t* w = a.w + first * a.ldw;
  int64_t col = 0;
  for (; col + kCodeVectors * kLanes <= a.cols; col += kCodeVectors * kLanes) {
    code_tile<T, kCodeVectors>(x, w + col, words, a.ldw, y + col, a.ldy, Whole{});
  }
  for (; col + kLanes <= a.cols; col += kLanes) code_tile<T, 1>(x, w + col, words, a.ldw, y + col, a.ldy, Whole{});
  if (col < a.cols) code_tile<T, 1>(x, w + col, words, a.ldw, y + col, a.ldy, part(a.cols - col));
}

void sum_codes(const CodeSums& a) noexcept {
  const int64_t all_words = a.k / 4;
  int64_t first = 0;
  do {
    const int64_t words = all_words - first < kCodeWords ? all_words - first : kCodeWords;
    int64_t token = 0;
    for (; token + kCodeTokens <= a.tokens; token += kCodeTokens) code_tiles<kCodeTokens>(a, token, first, words);
    for (; token < a.tokens; ++token) code_tiles<1>(a, token, first, words);
    first += words;
  } while (first < all_words);
}
