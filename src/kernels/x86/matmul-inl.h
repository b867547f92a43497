// Matrix products for whatever arithmetic M an instruction set has. Included inside its target region and anonymous
// namespace. No include guard and no includes: not a header of its own.
//
// Both operands lie along k, so one output is the sum of the lanes of one accumulator, which runs over k in steps of
// M::kStep. A tile is 4 rows by up to M::kTokens tokens, or M::kRowsAlone rows by one; every smaller tile does the same
// to each accumulator, so an output depends neither on its place in a tile nor on how many rows and tokens there are.
//
// M has: Args, In (weights), Acc, kStep, kTokens, kRowsAlone; Term term(x, k), what is to be known of a token before
// its products; start(term); load_w and load_x (Whole or part); mac(w, x, acc); part(count), the mask of the last step;
// sum(acc); sum4(acc, acc, acc, acc), four f32 or i32, each added up in the order of sum; kPrefetch, the most tokens of
// a tile for which later rows are fetched.

constexpr int kTileRows = 4;
constexpr int64_t kRowBlockBytes = 256 << 10;  // rows that stay in the second-level cache while all tokens pass by

// What is fetched while a tile is multiplied, in every step as many vectors as the step reads.
template <class In>
struct Ahead {
  const In* at;
  int64_t apart, on;  // elements from one vector to the next, and from one step to the next

  NIBBLE_INLINE void fetch(int64_t vector) const noexcept { _mm_prefetch(at + vector * apart, _MM_HINT_T0); }
};

// Rows that lie together, in the order of memory: streams of rows are slower, and so is less ahead. In long rows, whose
// tile would have left the first-level cache when it is needed, what lies below the step in the next tile.
template <class M, int R>
NIBBLE_INLINE Ahead<typename M::In> rows_ahead(const typename M::In* w, int64_t ldw) noexcept {
  constexpr int64_t kSize = sizeof(typename M::In), kLongest = (16 << 10) / kSize, kLead = (8 << 10) / kSize;
  const int64_t tile = R * ldw;
  if (tile > kLongest) return {w + tile, ldw, M::kStep};
  return {w + (tile > kLead ? tile : kLead), M::kStep, R * M::kStep};
}

template <class M, int R, int T, class X, class Lanes>
NIBBLE_INLINE void step(const typename M::In* w, int64_t ldw, const Ahead<typename M::In>& ahead, const X* x,
                        int64_t ldx, Lanes lanes, typename M::Acc (&acc)[R][T]) noexcept {
  decltype(M::load_x(x, lanes)) xs[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) xs[t] = M::load_x(x + t * ldx, lanes);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const auto ws = M::load_w(w + r * ldw, lanes);
    if constexpr (T <= M::kPrefetch) ahead.fetch(r);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) acc[r][t] = M::mac(ws, xs[t], acc[r][t]);
  }
}

template <class M, int R, int T>
void tile(const typename M::Args& a, int64_t row, int64_t token, const typename M::Term (&terms)[T]) noexcept {
  const auto* w = a.w + row * a.ldw;
  const auto* x = a.x + token * a.ldx;
  auto* y = a.y + token * a.ldy + row;
  typename M::Acc acc[R][T];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) acc[r][t] = M::start(terms[t]);
  }
  auto ahead = rows_ahead<M, R>(w, a.ldw);
  int64_t k = 0;
  for (; k + M::kStep <= a.k; k += M::kStep, ahead.at += ahead.on) {
    step<M, R, T>(w + k, a.ldw, ahead, x + k, a.ldx, Whole{}, acc);
  }
  if (k < a.k) step<M, R, T>(w + k, a.ldw, ahead, x + k, a.ldx, M::part(a.k - k), acc);
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    if constexpr (R == 4) {
      M::sum4(acc[0][t], acc[1][t], acc[2][t], acc[3][t], y + t * a.ldy);
    } else {
      for (int r = 0; r < R; ++r) y[t * a.ldy + r] = M::sum(acc[r][t]);
    }
  }
}

template <class M, int T>
void token_tiles(const typename M::Args& a, int64_t row_begin, int64_t row_end, int64_t token) noexcept {
  constexpr int kRows = T == 1 ? M::kRowsAlone : kTileRows;
  for (; token + T <= a.tokens; token += T) {
    typename M::Term terms[T];
    for (int t = 0; t < T; ++t) terms[t] = M::term(a.x + (token + t) * a.ldx, a.k);
    int64_t row = row_begin;
    for (; row + kRows <= row_end; row += kRows) tile<M, kRows, T>(a, row, token, terms);
    for (; row < row_end; ++row) tile<M, 1, T>(a, row, token, terms);
  }
  if constexpr (T > 1) token_tiles<M, T - 1>(a, row_begin, row_end, token);
}

template <class M>
void matmul(const typename M::Args& a) noexcept {
  const int64_t row_bytes = a.k * static_cast<int64_t>(sizeof(typename M::In)) + 1;
  const int64_t block = (kRowBlockBytes / row_bytes / kTileRows + 1) * kTileRows;
  for (int64_t row = 0; row < a.rows; row += block) {
    token_tiles<M, M::kTokens>(a, row, row + block < a.rows ? row + block : a.rows, 0);
  }
}
