#pragma once
// Skip lists: which layers users keep from being quantized.
#include <string>
#include <string_view>
#include <vector>

#include "models/loader.h"

namespace nibble {

/// Whether a module is meant by a skip list, as transformers 5 matches them: an entry is a regular expression's plain
/// prefix of the module path up to a dot, or a plain suffix of it.
bool is_skipped(std::string_view module, const std::vector<std::string>& skip);

/// @throws Error{invalid_argument} for an entry that means none of the model's Linear layers, with the nearest name.
void check_skip_names(const std::vector<std::string>& skip, const std::vector<Parameter>& parameters);

/// "model.layers.0.self_attn.q_proj" of "model.layers.0.self_attn.q_proj.weight".
std::string_view module_of(std::string_view tensor);

}  // namespace nibble
