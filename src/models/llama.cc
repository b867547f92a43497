// The Llama family: RMSNorm before each half of a block, rotary positions, grouped key heads, SwiGLU. Mistral, Qwen 2,
// Qwen 3 and SmolLM 3 differ by what the rows of kFamilies say.
//
//   h = embed(ids)
//   for each block:  h += o(attention(rope(q(norm(h))), rope(k(norm(h))), v(norm(h))))
//                    h += down(silu(gate(norm(h))) * up(norm(h)))
//   logits = head(norm(h))
#include "models/llama.h"

#include "core/error.h"
#include "models/blocks.h"

namespace nibble {
namespace {

struct Family {
  std::string_view model_type;
  bool qkv_bias;        // q, k and v have biases whatever the configuration says
  bool config_biases;   // attention_bias and mlp_bias of the configuration count
  bool qk_norm;         // RMSNorm over each head of q and k before rope
  bool window;          // sliding_window counts
  bool no_rope_layers;  // some layers go without positions
  std::string_view defaults = "{}";
};

constexpr Family kFamilies[] = {
    {.model_type = "llama",
     .qkv_bias = false,
     .config_biases = true,
     .qk_norm = false,
     .window = false,
     .no_rope_layers = false},
    {.model_type = "mistral",
     .qkv_bias = false,
     .config_biases = false,
     .qk_norm = false,
     .window = true,
     .no_rope_layers = false,
     .defaults = R"({"num_key_value_heads": 8})"},
    {.model_type = "qwen2",
     .qkv_bias = true,
     .config_biases = false,
     .qk_norm = false,
     .window = true,
     .no_rope_layers = false,
     .defaults = R"({"use_sliding_window": false})"},
    {.model_type = "qwen3",
     .qkv_bias = false,
     .config_biases = true,
     .qk_norm = true,
     .window = true,
     .no_rope_layers = false,
     .defaults = R"({"head_dim": 128, "use_sliding_window": false})"},
    {.model_type = "smollm3",
     .qkv_bias = false,
     .config_biases = true,
     .qk_norm = false,
     .window = true,
     .no_rope_layers = true,
     .defaults = R"({"num_key_value_heads": 4, "rope_theta": 2000000.0, "tie_word_embeddings": true,
       "use_sliding_window": false, "max_window_layers": 0})"},
};

struct Block {
  Norm input_norm, post_norm;
  SelfAttention attention;
  GatedMlp mlp;
};

class Llama final : public Decoder {
 public:
  Llama(const ConfigReader& config, const Family& family, const DecoderShape& shape, Loader& loader)
      : Decoder(rotary_decoder_info(config, shape), {read_rope(config, shape)}, loader) {
    load_embedding(loader, "model.embed_tokens", shape);
    for (int64_t i = 0; i < shape.layers; ++i) blocks_.push_back(load_block(config, family, shape, i, loader));
    norm_ = load_rms_norm(loader, "model.norm", shape.hidden_size, shape.norm_eps);
    load_head(loader, shape);
  }

 private:
  static Block load_block(const ConfigReader& config, const Family& family, const DecoderShape& shape, int64_t index,
                          Loader& loader) {
    const std::string at = "model.layers." + std::to_string(index);
    const bool all_biases = family.config_biases && config.flag_or("attention_bias", false);
    const bool mlp_biases = family.config_biases && config.flag_or("mlp_bias", false);
    Block b;
    b.input_norm = load_rms_norm(loader, at + ".input_layernorm", shape.hidden_size, shape.norm_eps);
    b.attention =
        load_self_attention(loader, at + ".self_attn", shape, {.qkv = all_biases || family.qkv_bias, .o = all_biases});
    if (family.qk_norm) {
      b.attention.q_norm = load_rms_norm(loader, at + ".self_attn.q_norm", shape.head_dim, shape.norm_eps);
      b.attention.k_norm = load_rms_norm(loader, at + ".self_attn.k_norm", shape.head_dim, shape.norm_eps);
    }
    if (family.no_rope_layers && !layer_has_rope(config, index)) b.attention.rope = kNoRope;
    // SmolLM 3's windows, where its layer_types do not say otherwise, are on layers without positions.
    const bool windowed =
        family.window && (!family.no_rope_layers || b.attention.rope == kNoRope || config.has("layer_types"));
    if (windowed) b.attention.options.window = layer_window(config, index, shape.layers);
    b.post_norm = load_rms_norm(loader, at + ".post_attention_layernorm", shape.hidden_size, shape.norm_eps);
    b.mlp =
        load_gated_mlp(loader, at + ".mlp", shape, Activation::silu, mlp_biases ? Loader::Bias::yes : Loader::Bias::no);
    return b;
  }

  Tensor run_layer(const Tensor& input, const LayerCall& call) const override {
    const Block& b = blocks_[static_cast<size_t>(call.layer)];
    Tape* tape = call.tape;
    Tensor h = add(self_attention(normalize(input, b.input_norm, tape), b.attention, call), input, tape);
    const Tensor mlp = gated_mlp(normalize(h, b.post_norm, tape), b.mlp, call);
    return add(std::move(h), mlp, tape);
  }

  void visit_layers(ParameterVisitor& visitor) override {
    for (Block& b : blocks_) {
      nibble::visit(visitor, b.input_norm);
      nibble::visit(visitor, b.attention);
      nibble::visit(visitor, b.post_norm);
      nibble::visit(visitor, b.mlp);
    }
  }

  std::vector<Block> blocks_;
};

}  // namespace

std::unique_ptr<Model> build_llama(const Json& json, const std::string& where, Loader& loader) {
  const std::string type = ConfigReader(json, where).text_or("model_type", "");
  for (const Family& family : kFamilies) {
    if (family.model_type != type) continue;
    const Json full = with_defaults(json, family.defaults);
    const ConfigReader config(full, where);
    require_silu(config);
    return std::make_unique<Llama>(config, family, read_decoder_shape(config), loader);
  }
  fail(ErrorCode::internal, "build_llama: " + type);
}

}  // namespace nibble
