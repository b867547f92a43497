// The Llama family: RMSNorm before each half of a block, rotary positions, grouped key heads, SwiGLU. Mistral, Qwen 2,
// Qwen 3 and SmolLM 3 differ by what the rows of kFamilies say.
//
//   h = embed(ids)
//   for each block:  h += o(attention(rope(q(norm(h))), rope(k(norm(h))), v(norm(h))));  h += down(silu(gate(n)) *
//   up(n)) logits = head(norm(h))
#include "models/llama.h"

#include <cmath>
#include <utility>

#include "core/error.h"
#include "models/decoder.h"
#include "ops/attention.h"
#include "ops/elementwise.h"
#include "ops/linear.h"

namespace nibble {
namespace {

struct Family {
  std::string_view model_type;
  bool qkv_bias;        // q, k and v have biases whatever the configuration says
  bool config_biases;   // attention_bias and mlp_bias of the configuration count
  bool qk_norm;         // RMSNorm over each head of q and k before rope
  bool window;          // sliding_window counts
  bool no_rope_layers;  // some layers go without positions
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
     .no_rope_layers = false},
    {.model_type = "qwen2",
     .qkv_bias = true,
     .config_biases = false,
     .qk_norm = false,
     .window = true,
     .no_rope_layers = false},
    {.model_type = "qwen3",
     .qkv_bias = false,
     .config_biases = true,
     .qk_norm = true,
     .window = true,
     .no_rope_layers = false},
    {.model_type = "smollm3",
     .qkv_bias = false,
     .config_biases = true,
     .qk_norm = false,
     .window = true,
     .no_rope_layers = true},
};

struct Block {
  Tensor input_norm, post_norm, q_norm, k_norm;
  Linear q, k, v, o, gate, up, down;
  bool rope = true;
  int64_t window = 0;
};

class Llama final : public Model {
 public:
  Llama(const ConfigReader& config, const Family& family, const DecoderShape& shape, Loader& loader)
      : Model(decoder_info(config, shape)), shape_(shape), rope_(read_rope(config, shape)), compute_(loader.compute()) {
    embedding_ = loader.embedding("model.embed_tokens.weight", shape.vocab_size, shape.hidden_size);
    for (int64_t i = 0; i < shape.layers; ++i) blocks_.push_back(load_block(config, family, i, loader));
    norm_ = loader.vector("model.norm.weight", shape.hidden_size);
    if (!shape.tie_word_embeddings) head_ = loader.head("lm_head", shape.vocab_size, shape.hidden_size);
    if (shape.tie_word_embeddings) head_ = {.name = "model.embed_tokens", .weight = embedding_, .bias = {}};
  }

  Tensor hidden(const Batch& batch, KvCache* cache, Tape* tape) const override {
    const auto tokens = static_cast<int64_t>(batch.ids.size());
    KvCache own = cache ? KvCache(0, 1, 2, 0) : new_cache(tokens);
    KvCache& past = cache ? *cache : own;
    if (past.length() + tokens > past.capacity()) {
      fail(ErrorCode::invalid_argument, "context: " + std::to_string(past.length() + tokens) +
                                            " positions, the cache has room for " + std::to_string(past.capacity()));
    }
    Tensor h = embedding(batch.ids, embedding_);
    if (tape) tape->keep("hidden.0", h);
    const RopeTable positions = rope_table(rope_, past.length(), tokens);
    for (size_t i = 0; i < blocks_.size(); ++i) {
      h = run_block(blocks_[i], static_cast<int64_t>(i), h, positions, past);
      if (tape && i + 1 < blocks_.size()) tape->keep("hidden." + std::to_string(i + 1), h);
    }
    past.advance(tokens);
    h = rms_norm(h, norm_, shape_.rms_norm_eps);
    if (tape) tape->keep("hidden." + std::to_string(blocks_.size()), h);
    return h;
  }

  Tensor logits(const Tensor& hidden) const override { return linear(hidden, head_, compute_); }

 private:
  Block load_block(const ConfigReader& config, const Family& family, int64_t index, Loader& loader) const {
    const std::string at = "model.layers." + std::to_string(index);
    const int64_t hidden = shape_.hidden_size, inner = shape_.intermediate_size;
    const int64_t q_width = shape_.heads * shape_.head_dim, kv_width = shape_.kv_heads * shape_.head_dim;
    const bool all_biases = family.config_biases && config.flag_or("attention_bias", false);
    const bool mlp_biases = family.config_biases && config.flag_or("mlp_bias", false);
    const auto bias = [](bool wanted) { return wanted ? Loader::Bias::yes : Loader::Bias::no; };
    Block b;
    b.input_norm = loader.vector(at + ".input_layernorm.weight", hidden);
    b.q = loader.linear(at + ".self_attn.q_proj", q_width, hidden, bias(all_biases || family.qkv_bias));
    b.k = loader.linear(at + ".self_attn.k_proj", kv_width, hidden, bias(all_biases || family.qkv_bias));
    b.v = loader.linear(at + ".self_attn.v_proj", kv_width, hidden, bias(all_biases || family.qkv_bias));
    b.o = loader.linear(at + ".self_attn.o_proj", hidden, q_width, bias(all_biases));
    if (family.qk_norm) {
      b.q_norm = loader.vector(at + ".self_attn.q_norm.weight", shape_.head_dim);
      b.k_norm = loader.vector(at + ".self_attn.k_norm.weight", shape_.head_dim);
    }
    b.post_norm = loader.vector(at + ".post_attention_layernorm.weight", hidden);
    b.gate = loader.linear(at + ".mlp.gate_proj", inner, hidden, bias(mlp_biases));
    b.up = loader.linear(at + ".mlp.up_proj", inner, hidden, bias(mlp_biases));
    b.down = loader.linear(at + ".mlp.down_proj", hidden, inner, bias(mlp_biases));
    b.rope = !family.no_rope_layers || layer_has_rope(config, index);
    b.window = family.window ? layer_window(config, index, shape_.layers) : 0;
    return b;
  }

  Tensor run_block(const Block& b, int64_t index, const Tensor& input, const RopeTable& positions,
                   KvCache& cache) const {
    const float eps = shape_.rms_norm_eps;
    const Tensor n = rms_norm(input, b.input_norm, eps);
    Tensor q = linear(n, b.q, compute_), k = linear(n, b.k, compute_);
    if (!b.q_norm.empty()) {
      q = rms_norm(q, b.q_norm, eps);
      k = rms_norm(k, b.k_norm, eps);
    }
    if (b.rope) {
      apply_rope(q, shape_.head_dim, positions);
      apply_rope(k, shape_.head_dim, positions);
    }
    cache.write(index, k, linear(n, b.v, compute_));
    const AttentionOptions options = {
        .heads = shape_.heads, .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)), .window = b.window};
    Tensor h = linear(attention(q, cache, index, options), b.o, compute_);
    add_in_place(h, input);
    const Tensor m = rms_norm(h, b.post_norm, eps);
    add_in_place(h, linear(silu_mul(linear(m, b.gate, compute_), linear(m, b.up, compute_)), b.down, compute_));
    return h;
  }

  DecoderShape shape_;
  RopeConfig rope_;
  ComputeOptions compute_;
  Weight embedding_;
  std::vector<Block> blocks_;
  Tensor norm_;
  Linear head_;
};

}  // namespace

std::unique_ptr<Model> build_llama(const Json& json, const std::string& where, Loader& loader) {
  const ConfigReader config(json, where);
  const std::string type = config.text_or("model_type", "");
  for (const Family& family : kFamilies) {
    if (family.model_type != type) continue;
    if (const std::string act = config.text_or("hidden_act", "silu"); act != "silu") {
      fail(ErrorCode::unsupported, config.at("hidden_act") + ": '" + act + "', expected silu");
    }
    return std::make_unique<Llama>(config, family, read_decoder_shape(config), loader);
  }
  fail(ErrorCode::internal, "build_llama: " + type);
}

}  // namespace nibble
