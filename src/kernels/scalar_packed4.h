#pragma once
// The reference for packed 4-bit weights; scalar.cc puts it into its table.
#include "kernels/packed4.h"

namespace nibble::scalar {

void pack_4bit(const Pack4& a) noexcept;
void decode_packed4(const Packed4& w, int64_t first_row, int64_t rows, float* out) noexcept;
void activations4_i8(const Activations4& a) noexcept;
void activations4_i16(const Activations4& a) noexcept;
void activations4_f32(const Activations4& a) noexcept;
void matmul_packed4_i8(const MatmulPacked4& a) noexcept;
void matmul_packed4_i16(const MatmulPacked4& a) noexcept;
void matmul_packed4_f32(const MatmulPacked4& a) noexcept;

}  // namespace nibble::scalar
