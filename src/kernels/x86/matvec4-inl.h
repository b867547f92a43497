// Products over 4-bit weights as they are stored. Included after decode-inl.h and matmul-inl.h inside an instruction
// set's target region and anonymous namespace. No include guard and no includes: not a header of its own.
//
// The instruction set provides, beside what those two name, a group of 32 values in kParts vectors in an order of its
// own: Codes load_codes(packed), lookup<part>(codes, levels), and load_group<part>(x), the values that belong to it;
// and kRows4.
//
// A tile is kRows4 rows by up to kTokens4 tokens. One output is the sum of the lanes of one accumulator, which runs
// over k, so it depends neither on its place in a tile nor on how rows and tokens are split.

constexpr int kParts = 32 / kLanes;
constexpr int kTokens4 = 4;

template <int Part, int R, int T>
NIBBLE_INLINE void multiply_part(const Codes (&codes)[R], const Levels (&levels)[R], const float* x, int64_t ldx,
                                 F (&acc)[R][T]) noexcept {
  F xs[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) xs[t] = load_group<Part>(x + t * ldx);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const F w = lookup<Part>(codes[r], levels[r]);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) acc[r][t] = fma(w, xs[t], acc[r][t]);
  }
}

template <int R, int T>
NIBBLE_INLINE void multiply_group(const uint8_t* packed, int64_t row_bytes, const Levels (&levels)[R], const float* x,
                                  int64_t ldx, F (&acc)[R][T]) noexcept {
  Codes codes[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) codes[r] = load_codes(packed + r * row_bytes);
  multiply_part<0, R, T>(codes, levels, x, ldx, acc);
  multiply_part<1, R, T>(codes, levels, x, ldx, acc);
  if constexpr (kParts == 4) {
    multiply_part<2, R, T>(codes, levels, x, ldx, acc);
    multiply_part<3, R, T>(codes, levels, x, ldx, acc);
  }
}

template <int R, int T>
void tile_4bit(const Matvec4Bit& a, int64_t row, int64_t token) noexcept {
  const int64_t blocks = a.k / a.block, row_bytes = a.k / 2;
  const uint8_t* packed = a.packed + (a.first + row * a.k) / 2;
  const float* absmax = a.absmax + a.first / a.block + row * blocks;
  const float* x = a.x + token * a.ldx;
  F acc[R][T];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) acc[r][t] = all(0);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    Levels levels[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) levels[r] = load_levels(a.levels, absmax[r * blocks + b]);
    for (int64_t i = 0; i < a.block; i += kGroup, packed += kGroup / 2, x += kGroup) {
      multiply_group<R, T>(packed, row_bytes, levels, x, a.ldx, acc);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) _mm_prefetch(packed + (r + R) * row_bytes, _MM_HINT_T1);
  }
  float* y = a.y + token * a.ldy + row;
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    if constexpr (R == 4) {
      _mm_storeu_ps(y + t * a.ldy, sums(acc[0][t], acc[1][t], acc[2][t], acc[3][t]));
    } else {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) y[t * a.ldy + r] = sum(acc[r][t]);
    }
  }
}

template <int T>
void token_tiles_4bit(const Matvec4Bit& a, int64_t token) noexcept {
  for (; token + T <= a.tokens; token += T) {
    int64_t row = 0;
    for (; row + kRows4 <= a.rows; row += kRows4) tile_4bit<kRows4, T>(a, row, token);
    for (; row < a.rows; ++row) tile_4bit<1, T>(a, row, token);
  }
  if constexpr (T > 1) token_tiles_4bit<T - 1>(a, token);
}

// Rows that do not begin where a block does: through the decoder, a piece at a time.
void matvec_any_4bit(const Matvec4Bit& a) noexcept {
  constexpr int64_t kPiece = 512;
  float w[kPiece];
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t t = 0; t < a.tokens; ++t) a.y[t * a.ldy + r] = 0;
    for (int64_t k = 0; k < a.k; k += kPiece) {
      const int64_t count = a.k - k < kPiece ? a.k - k : kPiece;
      decode_4bit(a.packed, a.absmax, a.levels, a.first + r * a.k + k, count, a.block, w);
      for (int64_t t = 0; t < a.tokens; ++t) a.y[t * a.ldy + r] += dot(a.x + t * a.ldx + k, w, count);
    }
  }
}

void matvec_4bit(const Matvec4Bit& a) noexcept {
  if (a.first % a.block == 0 && a.k % a.block == 0) return token_tiles_4bit<kTokens4>(a, 0);
  matvec_any_4bit(a);
}
