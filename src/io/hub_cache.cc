#include "io/hub_cache.h"

#include <algorithm>
#include <cstdlib>

#include "core/file.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxRefBytes = 256;

/// One component of an id: what a file name may hold without pointing elsewhere.
bool is_id_part(std::string_view text) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_';
  };
  return !text.empty() && text.front() != '.' && text.size() <= 96 && std::all_of(text.begin(), text.end(), allowed);
}

std::optional<std::string> environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? std::optional<std::string>(value) : std::nullopt;
}

}  // namespace

std::optional<HubId> parse_hub_id(const std::string& text) {
  const size_t at = text.find('@'), slash = text.find('/');
  HubId id = {text.substr(0, at), at == std::string::npos ? "main" : text.substr(at + 1)};
  const bool has_organization = slash < at;
  const bool good = has_organization ? is_id_part(id.model.substr(0, slash)) && is_id_part(id.model.substr(slash + 1))
                                     : is_id_part(id.model);
  return good && is_id_part(id.revision) ? std::optional(id) : std::nullopt;
}

fs::path hub_cache_folder() {
  if (const auto cache = environment("HF_HUB_CACHE")) return *cache;
  if (const auto home = environment("HF_HOME")) return fs::path(*home) / "hub";
  return fs::path(environment("HOME").value_or(".")) / ".cache" / "huggingface" / "hub";
}

std::optional<fs::path> find_in_hub_cache(const HubId& id) {
  std::string folder = "models--" + id.model;
  if (const size_t slash = folder.find('/'); slash != std::string::npos) folder.replace(slash, 1, "--");
  const fs::path model = hub_cache_folder() / folder;
  std::string commit = id.revision;
  const fs::path reference = model / "refs" / id.revision;
  std::error_code unreadable;  // a cache of somebody else
  if (fs::is_regular_file(reference, unreadable)) {
    commit = read_text_file(reference, kMaxRefBytes);
    commit.erase(commit.find_last_not_of(" \r\n") + 1);
    require_plain_name(commit, reference.string());
  }
  const fs::path snapshot = model / "snapshots" / commit;
  return fs::is_directory(snapshot, unreadable) ? std::optional(snapshot) : std::nullopt;
}

}  // namespace nibble
