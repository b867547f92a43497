// Phi-3, arXiv 2404.14219: as Llama, but q, k and v are one matrix, and gate and up are one; its long variants rotate
// by LongRoPE, Phi-4-mini's only a part of each head.
#include "models/phi3.h"

#include <cmath>

#include "models/blocks.h"
#include "ops/linear.h"

namespace nibble {
namespace {

struct Block {
  Norm input_norm, post_norm;
  Linear qkv, o, gate_up, down;
  AttentionOptions attention;
};

class Phi3 final : public Decoder {
 public:
  Phi3(const ConfigReader& config, const DecoderShape& shape, Loader& loader)
      : Decoder(rotary_decoder_info(config, shape), {read_rope(config, shape)}, loader), shape_(shape) {
    load_embedding(loader, "model.embed_tokens", shape);
    for (int64_t i = 0; i < shape.layers; ++i) {
      blocks_.push_back(load_block("model.layers." + std::to_string(i), loader));
      blocks_.back().attention.window = layer_window(config, i, shape.layers);
    }
    norm_ = load_rms_norm(loader, "model.norm", shape.hidden_size, shape.norm_eps);
    load_head(loader, shape);
  }

 private:
  int64_t q_width() const { return shape_.heads * shape_.head_dim; }
  int64_t kv_width() const { return shape_.kv_heads * shape_.head_dim; }

  Block load_block(const std::string& at, Loader& loader) const {
    const int64_t hidden = shape_.hidden_size, inner = shape_.intermediate_size;
    Block b;
    b.input_norm = load_rms_norm(loader, at + ".input_layernorm", hidden, shape_.norm_eps);
    b.qkv = loader.linear(at + ".self_attn.qkv_proj", q_width() + 2 * kv_width(), hidden);
    b.o = loader.linear(at + ".self_attn.o_proj", hidden, q_width());
    b.post_norm = load_rms_norm(loader, at + ".post_attention_layernorm", hidden, shape_.norm_eps);
    b.gate_up = loader.linear(at + ".mlp.gate_up_proj", 2 * inner, hidden);
    b.down = loader.linear(at + ".mlp.down_proj", hidden, inner);
    b.attention = {.heads = shape_.heads, .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim))};
    return b;
  }

  Tensor run_layer(const Tensor& input, const LayerCall& call) const override {
    const Block& b = blocks_[static_cast<size_t>(call.layer)];
    Tape* tape = call.tape;
    const int64_t k_begin = q_width(), v_begin = k_begin + kv_width(), inner = shape_.intermediate_size;
    const Tensor qkv = linear(normalize(input, b.input_norm, tape), b.qkv, call.state.compute, tape);
    const Tensor mixed = attend(slice_columns(qkv, 0, k_begin, tape), slice_columns(qkv, k_begin, v_begin, tape),
                                slice_columns(qkv, v_begin, qkv.cols(), tape), &call.state.ropes[0], b.attention, call);
    Tensor h = add(linear(mixed, b.o, call.state.compute, tape), input, tape);
    const Tensor gate_up = linear(normalize(h, b.post_norm, tape), b.gate_up, call.state.compute, tape);
    const Tensor gated =
        silu_mul(slice_columns(gate_up, 0, inner, tape), slice_columns(gate_up, inner, 2 * inner, tape), tape);
    return add(std::move(h), linear(gated, b.down, call.state.compute, tape), tape);
  }

  void visit_layers(ParameterVisitor& visitor) override {
    for (Block& b : blocks_) {
      nibble::visit(visitor, b.input_norm);
      visitor.linear(b.qkv);
      visitor.linear(b.o);
      nibble::visit(visitor, b.post_norm);
      visitor.linear(b.gate_up);
      visitor.linear(b.down);
    }
  }

  DecoderShape shape_;
  std::vector<Block> blocks_;
};

}  // namespace

std::unique_ptr<Model> build_phi3(const Json& json, const std::string& where, Loader& loader) {
  const Json full = with_defaults(json, R"({"rms_norm_eps": 1e-5, "max_position_embeddings": 4096,
                                            "original_max_position_embeddings": 4096})");
  const ConfigReader config(full, where);
  require_silu(config);
  return std::make_unique<Phi3>(config, read_decoder_shape(config), loader);
}

}  // namespace nibble
