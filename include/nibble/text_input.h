#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace nibble {

/// A text, or two that belong together (question and answer, premise and hypothesis).
struct TextInput {
  std::string text = {};
  std::optional<std::string> pair = {};
};

/// What a model reads.
struct EncodedText {
  std::vector<int32_t> ids = {};
  std::vector<int32_t> token_type_ids = {};  ///< empty = all 0
};

}  // namespace nibble
