#pragma once
// Attention: over a cache of keys and values, and over whole sequences.
#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor.h"
#include "ops/tape.h"

namespace nibble {

/// Keys and values of every layer, f32, f16 or bf16. A head's keys lie as [position, head_dim], its values transposed
/// as [head_dim, position], so that both products of attention run along contiguous memory.
class KvCache {
 public:
  KvCache(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t capacity, DType dtype = DType::f32);

  int64_t length() const { return length_; }      // positions that are complete in all layers
  int64_t capacity() const { return capacity_; }  // positions there is room for
  DType dtype() const { return dtype_; }
  int64_t head_dim() const { return head_dim_; }
  int64_t kv_heads() const { return kv_heads_; }
  uint64_t bytes() const;

  /// Writes positions length() .. length() + tokens - 1 of one layer. k, v: [tokens, kv_heads * head_dim] f32.
  void write(int64_t layer, const Tensor& k, const Tensor& v);
  /// Makes the written positions count, after the last layer.
  void advance(int64_t tokens) { length_ += tokens; }
  /// Forgets all positions from `length` on.
  void truncate(int64_t length) { length_ = length; }

  /// Positions [begin, end) of a head as f32 [end - begin, head_dim]; points into the cache or into `room`.
  const float* keys(int64_t layer, int64_t head, int64_t begin, int64_t end, std::vector<float>& room) const;
  struct Values {
    const float* data;  // element (d, position) at data[d * stride + position - begin]
    int64_t stride;
  };
  Values values(int64_t layer, int64_t head, int64_t begin, int64_t end, std::vector<float>& room) const;

 private:
  int64_t kv_heads_, head_dim_, capacity_, stride_, length_ = 0;
  DType dtype_;
  std::vector<Tensor> keys_, values_;  // per layer: [kv_heads, capacity, head_dim] and [kv_heads, head_dim, stride]
};

struct AttentionOptions {
  int64_t heads = 0;
  float scale = 1.0f;
  int64_t window = 0;  // a position sees itself and the window - 1 before it; 0 = all before it
  float softcap = 0;   // scores become cap * tanh(score / cap); 0 = as they are
};

/// q: [tokens, heads * head_dim] f32 for positions cache.length() .. + tokens - 1, whose keys and values are written
/// already. Heads share key heads in equal groups. @returns [tokens, heads * head_dim]
Tensor attention(const Tensor& q, const KvCache& cache, int64_t layer, const AttentionOptions& options);

/// The same for whole sequences that lie one after the other, which see nothing of each other. q: [tokens,
/// heads * head_dim], k, v: [tokens, kv_heads * head_dim]; lengths add up to tokens. The bits are those of attention()
/// over a cache of each sequence.
Tensor causal_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const int64_t> lengths,
                        const AttentionOptions& options, Tape* tape);

/// Attention in both directions within each of several sequences: no padding, no cache.
/// q, k, v: [tokens, heads * head_dim]; lengths add up to tokens. @returns [tokens, heads * head_dim]
Tensor bidirectional_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const int64_t> lengths,
                               const AttentionOptions& options, Tape* tape = nullptr);

}  // namespace nibble
