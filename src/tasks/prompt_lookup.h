#pragma once
// Guessing what follows from the text itself, for several tokens in one forward pass: what stood behind the last words
// where they occurred before. Prompt look-up decoding, as transformers' prompt_lookup_num_tokens.
#include <cstdint>
#include <span>
#include <vector>

#include "models/model.h"

namespace nibble {

/// Up to `most` ids that followed the longest sequence of at most 3 ids which ends the text and occurred in it before;
/// of several places the first one. Empty when there is none.
std::vector<int32_t> look_up(std::span<const int32_t> text, int64_t most);

/// A model that is asked for one id after the other. A forward pass gives the logits behind the last id and behind each
/// id that was guessed to follow; guesses that turn out wrong leave the cache again.
class GuessedDecoding {
 public:
  /// Runs the prompt. The cache must be empty.
  GuessedDecoding(const Model& model, KvCache& cache, std::span<const int32_t> prompt)
      : model_(model), cache_(cache), logits_(model.forward_last({.ids = prompt}, &cache)) {}

  /// Behind all ids so far: f32 [vocab_size].
  std::span<float> logits() { return {logits_.f32() + row_ * logits_.cols(), static_cast<size_t>(logits_.cols())}; }
  /// Whether the id, chosen from logits(), is the one that was guessed; logits() are then those behind it.
  bool is_guessed(int32_t id);
  /// A forward pass over an id that was not guessed, the last of the text, and up to `most` guesses behind it.
  void forward(std::span<const int32_t> text, int64_t most);

  int64_t drafted() const { return drafted_; }    // ids guessed
  int64_t accepted() const { return accepted_; }  // guesses that were right
  int64_t forwards() const { return forwards_; }  // without that of the prompt

 private:
  const Model& model_;
  KvCache& cache_;
  Tensor logits_;  // behind the last id and each guess: [guesses + 1, vocab_size]
  std::vector<int32_t> guesses_ = {};
  int64_t row_ = 0;  // guesses that were right so far
  int64_t drafted_ = 0, accepted_ = 0, forwards_ = 0;
};

}  // namespace nibble
