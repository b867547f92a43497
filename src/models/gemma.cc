// Gemma 2 and 3, arXiv 2408.00118 and 2503.19786: RMSNorm with 1 + weight before and after each half of a block, scaled
// embeddings, GeGLU, and windows on all but every 2nd or 6th layer. Gemma 2 caps scores and logits; Gemma 3 normalizes
// q and k and gives the layers with a window a rope of their own.
//
//   h = sqrt(hidden_size) * embed(ids)
//   for each block:  h += norm(o(attention(rope(norm(q(n))), rope(norm(k(n))), v(n))))   with n = norm(h)
//                    h += norm(down(gelu(gate(n)) * up(n)))                               with n = norm(h)
//   logits = cap(embed^T norm(h))
#include "models/gemma.h"

#include <cmath>

#include "core/error.h"
#include "models/blocks.h"
#include "models/encoder_config.h"
#include "ops/linear.h"

namespace nibble {
namespace {

struct Family {
  std::string_view model_type;
  bool qk_norm;
  bool local_rope;       // layers with a window have a rope of their own
  bool caps_scores;      // attn_logit_softcapping counts
  int64_t global_every;  // one layer in so many has no window, unless the configuration says otherwise
  std::string_view defaults;
};

constexpr Family kFamilies[] = {
    {.model_type = "gemma2",
     .qk_norm = false,
     .local_rope = false,
     .caps_scores = true,
     .global_every = 2,
     .defaults = R"({"vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
       "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192,
       "query_pre_attn_scalar": 256, "sliding_window": 4096, "tie_word_embeddings": true,
       "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0})"},
    {.model_type = "gemma3_text",
     .qk_norm = true,
     .local_rope = true,
     .caps_scores = false,
     .global_every = 6,
     .defaults = R"({"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
       "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131072,
       "query_pre_attn_scalar": 256, "sliding_window": 4096, "tie_word_embeddings": true, "rope_theta": 1000000.0,
       "rope_local_base_freq": 10000.0})"},
};

enum Rope : int64_t { kGlobalRope, kLocalRope };  // indices of the model's ropes

/// Gemma 3's rope_parameters has an object per type of layer. Older files have rope_theta and rope_scaling for the
/// layers without a window, and rope_local_base_freq for the others.
RopeConfig read_layer_rope(const ConfigReader& config, const DecoderShape& shape, const std::string& layer_type) {
  const Json* all = config.json().find_value("rope_parameters");
  if (const Json* own = all ? all->find_value(layer_type) : nullptr) {
    const bool local = layer_type == "sliding_attention";
    const Json full = with_defaults(*own, local ? R"({"rope_theta": 10000.0})" : R"({"rope_theta": 1000000.0})");
    return read_rope_parameters(ConfigReader(full, config.at("rope_parameters." + layer_type)), config, shape);
  }
  if (layer_type == "full_attention") return read_rope(config, shape);
  RopeConfig rope;
  rope.head_dim = shape.head_dim;
  rope.theta = config.positive_or("rope_local_base_freq", 10000.0);
  return rope;
}

std::vector<RopeConfig> read_ropes(const ConfigReader& config, const Family& family, const DecoderShape& shape) {
  if (!family.local_rope) return {read_rope(config, shape)};
  return {read_layer_rope(config, shape, "full_attention"), read_layer_rope(config, shape, "sliding_attention")};
}

int64_t window_of(const ConfigReader& config, const Family& family, int64_t layer, int64_t layers) {
  if (config.has("layer_types")) return layer_window(config, layer, layers);
  const int64_t every = config.integer_or("sliding_window_pattern", family.global_every, 1, layers + 6);
  return (layer + 1) % every == 0 ? 0 : layer_window(config, layer, layers);
}

/// The files hold weight where the formula has 1 + weight.
Norm load_norm(Loader& loader, const std::string& module, int64_t count, float eps) {
  Norm norm = load_rms_norm(loader, module, count, eps);
  if (norm.weight.empty()) return norm;
  Tensor shifted(DType::f32, norm.weight.shape);
  for (int64_t i = 0; i < count; ++i) shifted.f32()[i] = 1.0f + norm.weight.f32()[i];
  norm.weight = shifted;
  return norm;
}

/// sqrt(hidden_size) in the dtype of the embeddings, as transformers multiplies it.
float embedding_scale(const Weight& embeddings, int64_t hidden_size) {
  const auto scale = Tensor::from(std::vector<float>{std::sqrt(static_cast<float>(hidden_size))});
  const auto* dense = std::get_if<Tensor>(&embeddings);
  return dense && is_float(dense->dtype) ? *scale.cast(dense->dtype).cast(DType::f32).f32() : *scale.f32();
}

struct Block {
  Norm input_norm, post_attention_norm, pre_mlp_norm, post_mlp_norm;
  SelfAttention attention;
  GatedMlp mlp;
};

class Gemma final : public Decoder {
 public:
  Gemma(const ConfigReader& config, const Family& family, const std::string& prefix, Loader& loader)
      : Gemma(config, family, read_decoder_shape(config), prefix, loader) {}

 private:
  Gemma(const ConfigReader& config, const Family& family, const DecoderShape& shape, const std::string& prefix,
        Loader& loader)
      : Decoder(rotary_decoder_info(config, shape), read_ropes(config, family, shape), loader),
        logits_cap_(static_cast<float>(config.number_or("final_logit_softcapping", 0))) {
    load_embedding(loader, prefix + "embed_tokens", shape);
    scale_ = embedding_scale(embedding_.weight, shape.hidden_size);
    for (int64_t i = 0; i < shape.layers; ++i) {
      blocks_.push_back(load_block(config, family, shape, prefix + "layers." + std::to_string(i), loader));
      const int64_t window = window_of(config, family, i, shape.layers);
      blocks_.back().attention.options.window = window;
      if (family.local_rope && window > 0) blocks_.back().attention.rope = kLocalRope;
    }
    norm_ = load_norm(loader, prefix + "norm", shape.hidden_size, shape.norm_eps);
    load_head(loader, shape);
  }

  static Block load_block(const ConfigReader& config, const Family& family, const DecoderShape& shape,
                          const std::string& at, Loader& loader) {
    const std::string key = config.has("hidden_activation") ? "hidden_activation" : "hidden_act";
    const Activation activation = parse_activation(config.text_or(key, "gelu_pytorch_tanh"), config.at(key));
    const bool biases = config.flag_or("attention_bias", false);
    const auto norm = [&](const char* name, int64_t count) {
      return load_norm(loader, at + name, count, shape.norm_eps);
    };
    Block b;
    b.input_norm = norm(".input_layernorm", shape.hidden_size);
    b.attention = load_self_attention(loader, at + ".self_attn", shape, {.qkv = biases, .o = biases});
    if (family.qk_norm) b.attention.q_norm = norm(".self_attn.q_norm", shape.head_dim);
    if (family.qk_norm) b.attention.k_norm = norm(".self_attn.k_norm", shape.head_dim);
    b.attention.options.scale = 1.0f / std::sqrt(static_cast<float>(config.positive_or("query_pre_attn_scalar", 256)));
    if (family.caps_scores) {
      b.attention.options.softcap = static_cast<float>(config.number_or("attn_logit_softcapping", 0));
    }
    b.post_attention_norm = norm(".post_attention_layernorm", shape.hidden_size);
    b.pre_mlp_norm = norm(".pre_feedforward_layernorm", shape.hidden_size);
    b.mlp = load_gated_mlp(loader, at + ".mlp", shape, activation);
    b.post_mlp_norm = norm(".post_feedforward_layernorm", shape.hidden_size);
    return b;
  }

  Tensor embed(const EmbedCall& call) const override {
    return scale(embedding(call.ids, embedding_, call.tape), scale_, call.tape);
  }

  Tensor run_layer(const Tensor& input, const LayerCall& call) const override {
    const Block& b = blocks_[static_cast<size_t>(call.layer)];
    Tape* tape = call.tape;
    const Tensor attended = self_attention(normalize(input, b.input_norm, tape), b.attention, call);
    Tensor h = add(normalize(attended, b.post_attention_norm, tape), input, tape);
    const Tensor mlp = gated_mlp(normalize(h, b.pre_mlp_norm, tape), b.mlp, call);
    return add(std::move(h), normalize(mlp, b.post_mlp_norm, tape), tape);
  }

  Tensor logits(const Tensor& hidden, Tape* tape) const override {
    Tensor out = Decoder::logits(hidden, tape);
    return logits_cap_ > 0 && info().predicts_text() ? softcap(std::move(out), logits_cap_, tape) : out;
  }

  void visit_layers(ParameterVisitor& visitor) override {
    for (Block& b : blocks_) {
      nibble::visit(visitor, b.input_norm);
      nibble::visit(visitor, b.attention);
      nibble::visit(visitor, b.post_attention_norm);
      nibble::visit(visitor, b.pre_mlp_norm);
      nibble::visit(visitor, b.mlp);
      nibble::visit(visitor, b.post_mlp_norm);
    }
  }

  float scale_ = 1.0f;
  float logits_cap_;
  std::vector<Block> blocks_;
};

std::unique_ptr<Model> build_text(const Json& json, const std::string& where, const std::string& prefix,
                                  Loader& loader) {
  const std::string type = ConfigReader(json, where).text_or("model_type", "gemma3_text");
  for (const Family& family : kFamilies) {
    if (family.model_type != type) continue;
    const Json full = with_defaults(json, family.defaults);
    const ConfigReader config(full, where);
    if (config.flag_or("use_bidirectional_attention", false)) {
      fail(ErrorCode::unsupported, config.at("use_bidirectional_attention") + ": is true, only false is supported");
    }
    return std::make_unique<Gemma>(config, family, prefix, loader);
  }
  fail(ErrorCode::format, where + ": model_type: found '" + type + "', expected gemma2 or gemma3_text");
}

}  // namespace

std::unique_ptr<Model> build_gemma(const Json& json, const std::string& where, Loader& loader) {
  if (ConfigReader(json, where).text_or("model_type", "") != "gemma3") {
    return build_text(json, where, "model.", loader);
  }
  // Gemma 3 with a vision tower, of which the text part is used.
  if (architecture_of(ConfigReader(json, where)).ends_with(kClassifierClass)) {
    fail(ErrorCode::unsupported, where + ": architectures: gemma3 is supported for text, not for classification");
  }
  const Json* text = json.find_value("text_config");
  if (text == nullptr) fail(ErrorCode::format, where + ": text_config: is missing");
  text->as_object(where + ": text_config");
  const std::string prefix = "language_model.model.", newer = "model.language_model.";
  return build_text(*text, where + ": text_config", loader.has(prefix + "embed_tokens.weight") ? prefix : newer,
                    loader);
}

}  // namespace nibble
