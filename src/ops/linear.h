#pragma once
// y = x W^T + b, over a dense or a quantized weight, with low-rank adapters where there are any.
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "ops/tape.h"
#include "quant/format.h"

namespace nibble {

struct Lora;
struct FakeQuant;

struct Linear {
  std::string name;            // "model.layers.0.self_attn.q_proj"
  Weight weight;               // [out, in]
  std::optional<Tensor> bias;  // f32 [out]
  std::vector<std::shared_ptr<Lora>> adapters = {};
  std::shared_ptr<FakeQuant> fake_quant = {};  // trained in the form in which it will be deployed, see fake_quant.h
};

/// x: [tokens, in] f32. @returns [tokens, out] f32
///
/// Under a tape that records, quantized weights are multiplied as the f32 values they decode to, whatever their format
/// does with activations; so train bitsandbytes and PEFT. Their own gradient cannot be asked for.
Tensor linear(const Tensor& x, const Linear& layer, const ComputeOptions& options, Tape* tape = nullptr);

/// Several layers with one input, which share the work on it. The same bits as one by one.
std::vector<Tensor> linear_all(const Tensor& x, std::initializer_list<const Linear*> layers,
                               const ComputeOptions& options, Tape* tape = nullptr);

/// A table with a row for every id. Its adapters have A [rank, rows] and B [cols, rank], see lora.h.
struct Embedding {
  std::string name;  // "model.embed_tokens"
  Weight weight;     // [rows, cols]
  std::vector<std::shared_ptr<Lora>> adapters = {};
};

/// Rows of an embedding table with what its adapters add. @returns [ids.size(), cols] f32
/// @throws Error{invalid_argument} for an id outside the table.
Tensor embedding(std::span<const int32_t> ids, const Embedding& table, Tape* tape = nullptr);

}  // namespace nibble
