// A matrix turned, in patches of 8 x 8 that are turned in registers: pairs of rows, then pairs of pairs, then halves.
// Included inside the target region and anonymous namespace of AVX2. No include guard and no includes: not a header of
// its own.

constexpr int64_t kPatch = 8;

NIBBLE_INLINE void transpose_patch(const float* x, int64_t ldx, float* y, int64_t ldy) noexcept {
  F rows[kPatch], pairs[kPatch], fours[kPatch];
#pragma GCC unroll 8
  for (int r = 0; r < kPatch; ++r) rows[r] = _mm256_loadu_ps(x + r * ldx);
#pragma GCC unroll 4
  for (int r = 0; r < kPatch; r += 2) {
    pairs[r] = _mm256_unpacklo_ps(rows[r], rows[r + 1]);
    pairs[r + 1] = _mm256_unpackhi_ps(rows[r], rows[r + 1]);
  }
#pragma GCC unroll 2
  for (int r = 0; r < kPatch; r += 4) {
    fours[r] = _mm256_shuffle_ps(pairs[r], pairs[r + 2], 0x44);
    fours[r + 1] = _mm256_shuffle_ps(pairs[r], pairs[r + 2], 0xee);
    fours[r + 2] = _mm256_shuffle_ps(pairs[r + 1], pairs[r + 3], 0x44);
    fours[r + 3] = _mm256_shuffle_ps(pairs[r + 1], pairs[r + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int c = 0; c < kPatch / 2; ++c) {
    _mm256_storeu_ps(y + c * ldy, _mm256_permute2f128_ps(fours[c], fours[c + 4], 0x20));
    _mm256_storeu_ps(y + (c + 4) * ldy, _mm256_permute2f128_ps(fours[c], fours[c + 4], 0x31));
  }
}

// Columns first: a cache line of y is written once, from eight rows of x.
void transpose(const Transpose& a) noexcept {
  const auto* x = static_cast<const float*>(a.x);
  auto* y = static_cast<float*>(a.y);
  const int64_t whole_rows = a.rows / kPatch * kPatch, whole_cols = a.cols / kPatch * kPatch;
  for (int64_t c = 0; c < whole_cols; c += kPatch) {
    for (int64_t r = 0; r < whole_rows; r += kPatch) {
      transpose_patch(x + r * a.ldx + c, a.ldx, y + c * a.ldy + r, a.ldy);
    }
  }
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = r < whole_rows ? whole_cols : 0; c < a.cols; ++c) {
      std::memcpy(y + c * a.ldy + r, x + r * a.ldx + c, 4);
    }
  }
}
