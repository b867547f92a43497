#pragma once
// The gradient of attention over whole sequences. Scores are computed again, so that none are kept.
#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "ops/attention.h"
#include "ops/tape.h"

namespace nibble {

struct AttentionInputs {
  Tensor q, k, v;  // [tokens, heads * head_dim], [tokens, kv_heads * head_dim] twice
  std::vector<int64_t> lengths;
  AttentionOptions options;
  bool causal = true;  // otherwise every token of a sequence sees all of it
};

/// `out` was made from `inputs`.
void record_attention(const AttentionInputs& inputs, const Tensor& out, Tape* tape);

/// In place: scores that are scaled already, capped where there is a cap.
void soft_cap(float* scores, int64_t count, float softcap);

/// In place: scores as the softmax sees them, scaled and capped.
void cap_scores(float* scores, int64_t count, const AttentionOptions& options);

}  // namespace nibble
