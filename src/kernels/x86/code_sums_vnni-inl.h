// Exact sums of products of codes (CodeSums) with VNNI. Included inside the target region and anonymous namespace of an
// instruction set. No include guard and no includes: not a header of its own.
//
// The codes of w are unsigned, and -128 * sum x makes up for it, as in MatmulI8Steps. The instruction set provides, for
// Words of kLanes words: kCodeTokens and kCodeVectors (what a tile has), load and store, same_word (one word in every
// lane), all_words, and mac_bytes (sums of four products of an unsigned by a signed byte).

template <int T, int V, class Lanes>
void code_tile(const CodeSums& a, int64_t token, int64_t col, const int32_t (&terms)[T], Lanes last) noexcept {
  const int8_t* x = a.x + token * a.ldx;
  const uint32_t* w = a.w + col;
  const int64_t ldx = a.ldx, ldw = a.ldw;
  Words acc[T][V];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) acc[t][v] = all_words(terms[t]);
  }
  for (int64_t words = a.k / 4; words > 0; --words, x += 4, w += ldw) {
    Words xs[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) xs[t] = same_word(x + t * ldx);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const auto* at = reinterpret_cast<const int32_t*>(w) + v * kLanes;
      const Words ws = v + 1 < V ? load(at, Whole{}) : load(at, last);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) acc[t][v] = mac_bytes(acc[t][v], ws, xs[t]);
    }
  }
  int32_t* y = a.y + token * a.ldy + col;
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v + 1 < V; ++v) store(y + t * a.ldy + v * kLanes, Whole{}, acc[t][v]);
    store(y + t * a.ldy + (V - 1) * kLanes, last, acc[t][V - 1]);
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
