#pragma once
// Running many texts through an encoder or a classifier: sequences of like length go together, one behind the other
// without padding.
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "nibble/progress.h"
#include "nibble/text_input.h"
#include "tasks/loaded_model.h"

namespace nibble {

/// Some of the inputs, run together. The rows of input `members[i]` are `lengths[i]` ones, behind those before it.
struct SequenceBatch {
  std::vector<size_t> members;
  std::vector<int64_t> lengths;
  Tensor hidden;  // f32 [tokens, hidden_size]
};

/// Every input is in one batch. Where a result would depend on what shares the batch, each is alone in its own.
/// @throws Error{invalid_argument} naming the input that is empty or does not fit the model.
void run_sequences(const LoadedModel& loaded, const std::vector<EncodedText>& inputs, const ProgressFn& progress,
                   const std::function<void(const SequenceBatch&)>& use);

/// @throws Error{unsupported} when the model is no encoder, Error{format} when its tokenizer has ids that its embedding
///         does not have.
void require_encoder(const LoadedModel& loaded);

/// @throws Error{format} when its tokenizer has ids that its embedding does not have.
void require_known_ids(const LoadedModel& loaded);

/// Tokens to which a text is cut where texts are cut: the model's positions, or fewer if its tokenizer says so.
int64_t longest_text(const LoadedModel& loaded);

}  // namespace nibble
