#pragma once
// Operations on each element by itself. Those that take a tape overwrite their operand where nothing is recorded and
// write to fresh memory where something is.
#include <span>
#include <string>

#include "core/tensor.h"
#include "ops/tape.h"

namespace nibble {

enum class Activation { relu, silu, tanh, gelu_erf, gelu_tanh };

/// By transformers' name: "relu", "silu", "tanh", "gelu" (erf), "gelu_new" and "gelu_pytorch_tanh" (tanh).
/// @throws Error{unsupported} naming those that are known; `where` names the file and key.
Activation parse_activation(const std::string& name, const std::string& where);

Tensor activate(Activation activation, Tensor&& x, Tape* tape);
/// silu(gate) * up
Tensor silu_mul(const Tensor& gate, const Tensor& up, Tape* tape);
Tensor add(Tensor&& x, const Tensor& y, Tape* tape);
Tensor multiply(Tensor&& x, const Tensor& y, Tape* tape);
Tensor scale(Tensor&& x, float factor, Tape* tape);
Tensor softcap(Tensor&& x, float cap, Tape* tape);

/// Columns [begin, end) of every row. @returns [rows, end - begin]
Tensor slice_columns(const Tensor& x, int64_t begin, int64_t end, Tape* tape);
/// @returns [rows.size(), cols]
Tensor take_rows(const Tensor& x, std::span<const int64_t> rows, Tape* tape);

// Without a tape.
Tensor copy_of(const Tensor& x);
/// x += y
void add_in_place(Tensor& x, const Tensor& y);
void scale_in_place(Tensor& x, float factor);
/// cap * tanh(x / cap). Gemma 2, arXiv 2408.00118.
void softcap_in_place(Tensor& x, float cap);

}  // namespace nibble
