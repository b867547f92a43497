#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nibble/model.h"
#include "nibble/progress.h"

namespace nibble {

struct SentenceSettings;  // internal

struct EmbedOptions {
  ProgressFn progress = {};
};

/// A model that turns sentences into vectors, as the library sentence-transformers does: the folder's modules.json says
/// how token vectors are pooled, how long a sentence may be and whether the result is normalised. Without that file:
/// their mean, normalised. Longer sentences are cut.
class SentenceTransformer {
 public:
  /// @throws Error{unsupported} for a model that is no encoder, and for modules that nibble does not know.
  static SentenceTransformer from_pretrained(const std::string& path, const LoadModelOptions& options = {});

  /// One vector per sentence.
  std::vector<std::vector<float>> embed(const std::vector<std::string>& sentences,
                                        const EmbedOptions& options = {}) const;

  uint64_t weight_bytes() const;
  const DeviceMap& device_map() const;

 private:
  SentenceTransformer(std::shared_ptr<LoadedModel> model, std::shared_ptr<const SentenceSettings> settings)
      : model_(std::move(model)), settings_(std::move(settings)) {}

  std::shared_ptr<LoadedModel> model_;
  std::shared_ptr<const SentenceSettings> settings_;
};

}  // namespace nibble
