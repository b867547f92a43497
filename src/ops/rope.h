#pragma once
// Rotary position embedding, RoFormer arXiv 2104.09864, with the frequency scalings that checkpoints ask for.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "ops/tape.h"

namespace nibble {

enum class RopeScaling { none, linear, dynamic, llama3, yarn, longrope };

struct RopeConfig {
  int64_t head_dim = 0;  // rotated part of a head
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::none;
  double factor = 1.0;
  int64_t original_context = 0;  // positions the model was trained on before scaling
  // llama3
  double low_freq_factor = 1.0, high_freq_factor = 4.0;
  // yarn, arXiv 2309.00071
  double beta_fast = 32.0, beta_slow = 1.0;
  double attention_factor = 0.0;  // 0: derived from factor (and mscale); longrope too
  double mscale = 0.0, mscale_all_dim = 0.0;
  bool truncate = true;
  // longrope, arXiv 2402.13753: divisors of the frequencies, head_dim / 2 of each
  std::vector<double> short_factors = {}, long_factors = {};
};

/// cos and sin of every position of one call, f32 [tokens, head_dim / 2], the attention factor already in them.
struct RopeTable {
  Tensor cos, sin;
};

/// Positions first .. first + tokens - 1. Dynamic scaling depends on the last position, as in transformers; that of
/// tokens that continue a sequence (first > 0) on their own, as when they come one at a time. Longrope
/// depends on `capacity`, the most positions that the sequence can reach, so that all its keys are rotated alike:
/// transformers takes the sequence's present length and computes all keys anew when it outgrows the trained context.
RopeTable rope_table(const RopeConfig& config, int64_t first, int64_t tokens, int64_t capacity);
/// The same for a sequence that ends with these tokens.
RopeTable rope_table(const RopeConfig& config, int64_t first, int64_t tokens);

/// For sequences that lie one after the other, each from position 0 on and without a cache.
RopeTable rope_table(const RopeConfig& config, std::span<const int64_t> lengths);

/// Rotates; in place where nothing is recorded. x: [tokens, heads * head_dim]; the halves of the rotated part of a
/// head, which comes first, are the two components ("rotate half").
Tensor apply_rope(Tensor&& x, int64_t head_dim, const RopeTable& table, Tape* tape);

}  // namespace nibble
