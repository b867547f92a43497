// Sums of rows with weights (RowSums) for whatever M reads: see matmul-inl.h for M. Included inside the target region
// and anonymous namespace of an instruction set. No include guard and no includes: not a header of its own.
//
// A tile is up to kSumTokens tokens by kSumVectors vectors of columns; each of its accumulators runs over k alone, so
// an output does not depend on its place in a tile.

// Rows to come that are fetched: 8 KiB, if they have 64 columns.
template <class M>
constexpr int64_t kSumAhead = (8 << 10) / (64 * sizeof(typename M::In));

template <class M>
constexpr int kLineVectors = kLanes * sizeof(typename M::In) < 64 ? 64 / (kLanes * sizeof(typename M::In)) : 1;

template <class M, int T, int V, class Lanes>
void sum_tile(const RowSums<typename M::In>& a, int64_t token, int64_t col, Lanes last) noexcept {
  const float* x = a.x + token * a.ldx;
  const auto* w = a.w + col;
  float* y = a.y + token * a.ldy + col;
  F acc[T][V];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) acc[t][v] = all(0);
  }
  if (a.add) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
      for (int v = 0; v + 1 < V; ++v) acc[t][v] = load(y + t * a.ldy + v * kLanes, Whole{});
      acc[t][V - 1] = load(y + t * a.ldy + (V - 1) * kLanes, last);
    }
  }
  const int64_t ldx = a.ldx, x_step = a.x_step, ldw = a.ldw;
  const auto add_row = [&](auto fetches) __attribute__((always_inline)) {
    if constexpr (decltype(fetches)::value) {
#pragma GCC unroll 8
      for (int v = 0; v < V; v += kLineVectors<M>) _mm_prefetch(w + kSumAhead<M> * ldw + v * kLanes, _MM_HINT_T0);
    }
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const F values = v + 1 < V ? M::load_w(w + v * kLanes, Whole{}) : M::load_w(w + v * kLanes, last);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) acc[t][v] = fma(all(x[t * ldx]), values, acc[t][v]);
    }
    x += x_step;
    w += ldw;
  };
  int64_t k = a.k;
  if constexpr (V > 1) {
    // Behind rows that lie close together begins what comes next; behind others, something else.
    const int64_t unfetched = ldw == a.cols ? 0 : kSumAhead<M>;
    for (; k > unfetched; --k) add_row(std::true_type{});
  }
  for (; k > 0; --k) add_row(std::false_type{});
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int v = 0; v + 1 < V; ++v) store(y + t * a.ldy + v * kLanes, Whole{}, acc[t][v]);
    store(y + t * a.ldy + (V - 1) * kLanes, last, acc[t][V - 1]);
  }
}

template <class M, int T>
void sum_tiles(const RowSums<typename M::In>& a, int64_t token) noexcept {
  for (; token + T <= a.tokens; token += T) {
    int64_t col = 0;
    for (; col + kSumVectors * kLanes <= a.cols; col += kSumVectors * kLanes) {
      sum_tile<M, T, kSumVectors>(a, token, col, Whole{});
    }
    for (; col + kLanes <= a.cols; col += kLanes) sum_tile<M, T, 1>(a, token, col, Whole{});
    if (col < a.cols) sum_tile<M, T, 1>(a, token, col, part(a.cols - col));
  }
  if constexpr (T > 1) sum_tiles<M, T - 1>(a, token);
}

template <class M>
void sum_rows(const RowSums<typename M::In>& a) noexcept {
  sum_tiles<M, kSumTokens>(a, 0);
}
