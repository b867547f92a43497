#pragma once
// A model is its layers and one forward pass, which serves generation, evaluation, calibration and training alike.
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor.h"
#include "ops/attention.h"
#include "ops/linear.h"
#include "ops/tape.h"

namespace nibble {

/// One or several sequences, one after the other, without padding; with a cache one sequence or its continuation.
struct Batch {
  std::span<const int32_t> ids;
  std::vector<int64_t> lengths = {};             // of the sequences; empty = one sequence
  std::span<const int32_t> token_type_ids = {};  // BERT's segment of each id; empty = all 0
};

/// batch.lengths, or the one length of a batch that gives none.
std::vector<int64_t> sequence_lengths(const Batch& batch);

struct ModelInfo {
  std::string model_type;    // "llama"
  std::string architecture;  // "LlamaForCausalLM"
  int64_t vocab_size = 0;
  int64_t context_length = 0;  // positions the model was made for
  int64_t layers = 0, heads = 0, kv_heads = 0, head_dim = 0;
  bool is_encoder = false;
  std::vector<std::string> labels = {};  // of a classifier, by id; empty = the model is none

  /// Whether its logits are of ids that follow, not of labels.
  bool predicts_text() const { return !is_encoder && labels.empty(); }
  /// The row of a sequence that a classifier reads: an encoder's first, a decoder's last, which alone has seen them
  /// all.
  int64_t classified_row(int64_t length) const { return is_encoder ? 0 : length - 1; }
};

/// Is shown all parameters of a model and may replace them by others of the same shape.
class ParameterVisitor {
 public:
  virtual ~ParameterVisitor() = default;
  /// "NAME.weight" and, where it has a bias, "NAME.bias". An output head that is tied to the embeddings shows up here
  /// too, with the same memory.
  virtual void linear(Linear& layer) = 0;
  /// "NAME.weight" of an embedding.
  virtual void embedding(Embedding& table) = 0;
  /// A norm's "NAME.weight" or "NAME.bias".
  virtual void vector(const std::string& name, Tensor& values) = 0;
};

class Model {
 public:
  virtual ~Model() = default;

  /// Everything up to the output head: f32 [tokens, hidden_size], after the final norm. A null cache means a sequence
  /// on its own. A tape keeps the hidden states "hidden.0" (embeddings) to "hidden.N" (the result), or records for
  /// training.
  /// @throws Error{invalid_argument} for an id outside the vocabulary or more positions than there is room for.
  virtual Tensor hidden(const Batch& batch, KvCache* cache, Tape* tape) const = 0;
  /// The output head. hidden: any rows of what hidden() returned. @returns f32 [rows, vocab_size]; for a classifier,
  /// whose rows must be the classified_row() of each sequence, [rows, labels].
  virtual Tensor logits(const Tensor& hidden, Tape* tape) const = 0;
  Tensor logits(const Tensor& hidden) const { return logits(hidden, nullptr); }

  /// Shows every parameter to the visitor, in the order of loading.
  virtual void visit(ParameterVisitor& visitor) = 0;

  /// Logits of every position, f32 [tokens, vocab_size].
  Tensor forward(const Batch& batch, KvCache* cache, Tape* tape) const {
    return logits(hidden(batch, cache, tape), tape);
  }
  /// Logits of the last position only, f32 [1, vocab_size]: all that generation needs, and the head is large.
  Tensor forward_last(const Batch& batch, KvCache* cache) const {
    const Tensor all = hidden(batch, cache, nullptr);
    return logits(all.slice_rows(all.rows() - 1, all.rows()));
  }

  const ModelInfo& info() const { return info_; }
  KvCache new_cache(int64_t capacity, DType dtype = DType::f32) const {
    return KvCache(info_.layers, info_.kv_heads, info_.head_dim, capacity, dtype);
  }

 protected:
  explicit Model(ModelInfo info) : info_(std::move(info)) {}

 private:
  ModelInfo info_;
};

/// Shows every Linear layer to `see`, in the order of loading.
void for_each_linear(Model& model, const std::function<void(Linear&)>& see);

}  // namespace nibble
