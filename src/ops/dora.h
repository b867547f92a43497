#pragma once
// DoRA (arXiv 2402.09353): a low-rank adapter that also gives every row of the weight a length of its own.
//
//   V = W + scaling * B A,  c = magnitude / |V| by rows,  y = b + c * (x V^T)
//
// As PEFT computes it: |V| counts as constant in the gradient, and with dropout the product that c changes is that of
// the dropped input:  y = x W^T + b + (c - 1) * drop(x) W^T + c * scaling * drop(x) A^T B^T.
#include "core/tensor.h"
#include "ops/lora.h"
#include "ops/tape.h"
#include "quant/format.h"

namespace nibble {

/// |W + scaling * B A| by rows: f32 [out].
Tensor dora_row_lengths(const Weight& w, const Lora& lora);

/// What the backward pass needs of a forward pass.
struct DoraPass {
  Weight weight;   // W
  Tensor lengths;  // [out]
  Tensor scale;    // c, [out]
  Tensor product;  // drop(x) V^T, [tokens, out]
};

/// Adds what the adapter changes for x [tokens, in] to y [tokens, out].
DoraPass add_dora(const Tensor& x, const Weight& w, const Lora& lora, const Tape* tape, Tensor& y);

/// dy: the gradient of y. The gradient that flows through x W^T + b itself is not a part of it.
void dora_backward(const Tensor& x, const Lora& lora, const DoraPass& pass, const LoraSlots& slots, const Tensor& dy,
                   Tape& tape);

}  // namespace nibble
