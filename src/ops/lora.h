#pragma once
// Low-rank adapters of Linear layers: LoRA (arXiv 2106.09685).
//
//   y = x W^T + b + scaling * drop(x) A^T B^T (+ a bias of the adapter's own)
//
// and of embeddings, whose tables have a row for every id, with A [rank, ids] and B [width, rank] as PEFT has them:
//
//   y = E[id] + scaling * A[:, id]^T B^T
#include <cstdint>
#include <span>
#include <string>

#include "core/tensor.h"
#include "ops/tape.h"

namespace nibble {

struct Lora {
  Tensor a;             // f32 [rank, in]
  Tensor b;             // f32 [out, rank]
  float scaling = 1;    // lora_alpha / rank, or lora_alpha / sqrt(rank)
  float dropout = 0;    // share of the inputs of A that are dropped while training
  uint64_t stream = 0;  // distinguishes the dropout of this adapter from that of others
  Tensor bias = {};     // f32 [out] that is added too, scaled already; empty = none

  // DoRA, see dora.h: f32 [out]; empty = plain LoRA.
  Tensor magnitude = {};
  Tensor row_lengths = {};  // |V| when nothing of the adapter changes any more; empty = computed for every product
};

/// Whether the adapter sees x with parts of it dropped.
bool drops(const Lora& lora, const Tape* tape);

/// What A sees: x, or while training with dropout what is left of it.
Tensor lora_input(const Tensor& x, const Lora& lora, const Tape* tape);

/// Adds what the adapter gives for x [tokens, in] to y [tokens, out]. Returns drop(x) A^T [tokens, rank].
Tensor add_lora(const Tensor& x, const Lora& lora, const Tape* tape, Tensor& y);

/// The halves of it: drop(x) A^T of what lora_input() returned, and scaling * u B^T of that.
Tensor lora_down(const Tensor& seen, const Lora& lora, const Tape* tape);
Tensor lora_up(const Tensor& u, const Lora& lora, const Tape* tape);

/// Where the gradients of a product with an adapter go.
struct LoraSlots {
  Tape::Slot x, a, b, magnitude = Tape::kNone;
};
/// dy: the gradient of y. low_rank: what add_lora() returned; empty = computed again.
void lora_backward(const Tensor& x, const Tensor& low_rank, const Lora& lora, const LoraSlots& slots, const Tensor& dy,
                   Tape& tape);

/// Adds what the adapter of an embedding gives to y [ids.size(), width]. Nothing is dropped, as in PEFT.
void add_embedding_lora(std::span<const int32_t> ids, const Lora& lora, Tensor& y);
/// slots.x is not used: ids have no gradient.
void embedding_lora_backward(std::span<const int32_t> ids, const Lora& lora, const LoraSlots& slots, const Tensor& dy,
                             Tape& tape);

/// x with the elements that (seed, stream) chooses set to 0 and the others divided by 1 - share. Whether an element is
/// dropped depends on nothing but these numbers and its index, so a layer that runs again drops the same ones.
Tensor dropout(const Tensor& x, float share, uint64_t seed, uint64_t stream);

}  // namespace nibble
