#pragma once
// Products of dense f32 matrices, as the backward passes need them. Their sums run in an order that depends on the
// shapes alone.
//
// With `in_pairs`, and for many tokens, both factors become whole numbers of 16 bits, which are multiplied in pairs: of
// 256 values that are summed, x has one of 8191 steps between the largest and its negative, w one of 4095. The sums of
// 256 are exact, those beyond in f32. What is not finite shows in the results.
#include "core/tensor.h"
#include "quant/format.h"

namespace nibble {

/// x w^T. x: [n, k], w: [m, k]. @returns [n, m]
Tensor matmul(const Tensor& x, const Tensor& w);

/// y = x w^T + bias over a weight of any format as the f32 values it stands for, without what the format does with
/// activations. Many tokens are multiplied in another order than few: sums of k terms differ by their rounding.
void multiply_decoded(const Weight& w, const MatmulArgs& args, bool in_pairs = false);

/// x w over a weight of any format, decoded by tiles of rows. x: [n, out], w: [out, in]. @returns [n, in]
Tensor matmul_by_columns(const Tensor& x, const Weight& w, bool in_pairs = false);

/// y += x w
void add_matmul_by_columns(const Tensor& x, const Weight& w, Tensor& y, bool in_pairs = false);

/// x^T w. x: [n, a], w: [n, b]. @returns [a, b]
Tensor turned_matmul(const Tensor& x, const Tensor& w);

Tensor transpose(const Tensor& x);

/// @returns f32 [cols]
Tensor column_sums(const Tensor& x);

}  // namespace nibble
