#pragma once
// The keys and values that a sequence has left behind in every layer.
#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace nibble {

/// @throws Error{invalid_argument} for a dtype that keys and values cannot be kept in.
void check_kv_dtype(DType dtype);

/// Keys and values of every layer in f32, f16, bf16 or int8. Values as [head, position, head_dim]; keys turned, in
/// blocks of 64 positions as [head, block, head_dim, 64], so that the scores of neighbours are computed side by side.
/// int8: codes and one f32 scale per position and head, which makes the vector's largest magnitude 127; a component is
/// off by at most half of the scale. A vector with NaN or infinity becomes NaN.
class KvCache {
 public:
  static constexpr int64_t kKeyColumns = 64;

  KvCache(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t capacity, DType dtype = DType::f32);

  int64_t length() const { return length_; }      // positions that are complete in all layers
  int64_t capacity() const { return capacity_; }  // positions there is room for
  DType dtype() const { return dtype_; }
  int64_t head_dim() const { return head_dim_; }
  int64_t kv_heads() const { return kv_heads_; }
  uint64_t bytes() const;
  /// The same for a cache that is only planned.
  static uint64_t bytes(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t capacity, DType dtype);

  /// Writes positions length() .. length() + tokens - 1 of one layer. k, v: [tokens, kv_heads * head_dim] f32.
  void write(int64_t layer, const Tensor& k, const Tensor& v);
  /// Makes the written positions count, after the last layer.
  void advance(int64_t tokens) { length_ += tokens; }
  /// Forgets all positions from `length` on.
  void truncate(int64_t length) { length_ = length; }

  /// One head's vectors from a position on.
  struct Rows {
    DType dtype;
    const std::byte* data;
    const float* scales;  // [positions], of int8; else null
  };
  /// data: [head_dim, 64], the block of keys that begins at `begin`, a multiple of 64.
  Rows keys(int64_t layer, int64_t head, int64_t begin) const;
  /// data: [positions, head_dim]
  Rows values(int64_t layer, int64_t head, int64_t begin) const;

 private:
  struct Side {
    Tensor data, scales;  // scales: of int8 [kv_heads, capacity]
  };
  Rows rows(const Side& side, int64_t head, int64_t begin, int64_t first_value) const;
  int64_t key_at(int64_t head, int64_t position) const;

  int64_t kv_heads_, head_dim_, capacity_, length_ = 0;
  DType dtype_;
  std::vector<Side> keys_, values_;  // by layer
};

}  // namespace nibble
