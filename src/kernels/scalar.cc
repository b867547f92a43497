// Portable C++: the reference for every other table, written to be read. It is complete, so a table may leave out
// whatever it cannot do faster.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "core/dtype.h"
#include "kernels/scalar_packed4.h"
#include "kernels/tables.h"

namespace nibble {
namespace {

bool always() noexcept { return true; }

void matmul_i8(const MatmulI8& a) noexcept {
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int64_t r = 0; r < a.rows; ++r) {
      int32_t sum = 0;
      for (int64_t k = 0; k < a.k; ++k) sum += a.x[t * a.ldx + k] * a.w[r * a.ldw + k];
      a.y[t * a.ldy + r] = sum;
    }
  }
}

float same(float x) { return x; }
float code_value(int8_t code) { return code; }

template <auto widen, class W>
void multiply(const FloatProduct<W>& a) noexcept {
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int64_t r = 0; r < a.rows; ++r) {
      float sum = 0;
      for (int64_t k = 0; k < a.k; ++k) sum += a.x[t * a.ldx + k] * widen(a.w[r * a.ldw + k]);
      a.y[t * a.ldy + r] = sum;
    }
  }
}

template <auto widen, class W>
void sum_rows(const RowSums<W>& a) noexcept {
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int64_t c = 0; c < a.cols; ++c) {
      float sum = a.add ? a.y[t * a.ldy + c] : 0.0f;
      for (int64_t k = 0; k < a.k; ++k) sum += a.x[t * a.ldx + k * a.x_step] * widen(a.w[k * a.ldw + c]);
      a.y[t * a.ldy + c] = sum;
    }
  }
}

void transpose(const Transpose& a) noexcept {
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) {
      const auto* from = static_cast<const std::byte*>(a.x) + 4 * (r * a.ldx + c);
      std::memcpy(static_cast<std::byte*>(a.y) + 4 * (c * a.ldy + r), from, 4);
    }
  }
}

void sum_codes(const CodeSums& a) noexcept {
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int64_t c = 0; c < a.cols; ++c) {
      int32_t sum = 0;
      for (int64_t k = 0; k < a.k; ++k) {
        const uint32_t byte = a.w[k / 4 * a.ldw + c] >> (8 * (k % 4)) & 0xffu;
        sum += a.x[t * a.ldx + k] * (static_cast<int32_t>(byte) - 128);
      }
      a.y[t * a.ldy + c] = sum;
    }
  }
}

int32_t half(uint32_t word, int64_t which) {
  return static_cast<int16_t>(static_cast<uint16_t>(which == 0 ? word : word >> 16));
}

void sum_pairs(const PairSums& a) noexcept {
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int64_t c = 0; c < a.cols; ++c) {
      int32_t sum = 0;
      for (int64_t k = 0; k < a.k; ++k) sum += a.x[t * a.ldx + k] * half(a.w[k / 2 * a.ldw + c], k % 2);
      float& y = a.y[t * a.ldy + c];
      y = std::fma(static_cast<float>(sum), a.x_scale[t] * a.w_scale[c], a.add ? y : 0.0f);
    }
  }
}

void pair_columns(const PairColumns& a) noexcept {
  for (int64_t c = 0; c < a.cols; ++c) {
    float largest = kPairSmallest;
    for (int64_t k = 0; k < a.k; ++k) {
      const float magnitude = std::fabs(a.x[k * a.ldx + c]);
      if (!(magnitude <= largest) && !std::isnan(largest)) largest = magnitude;
    }
    const float inverse = kPairW / largest;
    a.scale[c] = largest / kPairW;
    const auto number = [&](int64_t k) {
      const float value = k < a.k ? a.x[k * a.ldx + c] : 0.0f;
      return std::isfinite(value * inverse) ? static_cast<uint32_t>(std::nearbyint(value * inverse)) & 0xffffu : 0u;
    };
    for (int64_t k = 0; k < a.k; k += 2) a.w[k / 2 * a.ldw + c] = number(k) | number(k + 1) << 16;
  }
}

template <auto convert, class From, class To>
void convert_all(const From* src, To* dst, int64_t count) noexcept {
  for (int64_t i = 0; i < count; ++i) dst[i] = convert(src[i]);
}

void decode_4bit(const uint8_t* packed, const float* absmax, const float* levels, int64_t first, int64_t count,
                 int64_t block, float* out) noexcept {
  for (int64_t i = first; i < first + count; ++i) {
    const int byte = packed[i / 2];
    out[i - first] = levels[i % 2 == 0 ? byte >> 4 : byte & 15] * absmax[i / block];
  }
}

void matvec_4bit(const Matvec4Bit& a) noexcept {
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int64_t r = 0; r < a.rows; ++r) {
      float sum = 0;
      for (int64_t k = 0; k < a.k; ++k) {
        float w = 0;
        decode_4bit(a.packed, a.absmax, a.levels, a.first + r * a.k + k, 1, a.block, &w);
        sum += a.x[t * a.ldx + k] * w;
      }
      a.y[t * a.ldy + r] = sum;
    }
  }
}

// Magnitudes are compared as integers: their order is that of the floats, with NaN above infinity, so a NaN wins.
uint32_t magnitude(float x) noexcept { return std::bit_cast<uint32_t>(x) & 0x7fffffffu; }

float absmax(const float* x, int64_t count) noexcept {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, magnitude(x[i]));
  return std::bit_cast<float>(largest);
}

// The thresholds lie between -1 and 1, so clamping the value would not change its interval. NaN belongs to the last.
uint8_t encode_value(float value, const Codebook4& codebook) noexcept {
  int interval = 0;
  while (interval < 15 && !(value <= codebook.thresholds[interval])) ++interval;
  return codebook.codes[interval];
}

template <auto widen, class W>
void encode_4bit(const W* x, int64_t blocks, int64_t block, const Codebook4& codebook, uint8_t* packed,
                 float* absmaxes) noexcept {
  for (int64_t b = 0; b < blocks; ++b, x += block, packed += block / 2) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < block; ++i) largest = std::max(largest, magnitude(widen(x[i])));
    absmaxes[b] = std::bit_cast<float>(largest);
    const float scale = 1.0f / (absmaxes[b] < 1e-38f ? 1e-38f : absmaxes[b]);
    for (int64_t i = 0; i < block; i += 2) {
      const int even = encode_value(widen(x[i]) * scale, codebook);
      const int odd = encode_value(widen(x[i + 1]) * scale, codebook);
      packed[i / 2] = static_cast<uint8_t>((even << 4) | odd);
    }
  }
}

template <class Q, int32_t largest>
void quantize(const float* x, float scale, Q* q, int64_t count) noexcept {
  constexpr auto kLargest = static_cast<float>(largest);
  for (int64_t i = 0; i < count; ++i) {
    const float value = x[i] * scale;
    const bool usable = std::isfinite(x[i]) && !std::isnan(value);
    q[i] = usable ? static_cast<Q>(std::nearbyint(std::clamp(value, -kLargest, kLargest))) : Q{0};
  }
}

void quantize_affine(const float* x, const AffineCodes& to, int8_t* q, int64_t count) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    const float value = std::min(std::max(to.low - 1.0f, x[i] * to.inverse), to.high + 1.0f);
    q[i] = static_cast<int8_t>(std::clamp(std::nearbyint(value), to.low, to.high) + to.offset);
  }
}

void scale_sums(const ScaledSums& a, int64_t count) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    a.y[i] = static_cast<float>(a.sums[i] + a.offset * a.column_sums[i]) * (a.scale * a.scales[i]);
    if (a.bias != nullptr) a.y[i] += a.bias[i];
  }
}

Extent extent(const float* x, int64_t count) noexcept {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  Extent found = {kInfinity, -kInfinity};
  for (int64_t i = 0; i < count; ++i) {  // NaN compares false
    found.low = x[i] < found.low ? x[i] : found.low;
    found.high = x[i] > found.high ? x[i] : found.high;
  }
  return found;
}

float dot(const float* a, const float* b, int64_t count) noexcept {
  float sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

void axpy(float a, const float* x, float* y, int64_t count) noexcept {
  for (int64_t i = 0; i < count; ++i) y[i] += a * x[i];
}

void layer_norm(const LayerNorm& a, int64_t count) noexcept {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < count; ++i) sum += a.x[i];
  const double mean = sum / static_cast<double>(count);
  for (int64_t i = 0; i < count; ++i) squares += (a.x[i] - mean) * (a.x[i] - mean);
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(count) + a.eps);
  for (int64_t i = 0; i < count; ++i) {
    a.y[i] = static_cast<float>((a.x[i] - mean) * scale) * a.weight[i] + a.bias[i];
  }
}

void rms_norm(const float* x, const float* weight, float eps, float* y, int64_t count) noexcept {
  const float scale = 1.0f / std::sqrt(dot(x, x, count) / static_cast<float>(count) + eps);
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] * scale * weight[i];
}

SoftmaxPart softmax_part(float* x, int64_t count) noexcept {
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, x[i]);
  if (std::isinf(largest) && largest < 0) largest = 0;  // all masked: every exp below is 0, unless there is a NaN
  float sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    x[i] = std::exp(x[i] - largest);
    sum += x[i];
  }
  return {largest, sum};
}

void softmax(float* x, int64_t count) noexcept {
  const float sum = softmax_part(x, count).sum;
  if (sum == 0) return;
  for (int64_t i = 0; i < count; ++i) x[i] /= sum;
}

void silu_mul(const float* gate, const float* up, float* y, int64_t count) noexcept {
  for (int64_t i = 0; i < count; ++i) y[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

void silu_mul_backward(const SiluMulGradient& a, int64_t count) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    const float g = a.gate[i], s = 1.0f / (1.0f + std::exp(-g)), d = a.dy[i] * s;
    a.dgate[i] = d * a.up[i] * (1.0f + g * (1.0f - s));
    a.dup[i] = d * g;
  }
}

void gelu_erf(const float* x, float* y, int64_t count) noexcept {
  for (int64_t i = 0; i < count; ++i) y[i] = 0.5f * x[i] * std::erfc(x[i] * -0.70710678f);
}

void gelu_tanh(const float* x, float* y, int64_t count) noexcept {
  for (int64_t i = 0; i < count; ++i) {
    const float v = x[i];
    y[i] = 0.5f * v * (1.0f + std::tanh(0.7978845608f * (v + 0.044715f * v * v * v)));
  }
}

}  // namespace

constinit const Kernels kScalarKernels = {
    .isa = "scalar",
    .supported = always,
    .matmul_f32 = multiply<same, float>,
    .matmul_i8 = matmul_i8,
    .matvec_f16 = multiply<nibble::f16_to_f32, uint16_t>,
    .matvec_bf16 = multiply<nibble::bf16_to_f32, uint16_t>,
    .matvec_i8 = multiply<code_value, int8_t>,
    .matvec_4bit = matvec_4bit,
    .sum_rows_f32 = sum_rows<same, float>,
    .sum_rows_f16 = sum_rows<nibble::f16_to_f32, uint16_t>,
    .sum_rows_bf16 = sum_rows<nibble::bf16_to_f32, uint16_t>,
    .sum_rows_i8 = sum_rows<code_value, int8_t>,
    .transpose = transpose,
    .sum_codes = sum_codes,
    .sum_pairs = sum_pairs,
    .pair_columns = pair_columns,
    .panel_layout = panels_by_groups,
    .pack_4bit = scalar::pack_4bit,
    .decode_packed4 = scalar::decode_packed4,
    .activations4_i8 = scalar::activations4_i8,
    .activations4_i16 = scalar::activations4_i16,
    .activations4_f32 = scalar::activations4_f32,
    .matmul_packed4_i8 = scalar::matmul_packed4_i8,
    .matmul_packed4_i16 = scalar::matmul_packed4_i16,
    .matmul_packed4_f32 = scalar::matmul_packed4_f32,
    .f16_to_f32 = convert_all<nibble::f16_to_f32>,
    .bf16_to_f32 = convert_all<nibble::bf16_to_f32>,
    .f32_to_f16 = convert_all<nibble::f32_to_f16>,
    .f32_to_bf16 = convert_all<nibble::f32_to_bf16>,
    .decode_4bit = decode_4bit,
    .encode_4bit = encode_4bit<same, float>,
    .encode_4bit_bf16 = encode_4bit<nibble::bf16_to_f32, uint16_t>,
    .absmax = absmax,
    .quantize_i8 = quantize<int8_t, 127>,
    .quantize_i16 = quantize<int16_t, kPairX>,
    .quantize_affine = quantize_affine,
    .scale_sums = scale_sums,
    .extent = extent,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .softmax = softmax,
    .softmax_part = softmax_part,
    .silu_mul = silu_mul,
    .silu_mul_backward = silu_mul_backward,
    .gelu_erf = gelu_erf,
    .gelu_tanh = gelu_tanh,
    .dot = dot,
    .axpy = axpy,
};

}  // namespace nibble
