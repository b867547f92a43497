#pragma once
// What decoder families are built from: the pass over the layers, norms, attention, the gated MLP.
#include <span>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "models/loader.h"
#include "models/model.h"
#include "ops/elementwise.h"
#include "ops/rope.h"

namespace nibble {

struct Norm {
  std::string name;     // "model.norm"; "" = one that is no parameter
  Tensor weight, bias;  // without a bias: RMSNorm, with one: LayerNorm
  float eps = 0;
};
Norm load_rms_norm(Loader& loader, const std::string& module, int64_t count, float eps);
Norm load_layer_norm(Loader& loader, const std::string& module, int64_t count, float eps);
Tensor normalize(const Tensor& x, const Norm& norm, Tape* tape);
void visit(ParameterVisitor& visitor, Norm& norm);

/// What all layers of one call share.
struct PassState {
  std::vector<RopeTable> ropes;  // beside the model's RopeConfigs
  KvCache* cache;                // null: sequences of their own
  std::vector<int64_t> lengths;  // of these
  ComputeOptions compute = {};
};

/// What the embedding needs to know of the call it runs in.
struct EmbedCall {
  std::span<const int32_t> ids, positions;
  const PassState& state;
  Tape* tape;
};

/// What a layer needs to know of the call it runs in.
struct LayerCall {
  int64_t layer;
  const PassState& state;
  Tape* tape;
};

/// A decoder: embeddings, layers, a norm, and the head. A family says what a layer is. Tokens that continue a cache,
/// and the rows of the head, have the bits that they would have one at a time: several tokens that are tried at once
/// lead to the same text.
class Decoder : public Model {
 public:
  Tensor hidden(const Batch& batch, KvCache* cache, Tape* tape) const override;
  Tensor logits(const Tensor& hidden, Tape* tape) const override;
  void visit(ParameterVisitor& visitor) override;

 protected:
  Decoder(ModelInfo info, std::vector<RopeConfig> ropes, const Loader& loader)
      : Model(std::move(info)),
        compute_(loader.compute()),
        head_compute_(loader.head_compute()),
        ropes_(std::move(ropes)) {}

  void load_embedding(Loader& loader, const std::string& module, const DecoderShape& shape);
  /// "lm_head", or the embeddings again when they are tied; of a classifier "score".
  void load_head(Loader& loader, const DecoderShape& shape);
  /// Rows of a table of positions, the first of which is row `offset`; as many as the model's context are all there
  /// are.
  Tensor learned_positions(const EmbedCall& call, const Embedding& table, int64_t offset) const;

  /// @returns [ids.size(), hidden]
  virtual Tensor embed(const EmbedCall& call) const;
  /// h: [tokens, hidden]
  virtual Tensor run_layer(const Tensor& h, const LayerCall& call) const = 0;
  /// What is between the last layer and the head: the last norm.
  virtual Tensor finish(const Tensor& h, const PassState& state, Tape* tape) const;
  /// The parameters between the embedding of the ids and the last norm.
  virtual void visit_layers(ParameterVisitor& visitor) = 0;

  Embedding embedding_;
  Norm norm_;
  Linear head_;

 private:
  PassState pass_state(const Batch& batch, KvCache* cache) const;

  ComputeOptions compute_, head_compute_;
  std::vector<RopeConfig> ropes_;
};

/// Rotates q and k where there is a rope, puts k and v into the cache if there is one, and attends.
/// q: [tokens, heads * head_dim], k, v: [tokens, kv_heads * head_dim]
Tensor attend(Tensor&& q, Tensor&& k, const Tensor& v, const RopeTable* rope, const AttentionOptions& options,
              const LayerCall& call);

inline constexpr int64_t kNoRope = -1;

/// Attention whose projections are matrices of their own.
struct SelfAttention {
  Linear q, k, v, o;
  Norm q_norm, k_norm;  // before the rotation: over each head, or the full width; no weight = none
  int64_t rope = 0;     // index of the model's ropes, or kNoRope
  AttentionOptions options;
};
struct AttentionBiases {
  bool qkv = false, o = false;
};
SelfAttention load_self_attention(Loader& loader, const std::string& module, const DecoderShape& shape,
                                  AttentionBiases biases);
Tensor self_attention(const Tensor& x, const SelfAttention& layer, const LayerCall& call);
void visit(ParameterVisitor& visitor, SelfAttention& layer);

/// down(activation(gate(x)) * up(x))
struct GatedMlp {
  Linear gate, up, down;
  Activation activation = Activation::silu;
};
GatedMlp load_gated_mlp(Loader& loader, const std::string& module, const DecoderShape& shape, Activation activation,
                        Loader::Bias bias = Loader::Bias::no);
Tensor gated_mlp(const Tensor& x, const GatedMlp& mlp, const LayerCall& call);
void visit(ParameterVisitor& visitor, GatedMlp& mlp);

}  // namespace nibble
