#pragma once
// modules.json of sentence-transformers: what follows the encoder (pooling, normalization, a dense layer), and the
// sub-folders of the model where the settings of that lie.
#include <filesystem>
#include <string>
#include <vector>

namespace nibble {

struct SentenceModule {
  std::string type;                // "sentence_transformers.models.Pooling"
  std::string path;                // "1_Pooling"; "" = the model's folder itself
  std::vector<std::string> files;  // of the sub-folder, sorted: "1_Pooling/config.json"
};

/// In the order in which they are applied; empty when the folder has no modules.json. A sub-folder that is not there
/// has no files: Normalize is stored as a name alone.
/// @throws Error{format} when the file is not valid, or a path or link of a sub-folder leaves the model's folder (links
///         into the blobs of the Hub's cache do not).
std::vector<SentenceModule> read_sentence_modules(const std::filesystem::path& folder);

}  // namespace nibble
