// OLMo 2, arXiv 2501.00656: as Llama, but the norms follow the attention and the MLP instead of preceding them, and q
// and k are normalized over their full width.
//
//   for each block:  h += norm(o(attention(rope(norm(q(h))), rope(norm(k(h))), v(h))))
//                    h += norm(down(silu(gate(h)) * up(h)))
#include "models/olmo2.h"

#include "models/blocks.h"

namespace nibble {
namespace {

struct Block {
  SelfAttention attention;
  GatedMlp mlp;
  Norm attention_norm, mlp_norm;
};

class Olmo2 final : public Decoder {
 public:
  Olmo2(const ConfigReader& config, const DecoderShape& shape, Loader& loader)
      : Decoder(rotary_decoder_info(config, shape), {read_rope(config, shape)}, loader) {
    load_embedding(loader, "model.embed_tokens", shape);
    const bool biases = config.flag_or("attention_bias", false);
    for (int64_t i = 0; i < shape.layers; ++i) {
      blocks_.push_back(load_block("model.layers." + std::to_string(i), shape, biases, loader));
    }
    norm_ = load_rms_norm(loader, "model.norm", shape.hidden_size, shape.norm_eps);
    load_head(loader, shape);
  }

 private:
  static Block load_block(const std::string& at, const DecoderShape& shape, bool biases, Loader& loader) {
    const std::string attention = at + ".self_attn";
    Block b;
    b.attention = load_self_attention(loader, attention, shape, {.qkv = biases, .o = biases});
    b.attention.q_norm = load_rms_norm(loader, attention + ".q_norm", shape.heads * shape.head_dim, shape.norm_eps);
    b.attention.k_norm = load_rms_norm(loader, attention + ".k_norm", shape.kv_heads * shape.head_dim, shape.norm_eps);
    b.attention_norm = load_rms_norm(loader, at + ".post_attention_layernorm", shape.hidden_size, shape.norm_eps);
    b.mlp = load_gated_mlp(loader, at + ".mlp", shape, Activation::silu);
    b.mlp_norm = load_rms_norm(loader, at + ".post_feedforward_layernorm", shape.hidden_size, shape.norm_eps);
    return b;
  }

  Tensor run_layer(const Tensor& input, const LayerCall& call) const override {
    const Block& b = blocks_[static_cast<size_t>(call.layer)];
    Tape* tape = call.tape;
    Tensor h = add(normalize(self_attention(input, b.attention, call), b.attention_norm, tape), input, tape);
    const Tensor mlp = normalize(gated_mlp(h, b.mlp, call), b.mlp_norm, tape);
    return add(std::move(h), mlp, tape);
  }

  void visit_layers(ParameterVisitor& visitor) override {
    for (Block& b : blocks_) {
      nibble::visit(visitor, b.attention);
      nibble::visit(visitor, b.attention_norm);
      nibble::visit(visitor, b.mlp);
      nibble::visit(visitor, b.mlp_norm);
    }
  }

  std::vector<Block> blocks_;
};

}  // namespace

std::unique_ptr<Model> build_olmo2(const Json& json, const std::string& where, Loader& loader) {
  const Json full = with_defaults(json, R"({"rms_norm_eps": 1e-5})");
  const ConfigReader config(full, where);
  require_silu(config);
  return std::make_unique<Olmo2>(config, read_decoder_shape(config), loader);
}

}  // namespace nibble
