#pragma once
// Predictions of a reference in a file, so that many candidates are compared after one pass of the original.
//
// The file is a safetensors file. Instead of log-probabilities, whose vocabulary makes them large, it holds what they
// are computed from: the hidden states in front of the output head, and the head, once. That is exact and small (for
// SmolLM2-135M 2.3 KB per position and 57 MB, against 98 KB per position for 16-bit log-probabilities).
//
//   head.weight  [vocabulary, hidden] in the dtype of the model (f32 where it was quantized)
//   head.bias    [vocabulary] f32, if the head has one
//   hidden.I     [scored positions, hidden] f32 of chunk I
//   __metadata__ of strings: see kKeys in the .cc file
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/output.h"
#include "io/safetensors.h"
#include "nibble/evaluate.h"
#include "ops/linear.h"
#include "tasks/evaluate_chunks.h"

namespace nibble {

struct SavedReference::Contents {
  SafetensorsFile file;
  Linear head = {};
  int64_t vocab_size = 0, context = 0, chunks = 0;
  double softcap = 0;  // of the logits; 0 = none
  std::string convention = {}, ids_hash = {};
  uint64_t model_bytes = 0;

  std::string path() const { return file.path().string(); }
  /// The hidden states of chunk `index`: f32 [rows, hidden].
  Tensor hidden(size_t index, int64_t rows) const;
  Tensor logits(const Tensor& hidden) const;
  /// @throws Error{invalid_argument} unless the file was made for a model with this vocabulary and exactly these
  /// chunks.
  void check(int64_t vocab_size, const Chunks& chunks, const EvaluateOptions& options) const;
};

/// Writes such a file; it appears under its name by finish().
class ReferenceWriter {
 public:
  /// @throws Error{unsupported} when the logits of the model are more than its head makes of the hidden states.
  ReferenceWriter(const std::string& path, const CausalLM& model, const Chunks& chunks, const EvaluateOptions& options);

  /// The hidden states of the scored positions of chunk `index`.
  void add(size_t index, const Tensor& hidden);
  void finish();

 private:
  struct Staging {
    std::filesystem::path file, final_name;
    ~Staging();  // removes what was not published
  };

  Staging staging_;
  std::unique_ptr<SafetensorsWriter> out_;
};

}  // namespace nibble
