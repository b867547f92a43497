// The float kernels and conversions, written once over the vector F of an instruction set. Included inside its target
// region and anonymous namespace. No include guard and no includes: not a header of its own.
//
// The instruction set provides, for F of kLanes floats: Whole and Part (which lanes to touch), part(count), all(x),
// load, store, store_rounded (to integers of 8 or 16 bits), sum_to_float (of 32-bit integers), fma, larger and smaller
// (the second operand when either is NaN), round_even, scale_by_power, sum, max_of, magnitudes (the bits without the
// sign, compared as integers), zero_unless_finite, and the conversions widen_* and narrow_* from and to vectors of as
// many halves.

// body(i, lanes) for i = 0, kLanes, ... The last call may be for a part of a vector.
template <class Body>
NIBBLE_INLINE void for_vectors(int64_t begin, int64_t count, Body body) noexcept {
  int64_t i = begin;
  for (; i + kLanes <= count; i += kLanes) body(i, Whole{});
  if (i < count) body(i, part(count - i));
}

// e^x within 1.1 ulp (measured over the whole range); gradual underflow to 0, overflow to infinity, NaN stays NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2. The polynomial interpolates (e^r - 1 - r) / r^2 at Chebyshev nodes: its error is
// 0.18 * 2^-24 of e^r. ln 2 is split so that n * kLn2High is exact.
NIBBLE_INLINE F exp(F x) noexcept {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  x = larger(all(-104.0f), smaller(all(89.0f), x));  // e^-104 rounds to 0, e^89 to infinity
  const F n = round_even(x * all(kLog2E));
  const F r = fma(n, all(-kLn2Low), fma(n, all(-kLn2High), x));
  F p = fma(all(0.0013926184f), r, all(0.0083631789f));
  p = fma(p, r, all(0.041666556f));
  p = fma(p, r, all(0.16666576f));
  p = fma(p, r, all(0.5f));
  return scale_by_power(fma(p, r * r, r) + all(1.0f), n);
}

float dot(const float* a, const float* b, int64_t count) noexcept {
  F sums[4] = {all(0), all(0), all(0), all(0)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      sums[j] = fma(load(a + i + j * kLanes, Whole{}), load(b + i + j * kLanes, Whole{}), sums[j]);
    }
  }
  for_vectors(i, count, [&](int64_t k, auto lanes) { sums[0] = fma(load(a + k, lanes), load(b + k, lanes), sums[0]); });
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

void axpy(float a, const float* x, float* y, int64_t count) noexcept {
  for_vectors(0, count,
              [&](int64_t i, auto lanes) { store(y + i, lanes, fma(all(a), load(x + i, lanes), load(y + i, lanes))); });
}

// Every value less the first one, before anything is added up: a mean that is large beside what differs costs no
// digits.
void layer_norm(const LayerNorm& a, int64_t count) noexcept {
  const float first = a.x[0];
  const int64_t whole = count / kLanes * kLanes;
  F sums = all(0), squares = all(0);
  float rest = 0, rest_squares = 0;
  for (int64_t i = 0; i < whole; i += kLanes) sums = sums + (load(a.x + i, Whole{}) - all(first));
  for (int64_t i = whole; i < count; ++i) rest += a.x[i] - first;
  const float mean = (sum(sums) + rest) / static_cast<float>(count);
  for (int64_t i = 0; i < whole; i += kLanes) {
    const F d = (load(a.x + i, Whole{}) - all(first)) - all(mean);
    squares = fma(d, d, squares);
  }
  for (int64_t i = whole; i < count; ++i) {
    const float d = (a.x[i] - first) - mean;
    rest_squares += d * d;
  }
  const float scale = 1.0f / std::sqrt((sum(squares) + rest_squares) / static_cast<float>(count) + a.eps);
  for_vectors(0, count, [&](int64_t i, auto lanes) {
    const F u = ((load(a.x + i, lanes) - all(first)) - all(mean)) * all(scale);
    store(a.y + i, lanes, fma(u, load(a.weight + i, lanes), load(a.bias + i, lanes)));
  });
}

void rms_norm(const float* x, const float* weight, float eps, float* y, int64_t count) noexcept {
  const float scale = 1.0f / std::sqrt(dot(x, x, count) / static_cast<float>(count) + eps);
  for_vectors(0, count, [&](int64_t i, auto lanes) {
    store(y + i, lanes, load(x + i, lanes) * all(scale) * load(weight + i, lanes));
  });
}

SoftmaxPart softmax_part(float* x, int64_t count) noexcept {
  const F lowest = all(-std::numeric_limits<float>::infinity());
  F largest = lowest;
  for_vectors(0, count, [&](int64_t i, auto lanes) { largest = larger(load(x + i, lanes, lowest), largest); });
  float shift = max_of(largest);
  if (shift == -std::numeric_limits<float>::infinity()) shift = 0;  // as the scalar version
  F sums = all(0);
  for_vectors(0, count, [&](int64_t i, auto lanes) {
    const F e = exp(load(x + i, lanes, lowest) - all(shift));
    store(x + i, lanes, e);
    sums = sums + e;
  });
  return {shift, sum(sums)};
}

void softmax(float* x, int64_t count) noexcept {
  const float total = softmax_part(x, count).sum;
  if (total == 0) return;
  for_vectors(0, count, [&](int64_t i, auto lanes) { store(x + i, lanes, load(x + i, lanes) / all(total)); });
}

void silu_mul(const float* gate, const float* up, float* y, int64_t count) noexcept {
  for_vectors(0, count, [&](int64_t i, auto lanes) {
    const F g = load(gate + i, lanes);
    store(y + i, lanes, g / (all(1.0f) + exp(all(0) - g)) * load(up + i, lanes));
  });
}

void silu_mul_backward(const SiluMulGradient& a, int64_t count) noexcept {
  for_vectors(0, count, [&](int64_t i, auto lanes) {
    const F g = load(a.gate + i, lanes), s = all(1.0f) / (all(1.0f) + exp(all(0) - g));
    const F d = load(a.dy + i, lanes) * s;
    store(a.dgate + i, lanes, d * load(a.up + i, lanes) * fma(g, all(1.0f) - s, all(1.0f)));
    store(a.dup + i, lanes, d * g);
  });
}

// 1 - Phi(u) for u >= 0, within 4e-7 of it and the rounding of u^2 / 2: a polynomial of t = 1 / (1 + 0.27 u) times
// t exp(-u^2 / 2). The polynomial interpolates at Chebyshev nodes over u <= 14.5, beyond which the tail is 0.
NIBBLE_INLINE F normal_tail(F u) noexcept {
  constexpr float kPolynomial[] = {0.029205833f, -0.12772256f, 0.17243610f, -0.072344564f, 0.11005422f,
                                   0.071077585f, 0.10206356f,  0.10750709f, 0.10772276f};
  const F t = all(1.0f) / fma(all(0.27f), u, all(1.0f));
  F p = all(kPolynomial[0]);
#pragma GCC unroll 8
  for (int i = 1; i < 9; ++i) p = fma(p, t, all(kPolynomial[i]));
  return p * t * exp(u * u * all(-0.5f));
}

void gelu_erf(const float* x, float* y, int64_t count) noexcept {
  for_vectors(0, count, [&](int64_t i, auto lanes) {
    const F v = load(x + i, lanes), u = smaller(all(15.0f), larger(v, all(0) - v));
    store(y + i, lanes, larger(v, all(0)) - u * normal_tail(u));
  });
}

// x (1 + tanh z) / 2 = x / (1 + exp(-2 z))
void gelu_tanh(const float* x, float* y, int64_t count) noexcept {
  for_vectors(0, count, [&](int64_t i, auto lanes) {
    const F v = load(x + i, lanes);
    const F z = v * fma(v * v, all(0.044715f), all(1.0f));
    store(y + i, lanes, v / (all(1.0f) + exp(z * all(-2 * 0.7978845608f))));
  });
}

float absmax(const float* x, int64_t count) noexcept {
  Magnitudes largest = magnitudes(all(0));
  for_vectors(0, count, [&](int64_t i, auto lanes) { largest = larger(largest, magnitudes(load(x + i, lanes))); });
  return max_of(largest);
}

template <class Q, int32_t largest>
void quantize(const float* x, float scale, Q* q, int64_t count) noexcept {
  for_vectors(0, count, [&](int64_t i, auto lanes) {
    const F value = load(x + i, lanes);
    const F scaled = value * all(scale);
    const F clamped = larger(all(-largest), smaller(all(largest), scaled));
    store_rounded(q + i, lanes, zero_unless_finite(clamped, value));
  });
}

void quantize_affine(const float* x, const AffineCodes& to, int8_t* q, int64_t count) noexcept {
  const F low = all(to.low), high = all(to.high);
  for_vectors(0, count, [&](int64_t i, auto lanes) {
    const F value = smaller(larger(load(x + i, lanes) * all(to.inverse), low - all(1.0f)), high + all(1.0f));
    store_rounded(q + i, lanes, smaller(larger(round_even(value), low), high) + all(to.offset));
  });
}

void scale_sums(const ScaledSums& a, int64_t count) noexcept {
  for_vectors(0, count, [&](int64_t i, auto lanes) {
    const F exact = sum_to_float(load(a.sums + i, lanes), load(a.column_sums + i, lanes), a.offset);
    const F y = exact * (all(a.scale) * load(a.scales + i, lanes));
    store(a.y + i, lanes, a.bias == nullptr ? y : y + load(a.bias + i, lanes));
  });
}

Extent extent(const float* x, int64_t count) noexcept {
  F low = all(std::numeric_limits<float>::infinity()), high = all(-std::numeric_limits<float>::infinity());
  for_vectors(0, count, [&](int64_t i, auto lanes) {
    low = smaller(load(x + i, lanes, low), low);
    high = larger(load(x + i, lanes, high), high);
  });
  return {-max_of(all(0) - low), max_of(high)};
}

void f16_to_f32(const uint16_t* src, float* dst, int64_t count) noexcept {
  for_vectors(0, count, [&](int64_t i, auto lanes) { store(dst + i, lanes, widen_f16(load(src + i, lanes))); });
}

void bf16_to_f32(const uint16_t* src, float* dst, int64_t count) noexcept {
  for_vectors(0, count, [&](int64_t i, auto lanes) { store(dst + i, lanes, widen_bf16(load(src + i, lanes))); });
}

void f32_to_f16(const float* src, uint16_t* dst, int64_t count) noexcept {
  for_vectors(0, count, [&](int64_t i, auto lanes) { store(dst + i, lanes, narrow_f16(load(src + i, lanes))); });
}

void f32_to_bf16(const float* src, uint16_t* dst, int64_t count) noexcept {
  for_vectors(0, count, [&](int64_t i, auto lanes) { store(dst + i, lanes, narrow_bf16(load(src + i, lanes))); });
}
