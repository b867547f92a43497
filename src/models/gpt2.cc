// GPT-2: learned positions, LayerNorm before each half of a block, q, k and v in one matrix, an MLP without gate, and
// the head tied to the embeddings. Dense files hold the Linear matrices as [in, out].
//
//   h = wte(ids) + wpe(positions)
//   for each block:  h += c_proj(attention(split(c_attn(norm(h)))));  h += c_proj(gelu(c_fc(norm(h))))
//   logits = norm(h) wte^T
#include "models/gpt2.h"

#include <cmath>

#include "core/error.h"
#include "core/limits.h"
#include "models/blocks.h"
#include "ops/linear.h"

namespace nibble {
namespace {

constexpr int64_t kMaxWidth = int64_t{1} << 24;

constexpr std::string_view kDefaults = R"({"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12,
  "n_head": 12, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true})";

/// GPT-2's own names for what read_decoder_shape() reads.
DecoderShape read_shape(const ConfigReader& config) {
  DecoderShape s = {};
  s.vocab_size = config.integer("vocab_size", 1, limits::kMaxVocabulary);
  s.hidden_size = config.integer("n_embd", 1, kMaxWidth);
  s.intermediate_size = config.integer_or("n_inner", 4 * s.hidden_size, 1, kMaxWidth);
  s.layers = config.integer("n_layer", 1, limits::kMaxLayers);
  s.heads = s.kv_heads = config.integer("n_head", 1, limits::kMaxHeads);
  s.context_length = config.integer("n_positions", 1, int64_t{1} << 31);
  s.norm_eps = static_cast<float>(config.positive_or("layer_norm_epsilon", 1e-5));
  s.tie_word_embeddings = config.flag_or("tie_word_embeddings", true);
  if (s.hidden_size % s.heads != 0) {
    fail(ErrorCode::format, config.at("n_head") + ": " + std::to_string(s.heads) + " does not divide n_embd " +
                                std::to_string(s.hidden_size));
  }
  s.head_dim = s.hidden_size / s.heads;
  return s;
}

/// What the scores are multiplied with: 1 / sqrt(head_dim), and 1 / (layer + 1) where the configuration wants it.
float attention_scale(const ConfigReader& config, const DecoderShape& shape, int64_t layer) {
  float scale = 1.0f;
  if (config.flag_or("scale_attn_weights", true)) scale /= std::sqrt(static_cast<float>(shape.head_dim));
  if (config.flag_or("scale_attn_by_inverse_layer_idx", false)) scale /= static_cast<float>(layer + 1);
  return scale;
}

struct Block {
  Norm attention_norm, mlp_norm;
  Linear qkv, o, up, down;
  AttentionOptions attention;
};

class Gpt2 final : public Decoder {
 public:
  Gpt2(const ConfigReader& config, const DecoderShape& shape, Loader& loader)
      : Decoder(decoder_info(config, shape), {}, loader),
        activation_(parse_activation(config.text_or("activation_function", ""), config.at("activation_function"))) {
    // Files of the model without its head, like OpenAI's own, have no prefix.
    const std::string prefix = loader.has("transformer.wte.weight") ? "transformer." : "";
    load_embedding(loader, prefix + "wte", shape);
    positions_ = loader.embedding(prefix + "wpe", shape.context_length, shape.hidden_size);
    for (int64_t i = 0; i < shape.layers; ++i) {
      blocks_.push_back(load_block(prefix + "h." + std::to_string(i), shape, loader));
      blocks_.back().attention = {.heads = shape.heads, .scale = attention_scale(config, shape, i)};
    }
    norm_ = load_layer_norm(loader, prefix + "ln_f", shape.hidden_size, shape.norm_eps);
    load_head(loader, shape);
  }

 private:
  static Block load_block(const std::string& at, const DecoderShape& shape, Loader& loader) {
    const int64_t hidden = shape.hidden_size, inner = shape.intermediate_size;
    Block b;
    b.attention_norm = load_layer_norm(loader, at + ".ln_1", hidden, shape.norm_eps);
    b.qkv = loader.conv1d(at + ".attn.c_attn", 3 * hidden, hidden);
    b.o = loader.conv1d(at + ".attn.c_proj", hidden, hidden);
    b.mlp_norm = load_layer_norm(loader, at + ".ln_2", hidden, shape.norm_eps);
    b.up = loader.conv1d(at + ".mlp.c_fc", inner, hidden);
    b.down = loader.conv1d(at + ".mlp.c_proj", hidden, inner);
    return b;
  }

  Tensor embed(const EmbedCall& call) const override {
    return add(Decoder::embed(call), learned_positions(call, positions_, 0), call.tape);
  }

  Tensor run_layer(const Tensor& input, const LayerCall& call) const override {
    const Block& b = blocks_[static_cast<size_t>(call.layer)];
    Tape* tape = call.tape;
    const int64_t width = input.cols();
    const Tensor qkv = linear(normalize(input, b.attention_norm, tape), b.qkv, call.state.compute, tape);
    const Tensor mixed = attend(slice_columns(qkv, 0, width, tape), slice_columns(qkv, width, 2 * width, tape),
                                slice_columns(qkv, 2 * width, 3 * width, tape), nullptr, b.attention, call);
    Tensor h = add(linear(mixed, b.o, call.state.compute, tape), input, tape);
    const Tensor inner =
        activate(activation_, linear(normalize(h, b.mlp_norm, tape), b.up, call.state.compute, tape), tape);
    return add(std::move(h), linear(inner, b.down, call.state.compute, tape), tape);
  }

  void visit_layers(ParameterVisitor& visitor) override {
    visitor.embedding(positions_);
    for (Block& b : blocks_) {
      nibble::visit(visitor, b.attention_norm);
      visitor.linear(b.qkv);
      visitor.linear(b.o);
      nibble::visit(visitor, b.mlp_norm);
      visitor.linear(b.up);
      visitor.linear(b.down);
    }
  }

  Activation activation_;
  Embedding positions_;  // [context_length, hidden]
  std::vector<Block> blocks_;
};

}  // namespace

std::unique_ptr<Model> build_gpt2(const Json& json, const std::string& where, Loader& loader) {
  const Json full = with_defaults(json, kDefaults);
  const ConfigReader config(full, where);
  if (config.flag_or("add_cross_attention", false)) {
    fail(ErrorCode::unsupported, config.at("add_cross_attention") + ": is true, only false is supported");
  }
  return std::make_unique<Gpt2>(config, read_shape(config), loader);
}

}  // namespace nibble
