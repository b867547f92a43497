// OPT (arXiv 2205.01068): learned positions, LayerNorm before each half of a block, an MLP without gate, and the head
// tied to the embeddings. OPT 350M has its norms behind the halves, none at the end, and words narrower than the rest.
//
//   h = project_in(words(ids)) + positions(position + 2)
//   for each block:  h += out_proj(attention(q(norm(h)), k(norm(h)), v(norm(h))));  h += fc2(relu(fc1(norm(h))))
//   logits = project_out(norm(h)) words^T
#include "models/opt.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/limits.h"
#include "models/blocks.h"
#include "ops/linear.h"

namespace nibble {
namespace {

constexpr int64_t kMaxWidth = int64_t{1} << 24;
constexpr int64_t kPositionOffset = 2;  // the first two rows are left over from fairseq's padding
constexpr float kNormEps = 1e-5f;       // the configuration has no key for it

constexpr std::string_view kDefaults = R"({"vocab_size": 50272, "max_position_embeddings": 2048, "hidden_size": 768,
  "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072, "activation_function": "relu",
  "tie_word_embeddings": true})";

/// OPT's own names for what read_decoder_shape() reads.
DecoderShape read_shape(const ConfigReader& config) {
  DecoderShape s = {};
  s.vocab_size = config.integer("vocab_size", 1, limits::kMaxVocabulary);
  s.hidden_size = config.integer("hidden_size", 1, kMaxWidth);
  s.intermediate_size = config.integer("ffn_dim", 1, kMaxWidth);
  s.layers = config.integer("num_hidden_layers", 1, limits::kMaxLayers);
  s.heads = s.kv_heads = config.integer("num_attention_heads", 1, limits::kMaxHeads);
  s.context_length = config.integer("max_position_embeddings", 1, int64_t{1} << 31);
  s.norm_eps = kNormEps;
  s.tie_word_embeddings = config.flag_or("tie_word_embeddings", true);
  if (s.hidden_size % s.heads != 0) {
    fail(ErrorCode::format, config.at("num_attention_heads") + ": " + std::to_string(s.heads) +
                                " does not divide hidden_size " + std::to_string(s.hidden_size));
  }
  s.head_dim = s.hidden_size / s.heads;
  return s;
}

struct Block {
  Norm attention_norm, mlp_norm;
  SelfAttention attention;
  Linear up, down;
};

class Opt final : public Decoder {
 public:
  Opt(const ConfigReader& config, const DecoderShape& shape, Loader& loader)
      : Decoder(decoder_info(config, shape), {}, loader),
        activation_(parse_activation(config.text_or("activation_function", ""), config.at("activation_function"))),
        norms_before_(config.flag_or("do_layer_norm_before", true)),
        trained_norms_(config.flag_or("layer_norm_elementwise_affine", true)),
        bias_(config.flag_or("enable_bias", true) ? Loader::Bias::yes : Loader::Bias::no) {
    // Files of the model without its head have no "model.".
    const std::string at = loader.has("model.decoder.embed_tokens.weight") ? "model.decoder." : "decoder.";
    DecoderShape words = shape;
    words.hidden_size = config.integer_or("word_embed_proj_dim", shape.hidden_size, 1, kMaxWidth);
    load_embedding(loader, at + "embed_tokens", words);
    positions_ = loader.embedding(at + "embed_positions", shape.context_length + kPositionOffset, shape.hidden_size);
    is_projected_ = words.hidden_size != shape.hidden_size;
    if (is_projected_) {
      project_in_ = loader.linear(at + "project_in", shape.hidden_size, words.hidden_size);
      project_out_ = loader.linear(at + "project_out", words.hidden_size, shape.hidden_size);
    }
    for (int64_t i = 0; i < shape.layers; ++i) {
      blocks_.push_back(load_block(at + "layers." + std::to_string(i), shape, loader));
    }
    has_last_norm_ = norms_before_ && !config.flag_or("_remove_final_layer_norm", false);
    if (has_last_norm_) norm_ = load_norm(at + "final_layer_norm", shape, loader);
    load_head(loader, words);
  }

 private:
  Norm load_norm(const std::string& module, const DecoderShape& shape, Loader& loader) const {
    if (trained_norms_) return load_layer_norm(loader, module, shape.hidden_size, shape.norm_eps);
    const Shape width = {shape.hidden_size};
    Norm norm = {.name = "", .weight = Tensor(DType::f32, width), .bias = Tensor(DType::f32, width), .eps = kNormEps};
    std::fill_n(norm.weight.f32(), shape.hidden_size, 1.0f);
    return norm;
  }

  Block load_block(const std::string& at, const DecoderShape& shape, Loader& loader) const {
    const int64_t hidden = shape.hidden_size, inner = shape.intermediate_size;
    const auto projection = [&](const char* name) {
      return loader.linear(at + ".self_attn." + name, hidden, hidden, bias_);
    };
    Block b;
    b.attention.q = projection("q_proj");
    b.attention.k = projection("k_proj");
    b.attention.v = projection("v_proj");
    b.attention.o = projection("out_proj");
    b.attention.rope = kNoRope;
    b.attention.options = {.heads = shape.heads, .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
    b.attention_norm = load_norm(at + ".self_attn_layer_norm", shape, loader);
    b.up = loader.linear(at + ".fc1", inner, hidden, bias_);
    b.down = loader.linear(at + ".fc2", hidden, inner, bias_);
    b.mlp_norm = load_norm(at + ".final_layer_norm", shape, loader);
    return b;
  }

  Tensor embed(const EmbedCall& call) const override {
    Tensor words = Decoder::embed(call);
    if (is_projected_) words = linear(words, project_in_, call.state.compute, call.tape);
    return add(std::move(words), learned_positions(call, positions_, kPositionOffset), call.tape);
  }

  Tensor run_layer(const Tensor& input, const LayerCall& call) const override {
    const Block& b = blocks_[static_cast<size_t>(call.layer)];
    const auto before = [&](const Tensor& x, const Norm& norm) {
      return norms_before_ ? normalize(x, norm, call.tape) : x;
    };
    const auto behind = [&](Tensor&& x, const Norm& norm) {
      return norms_before_ ? std::move(x) : normalize(x, norm, call.tape);
    };
    Tensor h = behind(add(self_attention(before(input, b.attention_norm), b.attention, call), input, call.tape),
                      b.attention_norm);
    const Tensor inner =
        activate(activation_, linear(before(h, b.mlp_norm), b.up, call.state.compute, call.tape), call.tape);
    const Tensor mlp = linear(inner, b.down, call.state.compute, call.tape);
    return behind(add(std::move(h), mlp, call.tape), b.mlp_norm);
  }

  Tensor finish(const Tensor& h, const PassState& state, Tape* tape) const override {
    const Tensor last = has_last_norm_ ? normalize(h, norm_, tape) : h;
    return is_projected_ ? linear(last, project_out_, state.compute, tape) : last;
  }

  void visit_layers(ParameterVisitor& visitor) override {
    visitor.embedding(positions_);
    if (is_projected_) {
      visitor.linear(project_in_);
      visitor.linear(project_out_);
    }
    for (Block& b : blocks_) {
      nibble::visit(visitor, b.attention);
      nibble::visit(visitor, b.attention_norm);
      visitor.linear(b.up);
      visitor.linear(b.down);
      nibble::visit(visitor, b.mlp_norm);
    }
  }

  Activation activation_;
  bool norms_before_, trained_norms_;
  Loader::Bias bias_;
  bool is_projected_ = false, has_last_norm_ = false;
  Embedding positions_;              // [context_length + 2, hidden]
  Linear project_in_, project_out_;  // between the words' width and hidden
  std::vector<Block> blocks_;
};

}  // namespace

std::unique_ptr<Model> build_opt(const Json& json, const std::string& where, Loader& loader) {
  const Json full = with_defaults(json, kDefaults);
  const ConfigReader config(full, where);
  return std::make_unique<Opt>(config, read_shape(config), loader);
}

}  // namespace nibble
