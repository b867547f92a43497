#pragma once
// The table of functions that one instruction set offers. Raw pointers in, raw pointers out; no allocation, no
// exceptions, no threads: a caller splits the work and gives each thread its rows.
//
// A null entry means "no fast path here": kernels() fills it from the next table down, and the last one, scalar, is
// complete. The scalar functions are the reference that every other one is tested against.
//
// Integer functions and conversions give the same bits on every instruction set. Float reductions use, per
// instruction set, one fixed order that depends only on k, never on rows, tokens or the position in a tile.
#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/codes.h"
#include "kernels/packed4.h"

namespace nibble {

/// y[t * ldy + r] = sum over k of x[t * ldx + k] * w[r * ldw + k], for t < tokens, r < rows.
template <class W>
struct FloatProduct {
  const float* x;
  const W* w;
  float* y;
  int64_t tokens, rows, k;
  int64_t ldx, ldw, ldy;
};
using MatmulF32 = FloatProduct<float>;
/// The product of matmul_f32 over weights of 16 bits (f16 or bf16, by the function's name) or codes of 8, widened as
/// they are read: the same bits as matmul_f32 over the widened values. Any number of tokens is right; up to 4 are fast,
/// limited by reading w once from memory.
using MatvecHalf = FloatProduct<uint16_t>;
using MatvecI8 = FloatProduct<int8_t>;

/// The product of matmul_f32 over 4-bit weights as they are stored: row r is elements [first + r * k, first + (r + 1) *
/// k) of what decode_4bit describes, and the values multiplied are exactly those that it gives. Fast, for up to 4
/// tokens, when first and k are multiples of block.
struct Matvec4Bit {
  const float* x;
  const uint8_t* packed;
  const float* absmax;
  const float* levels;  // 16, by code
  float* y;
  int64_t first, block;
  int64_t tokens, rows, k;
  int64_t ldx, ldy;
};

/// Sums of rows with weights: y[t * ldy + c] = sum over k of x[t * ldx + k * x_step] * w[k * ldw + c], for t < tokens,
/// c < cols; k in ascending order, so that zeros in x at either end change nothing while w is finite. With `add`, the
/// sum begins with what y holds. x_step is 1 where x lies by tokens; for a matrix that is turned, ldx is.
template <class W>
struct RowSums {
  const float* x;
  const W* w;
  float* y;
  int64_t tokens, k, cols;
  int64_t ldx, ldw, ldy;
  bool add = false;
  int64_t x_step = 1;
};

/// y[c * ldy + r] = x[r * ldx + c], for r < rows, c < cols. Any values of 32 bits.
struct Transpose {
  const void* x;
  void* y;
  int64_t rows, cols;
  int64_t ldx, ldy;
};

/// A 4-bit code as bitsandbytes defines it: 16 levels, and for encoding the 15 midpoints between the levels in
/// ascending order with the code of each interval.
struct Codebook4 {
  float levels[16];      // by code
  float thresholds[15];  // ascending; a value equal to a threshold belongs to the interval below it
  uint8_t codes[16];     // interval -> code; codes[i] is the code of values in (thresholds[i-1], thresholds[i]]
};

/// What softmax divides by: e^max * sum, as parts of a row can be added up.
struct SoftmaxPart {
  float max, sum;
};

struct LayerNorm {
  const float *x, *weight, *bias;
  float eps;
  float* y;
};

struct SiluMulGradient {
  const float *gate, *up, *dy;
  float *dgate, *dup;
};

struct Kernels {
  std::string_view isa;
  bool (*supported)() noexcept = nullptr;  // the processor has the instructions and the system saves the registers

  void (*matmul_f32)(const MatmulF32&) noexcept = nullptr;
  void (*matmul_i8)(const MatmulI8&) noexcept = nullptr;
  void (*matvec_f16)(const MatvecHalf&) noexcept = nullptr;
  void (*matvec_bf16)(const MatvecHalf&) noexcept = nullptr;
  void (*matvec_i8)(const MatvecI8&) noexcept = nullptr;
  void (*matvec_4bit)(const Matvec4Bit&) noexcept = nullptr;
  void (*sum_rows_f32)(const RowSums<float>&) noexcept = nullptr;
  void (*sum_rows_f16)(const RowSums<uint16_t>&) noexcept = nullptr;
  void (*sum_rows_bf16)(const RowSums<uint16_t>&) noexcept = nullptr;
  void (*sum_rows_i8)(const RowSums<int8_t>&) noexcept = nullptr;
  void (*transpose)(const Transpose&) noexcept = nullptr;
  void (*sum_codes)(const CodeSums&) noexcept = nullptr;
  void (*sum_pairs)(const PairSums&) noexcept = nullptr;
  void (*pair_columns)(const PairColumns&) noexcept = nullptr;

  // Packed weights: see packed4.h. panel_layout: of the panels that matmul_packed4_i8, _i16 and _f32 take;
  // activations4_* make those of every layout.
  PanelLayout (*panel_layout)(const RecordLayout&) noexcept = nullptr;
  void (*pack_4bit)(const Pack4&) noexcept = nullptr;
  /// out: [rows, w.k], the floats that the stored weights decode to.
  void (*decode_packed4)(const Packed4& w, int64_t first_row, int64_t rows, float* out) noexcept = nullptr;
  void (*activations4_i8)(const Activations4&) noexcept = nullptr;
  void (*activations4_i16)(const Activations4&) noexcept = nullptr;
  void (*activations4_f32)(const Activations4&) noexcept = nullptr;
  void (*matmul_packed4_i8)(const MatmulPacked4&) noexcept = nullptr;
  void (*matmul_packed4_i16)(const MatmulPacked4&) noexcept = nullptr;
  void (*matmul_packed4_f32)(const MatmulPacked4&) noexcept = nullptr;

  // Conversions, round to nearest even, as core/dtype.h does them one by one.
  void (*f16_to_f32)(const uint16_t* src, float* dst, int64_t count) noexcept = nullptr;
  void (*bf16_to_f32)(const uint16_t* src, float* dst, int64_t count) noexcept = nullptr;
  void (*f32_to_f16)(const float* src, uint16_t* dst, int64_t count) noexcept = nullptr;
  void (*f32_to_bf16)(const float* src, uint16_t* dst, int64_t count) noexcept = nullptr;

  /// Elements [first, first + count) of a flat 4-bit tensor: out[i] = levels[code] * absmax[(first + i) / block].
  /// byte j of packed = (code[2j] << 4) | code[2j + 1]; block is a power of two >= 32.
  void (*decode_4bit)(const uint8_t* packed, const float* absmax, const float* levels, int64_t first, int64_t count,
                      int64_t block, float* out) noexcept = nullptr;
  /// Encodes `blocks` full blocks: absmax[b] = max |x|, value = x * (1 / max(absmax, 1e-38)), code by the thresholds,
  /// which lie between -1 and 1. block is a power of two >= 32. A NaN makes its block's absmax NaN. A value that
  /// is NaN gets the code of the last interval: all of a block with a NaN, and the infinities themselves in a block
  /// with an infinity, whose other values become 0.
  void (*encode_4bit)(const float* x, int64_t blocks, int64_t block, const Codebook4& codebook, uint8_t* packed,
                      float* absmax) noexcept = nullptr;
  /// The same for values of bf16.
  void (*encode_4bit_bf16)(const uint16_t* x, int64_t blocks, int64_t block, const Codebook4& codebook, uint8_t* packed,
                           float* absmax) noexcept = nullptr;

  /// max |x|; NaN when any x is NaN.
  float (*absmax)(const float* x, int64_t count) noexcept = nullptr;
  /// q[i] = x[i] * scale rounded to nearest even, clamped to [-127, 127]; a value that is not finite gives 0.
  void (*quantize_i8)(const float* x, float scale, int8_t* q, int64_t count) noexcept = nullptr;
  /// The same, clamped to [-kPairX, kPairX].
  void (*quantize_i16)(const float* x, float scale, int16_t* q, int64_t count) noexcept = nullptr;
  void (*quantize_affine)(const float* x, const AffineCodes& to, int8_t* q, int64_t count) noexcept = nullptr;
  void (*scale_sums)(const ScaledSums&, int64_t count) noexcept = nullptr;
  /// The smallest and the largest value; NaN counts for nothing. None: infinity and -infinity.
  Extent (*extent)(const float* x, int64_t count) noexcept = nullptr;

  /// y[i] = (x[i] - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight[i] + bias[i]
  void (*layer_norm)(const LayerNorm&, int64_t count) noexcept = nullptr;
  /// y[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]
  void (*rms_norm)(const float* x, const float* weight, float eps, float* y, int64_t count) noexcept = nullptr;
  /// In place, over `count` values: exp(x - max) / sum. All -inf gives zeros.
  void (*softmax)(float* x, int64_t count) noexcept = nullptr;
  /// The same without the division: x[i] becomes exp(x[i] - max). All -inf gives zeros, max 0 and sum 0.
  SoftmaxPart (*softmax_part)(float* x, int64_t count) noexcept = nullptr;
  /// y[i] = gate[i] / (1 + exp(-gate[i])) * up[i]
  void (*silu_mul)(const float* gate, const float* up, float* y, int64_t count) noexcept = nullptr;
  /// Its gradient: dup = dy * gate * s, dgate = dy * up * s * (1 + gate * (1 - s)), with s = 1 / (1 + exp(-gate)).
  void (*silu_mul_backward)(const SiluMulGradient&, int64_t count) noexcept = nullptr;
  /// y[i] = x[i] * Phi(x[i]), the GELU of arXiv 1606.08415; y may be x. -infinity gives 0 or NaN.
  void (*gelu_erf)(const float* x, float* y, int64_t count) noexcept = nullptr;
  /// Its approximation by tanh, section 2 there; y may be x. -infinity gives NaN.
  void (*gelu_tanh)(const float* x, float* y, int64_t count) noexcept = nullptr;
  float (*dot)(const float* a, const float* b, int64_t count) noexcept = nullptr;
  /// y += a * x
  void (*axpy)(float a, const float* x, float* y, int64_t count) noexcept = nullptr;
};

/// The table in use: the best one that this processor supports, or the one named by NIBBLE_ISA, with its null entries
/// filled from the tables below. A NIBBLE_ISA that cannot be used counts as not set; see isa_choice_problem().
const Kernels& kernels() noexcept;

/// Every table that this processor supports, filled, best first; scalar is last. For tests and `nibble info`.
const std::vector<Kernels>& supported_kernels();

/// Empty, or what is wrong with NIBBLE_ISA: "NIBBLE_ISA=avx9 is unknown; available here: avx2, scalar".
std::string_view isa_choice_problem();

}  // namespace nibble
