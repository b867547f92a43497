#pragma once
// The local cache of the Hugging Face Hub: models--ORG--NAME/refs/REVISION holds the name of a folder in snapshots/.
#include <filesystem>
#include <optional>
#include <string>

namespace nibble {

struct HubId {
  std::string model;     // "org/name" or "name"
  std::string revision;  // "main" when not given
};

/// Nothing when the text cannot be the id of a model: ORG/NAME[@REVISION] of letters, digits, '.', '-', '_'.
std::optional<HubId> parse_hub_id(const std::string& text);

/// Where the cache is: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub.
std::filesystem::path hub_cache_folder();

/// The folder of a snapshot, or nothing when the cache does not have it.
std::optional<std::filesystem::path> find_in_hub_cache(const HubId& id);

}  // namespace nibble
