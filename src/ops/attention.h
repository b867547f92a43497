#pragma once
// Attention: over a cache of keys and values, and over whole sequences.
#include <cstdint>
#include <span>

#include "core/tensor.h"
#include "ops/kv_cache.h"
#include "ops/tape.h"

namespace nibble {

struct AttentionOptions {
  int64_t heads = 0;
  float scale = 1.0f;
  int64_t window = 0;  // a position sees itself and the window - 1 before it; 0 = all before it
  float softcap = 0;   // scores become cap * tanh(score / cap); 0 = as they are
};

/// q: [tokens, heads * head_dim] f32 for positions cache.length() .. + tokens - 1, whose keys and values are written
/// already. Heads share key heads in equal groups. A token has the same bits alone and with others.
/// @returns [tokens, heads * head_dim]
Tensor attention(const Tensor& q, const KvCache& cache, int64_t layer, const AttentionOptions& options);
struct AttentionHeads {
  int64_t heads, kv_heads, head_dim;
};
/// Bytes that it takes beside its result, for `tokens` of which the last sees `span` positions.
uint64_t attention_bytes(const AttentionHeads& h, int64_t tokens, int64_t span);

/// The same for whole sequences that lie one after the other, which see nothing of each other. q: [tokens,
/// heads * head_dim], k, v: [tokens, kv_heads * head_dim]; lengths add up to tokens. The bits are those of attention()
/// over an f32 cache of each sequence.
Tensor causal_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const int64_t> lengths,
                        const AttentionOptions& options, Tape* tape);

/// Attention in both directions within each of several sequences: no padding, no cache.
/// q, k, v: [tokens, heads * head_dim]; lengths add up to tokens. @returns [tokens, heads * head_dim]
Tensor bidirectional_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const int64_t> lengths,
                               const AttentionOptions& options, Tape* tape = nullptr);

}  // namespace nibble
