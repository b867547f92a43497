#pragma once
// The shapes of well-known models, so that they can be planned for by name, without a file.
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

struct KnownConfig {
  std::string_view name;    // "llama-2-7b"
  std::string_view config;  // what config.json says of its shape
};

std::span<const KnownConfig> known_configs();

/// Null when there is none of that name; letter case does not matter.
const KnownConfig* find_known_config(std::string_view name);

}  // namespace nibble
