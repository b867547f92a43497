#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/dtype.h"

namespace nibble {

struct GenerateOptions {
  int64_t max_tokens = 128;
  int64_t context = 0;          ///< positions to reserve; 0 = prompt + max_tokens, at most the model's own length
  float temperature = 0.0f;     ///< 0 = greedy
  int64_t top_k = 0;            ///< keep the k likeliest; 0 = all
  float top_p = 1.0f;           ///< keep the likeliest that together reach p
  float min_p = 0.0f;           ///< behind top_p: keep those at least min_p times as likely as the likeliest
  float repeat_penalty = 1.0f;  ///< > 1 makes ids of the prompt and the text less likely (as transformers)
  std::vector<std::string> stop = {};  ///< generation ends before the first of these strings
  uint64_t seed = 0;
  /// Of the cache: f32, f16, bf16 or i8. nullopt: f16 where the Linear layers are quantized, f32 where they are dense
  /// and where activations are "fp32".
  std::optional<DType> kv_dtype = {};
  /// Up to so many tokens are guessed from what followed the last ones earlier in the text, and checked together in one
  /// forward pass; 0 = none, at most 1024. The result is the same, only sooner where texts repeat themselves.
  int64_t prompt_lookup = 0;
  bool ignore_eos = false;
  bool profile = false;  ///< fill Generation's profiles

  /// Called with each piece of text as soon as it is final: whole UTF-8 characters, no part of a stop string.
  std::function<void(std::string_view)> on_text = {};
};

enum class FinishReason { stop, length };

/// All calls of one operation, such as "linear nf4" or "attention".
struct OperationTime {
  std::string name = {};
  int64_t calls = 0;
  double seconds = 0;
  uint64_t bytes = 0;  ///< of weights read; 0 = not counted
};

struct Generation {
  std::vector<int32_t> prompt_ids = {};
  std::vector<int32_t> ids = {};  ///< generated, the end-of-text id included
  std::string text = {};          ///< of the generated ids, without special tokens; empty when there is no tokenizer
  FinishReason finish_reason = FinishReason::length;
  DType kv_dtype = DType::f32;  ///< of the cache that was used
  double prefill_seconds = 0, decode_seconds = 0;
  double prefill_tokens_per_second = 0, decode_tokens_per_second = 0;
  int64_t drafted = 0, accepted = 0;  ///< tokens that were guessed (prompt_lookup), and those that were right
  double tokens_per_forward = 0;      ///< of decoding; 1 without guesses, 0 when there was no forward pass
  /// Where the time went, the longest first; the last row, "other", is what lies between operations.
  std::vector<OperationTime> prefill_profile = {}, decode_profile = {};
};

struct ChatMessage {
  std::string role = {};  ///< "system", "user", "assistant"
  std::string content = {};
};

}  // namespace nibble
