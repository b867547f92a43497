#pragma once
// DoRA (arXiv 2402.09353): a low-rank adapter that also gives every row of the weight a length of its own.
//
//   V = W + scaling * B A,  c = magnitude / |V| by rows,  y = b + c * (x V^T)
//
// As PEFT computes it: |V| counts as constant in the gradient, and with dropout the product that c changes is that of
// the dropped input:  y = x W^T + b + (c - 1) * drop(x) W^T + c * scaling * drop(x) A^T B^T.
#include "core/tensor.h"
#include "ops/linear.h"
#include "ops/lora.h"
#include "ops/tape.h"
#include "quant/format.h"

namespace nibble {

/// |W + scaling * B A| by rows: f32 [out].
Tensor dora_row_lengths(const Weight& w, const Lora& lora);

/// What the backward pass needs of a forward pass.
struct DoraPass {
  Weight weight;    // W; where nothing is dropped, not needed
  Tensor lengths;   // [out]
  Tensor scale;     // c, [out]
  Tensor low_rank;  // drop(x) A^T, [tokens, rank]
  Tensor product;   // drop(x) V^T, [tokens, out]
  bool drops = false;
};

/// Adds what the adapter changes for x [tokens, in] to y [tokens, out]. is_base: y is x W^T + b, of which c changes the
/// product where nothing is dropped; else it is computed again.
DoraPass add_dora(const Tensor& x, const Linear& layer, const Lora& lora, const Tape* tape, bool is_base, Tensor& y);

/// For a pass that drops nothing, where c changes x W^T itself: adds that part of dy to `through`, the gradient of
/// x W^T.
void add_dora_gradient(const DoraPass& pass, const Tensor& dy, Tensor& through);

/// dy: the gradient of y. The gradient that flows through x W^T + b itself is not a part of it, nor is that of
/// add_dora_gradient().
void dora_backward(const Tensor& x, const Lora& lora, const DoraPass& pass, const LoraSlots& slots, const Tensor& dy,
                   Tape& tape);

}  // namespace nibble
