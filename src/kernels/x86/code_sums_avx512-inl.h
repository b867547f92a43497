// Exact sums of products of codes (CodeSums) with VNNI. Included inside the target region and anonymous namespace of
// AVX-512. No include guard and no includes: not a header of its own.
//
// A tile is up to 6 tokens by 64 columns: 24 accumulators. The codes of w are unsigned, and -128 * sum x makes up for
// it, as in MatmulI8Steps.

constexpr int kCodeTokens = 6, kCodeVectors = 4;

template <int T, int V, class Lanes>
void code_tile(const CodeSums& a, int64_t token, int64_t col, const int32_t (&terms)[T], Lanes last) noexcept {
  const int8_t* x = a.x + token * a.ldx;
  const uint32_t* w = a.w + col;
  const int64_t ldx = a.ldx, ldw = a.ldw;
  __m512i acc[T][V];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) acc[t][v] = _mm512_set1_epi32(terms[t]);
  }
  for (int64_t words = a.k / 4; words > 0; --words, x += 4, w += ldw) {
    __m512i xs[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) xs[t] = same_word(x + t * ldx);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const auto* at = reinterpret_cast<const int32_t*>(w) + v * kLanes;
      const __m512i ws = v + 1 < V ? load(at, Whole{}) : load(at, last);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        acc[t][v] = _mm512_dpbusd_epi32(acc[t][v], ws, xs[t]);
        asm("" : "+v"(acc[t][v]));  // as in MatmulI8Steps
      }
    }
  }
  int32_t* y = a.y + token * a.ldy + col;
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v + 1 < V; ++v) _mm512_storeu_si512(y + t * a.ldy + v * kLanes, acc[t][v]);
    store(reinterpret_cast<float*>(y) + t * a.ldy + (V - 1) * kLanes, last, _mm512_castsi512_ps(acc[t][V - 1]));
  }
}

template <int T>
void code_tiles(const CodeSums& a, int64_t token) noexcept {
  for (; token + T <= a.tokens; token += T) {
    int32_t terms[T];
    for (int t = 0; t < T; ++t) terms[t] = MatmulI8Steps::term(a.x + (token + t) * a.ldx, a.k);
    int64_t col = 0;
    for (; col + kCodeVectors * kLanes <= a.cols; col += kCodeVectors * kLanes) {
      code_tile<T, kCodeVectors>(a, token, col, terms, Whole{});
    }
    for (; col + kLanes <= a.cols; col += kLanes) code_tile<T, 1>(a, token, col, terms, Whole{});
    if (col < a.cols) code_tile<T, 1>(a, token, col, terms, part(a.cols - col));
  }
  if constexpr (T > 1) code_tiles<T - 1>(a, token);
}

void sum_codes(const CodeSums& a) noexcept { code_tiles<kCodeTokens>(a, 0); }
