// Sums of products of 16-bit numbers (PairSums), and their w from f32 (PairColumns). Included inside the target region
// and anonymous namespace of an instruction set. No include guard and no includes: not a header of its own.
//
// The instruction set provides, for Words of kLanes words: kPairTokens and kPairVectors (what a tile has), load,
// same_word (one word in every lane), mac_pairs (sums of both halves' products), to_float, as_float and to_pairs (of
// f32, rounded to nearest even; NaN, whose integer ends in zeros, becomes 0).

template <int T, int V, class Lanes>
void pair_tile(const PairSums& a, int64_t token, int64_t col, Lanes last) noexcept {
  const int16_t* x = a.x + token * a.ldx;
  const auto* w = reinterpret_cast<const int32_t*>(a.w) + col;
  const int64_t ldx = a.ldx, ldw = a.ldw;
  Words acc[T][V];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) acc[t][v] = Words{};
  }
  for (int64_t pairs = a.k / 2; pairs > 0; --pairs, x += 2, w += ldw) {
    Words xs[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) xs[t] = same_word(x + t * ldx);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const Words ws = v + 1 < V ? load(w + v * kLanes, Whole{}) : load(w + v * kLanes, last);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) acc[t][v] = mac_pairs(acc[t][v], ws, xs[t]);
    }
  }
  float* y = a.y + token * a.ldy + col;
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const auto finish = [&](auto lanes) __attribute__((always_inline)) {
      const F scale = load(a.w_scale + col + v * kLanes, lanes);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        float* to = y + t * a.ldy + v * kLanes;
        const F before = a.add ? load(to, lanes) : all(0);
        store(to, lanes, fma(to_float(acc[t][v]), all(a.x_scale[token + t]) * scale, before));
      }
    };
    if (v + 1 < V) {
      finish(Whole{});
    } else {
      finish(last);
    }
  }
}

template <int T>
void pair_tiles(const PairSums& a, int64_t token) noexcept {
  for (; token + T <= a.tokens; token += T) {
    int64_t col = 0;
    for (; col + kPairVectors * kLanes <= a.cols; col += kPairVectors * kLanes) {
      pair_tile<T, kPairVectors>(a, token, col, Whole{});
    }
    for (; col + kLanes <= a.cols; col += kLanes) pair_tile<T, 1>(a, token, col, Whole{});
    if (col < a.cols) pair_tile<T, 1>(a, token, col, part(a.cols - col));
  }
  if constexpr (T > 1) pair_tiles<T - 1>(a, token);
}

void sum_pairs(const PairSums& a) noexcept { pair_tiles<kPairTokens>(a, 0); }

// V vectors of columns together, so that of each row whole lines are read.
template <int V, class Lanes>
void pair_some_columns(const PairColumns& a, int64_t col, Lanes last) noexcept {
  const float* x = a.x + col;
  const auto row = [&](int64_t k, int v) __attribute__((always_inline)) {
    const float* at = x + k * a.ldx + v * kLanes;
    return v + 1 < V ? load(at, Whole{}) : load(at, last);
  };
  const auto put = [&](float* to, int v, F value) __attribute__((always_inline)) {
    if (v + 1 < V) {
      store(to + v * kLanes, Whole{}, value);
    } else {
      store(to + v * kLanes, last, value);
    }
  };
  Magnitudes most[V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) most[v] = magnitudes(all(kPairSmallest));
  for (int64_t k = 0; k < a.k; ++k) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) most[v] = larger(most[v], magnitudes(row(k, v)));
  }
  F inverse[V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    inverse[v] = all(kPairW) / as_float(most[v]);
    put(a.scale + col, v, as_float(most[v]) / all(kPairW));
  }
  auto* w = reinterpret_cast<float*>(a.w) + col;
  int64_t k = 0;
  for (; k + 2 <= a.k; k += 2, w += a.ldw) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) put(w, v, to_pairs(row(k, v) * inverse[v], row(k + 1, v) * inverse[v]));
  }
  if (k == a.k) return;
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) put(w, v, to_pairs(row(k, v) * inverse[v], all(0)));
}

void pair_columns(const PairColumns& a) noexcept {
  int64_t col = 0;
  for (; col + kPairVectors * kLanes <= a.cols; col += kPairVectors * kLanes) {
    pair_some_columns<kPairVectors>(a, col, Whole{});
  }
  for (; col + kLanes <= a.cols; col += kLanes) pair_some_columns<1>(a, col, Whole{});
  if (col < a.cols) pair_some_columns<1>(a, col, part(a.cols - col));
}
