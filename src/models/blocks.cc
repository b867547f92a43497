#include "models/blocks.h"

#include <cmath>

#include "core/error.h"

namespace nibble {
namespace {

Loader::Bias bias_if(bool wanted) { return wanted ? Loader::Bias::yes : Loader::Bias::no; }

}  // namespace

Norm load_rms_norm(Loader& loader, const std::string& module, int64_t count, float eps) {
  return {.weight = loader.vector(module + ".weight", count), .bias = {}, .eps = eps};
}

Norm load_layer_norm(Loader& loader, const std::string& module, int64_t count, float eps) {
  return {
      .weight = loader.vector(module + ".weight", count), .bias = loader.vector(module + ".bias", count), .eps = eps};
}

Tensor normalize(const Tensor& x, const Norm& norm) {
  return norm.bias.empty() ? rms_norm(x, norm.weight, norm.eps) : layer_norm(x, norm.weight, norm.bias, norm.eps);
}

Tensor Decoder::hidden(const Batch& batch, KvCache* cache, Tape* tape) const {
  const auto tokens = static_cast<int64_t>(batch.ids.size());
  KvCache own = cache ? KvCache(0, 1, 2, 0) : new_cache(tokens);
  KvCache& past = cache ? *cache : own;
  if (past.length() + tokens > past.capacity()) {
    fail(ErrorCode::invalid_argument, "context: " + std::to_string(past.length() + tokens) +
                                          " positions, the cache has room for " + std::to_string(past.capacity()));
  }
  std::vector<RopeTable> ropes;
  for (const RopeConfig& rope : ropes_) ropes.push_back(rope_table(rope, past.length(), tokens, past.capacity()));
  Tensor h = embed(batch.ids, past.length());
  for (int64_t i = 0; i < info().layers; ++i) {
    if (tape) tape->keep("hidden." + std::to_string(i), h);
    h = run_layer(h, {.layer = i, .ropes = ropes, .cache = past, .compute = compute_});
  }
  past.advance(tokens);
  h = normalize(h, norm_);
  if (tape) tape->keep("hidden." + std::to_string(info().layers), h);
  return h;
}

Tensor Decoder::logits(const Tensor& hidden) const { return linear(hidden, head_, compute_); }

void Decoder::load_embedding(Loader& loader, const std::string& module, const DecoderShape& shape) {
  embedding_ = loader.embedding(module + ".weight", shape.vocab_size, shape.hidden_size);
}

void Decoder::load_head(Loader& loader, const DecoderShape& shape) {
  if (shape.tie_word_embeddings) {
    head_ = {.name = "lm_head", .weight = embedding_, .bias = {}};
  } else {
    head_ = loader.head("lm_head", shape.vocab_size, shape.hidden_size);
  }
}

Tensor Decoder::embed(std::span<const int32_t> ids, int64_t) const { return embedding(ids, embedding_); }

Tensor attend(Tensor q, Tensor k, const Tensor& v, const RopeTable* rope, const AttentionOptions& options,
              const LayerCall& call) {
  if (rope) {
    apply_rope(q, call.cache.head_dim(), *rope);
    apply_rope(k, call.cache.head_dim(), *rope);
  }
  call.cache.write(call.layer, k, v);
  return attention(q, call.cache, call.layer, options);
}

SelfAttention load_self_attention(Loader& loader, const std::string& module, const DecoderShape& shape,
                                  AttentionBiases biases) {
  const int64_t q_width = shape.heads * shape.head_dim, kv_width = shape.kv_heads * shape.head_dim;
  SelfAttention layer;
  layer.q = loader.linear(module + ".q_proj", q_width, shape.hidden_size, bias_if(biases.qkv));
  layer.k = loader.linear(module + ".k_proj", kv_width, shape.hidden_size, bias_if(biases.qkv));
  layer.v = loader.linear(module + ".v_proj", kv_width, shape.hidden_size, bias_if(biases.qkv));
  layer.o = loader.linear(module + ".o_proj", shape.hidden_size, q_width, bias_if(biases.o));
  layer.options = {.heads = shape.heads, .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
  return layer;
}

Tensor self_attention(const Tensor& x, const SelfAttention& layer, const LayerCall& call) {
  Tensor q = linear(x, layer.q, call.compute), k = linear(x, layer.k, call.compute);
  if (!layer.q_norm.weight.empty()) {
    q = normalize(q, layer.q_norm);
    k = normalize(k, layer.k_norm);
  }
  const RopeTable* rope = layer.rope == kNoRope ? nullptr : &call.ropes[static_cast<size_t>(layer.rope)];
  const Tensor mixed = attend(std::move(q), std::move(k), linear(x, layer.v, call.compute), rope, layer.options, call);
  return linear(mixed, layer.o, call.compute);
}

GatedMlp load_gated_mlp(Loader& loader, const std::string& module, const DecoderShape& shape, Activation activation,
                        Loader::Bias bias) {
  GatedMlp mlp;
  mlp.gate = loader.linear(module + ".gate_proj", shape.intermediate_size, shape.hidden_size, bias);
  mlp.up = loader.linear(module + ".up_proj", shape.intermediate_size, shape.hidden_size, bias);
  mlp.down = loader.linear(module + ".down_proj", shape.hidden_size, shape.intermediate_size, bias);
  mlp.activation = activation;
  return mlp;
}

Tensor gated_mlp(const Tensor& x, const GatedMlp& mlp, const ComputeOptions& compute) {
  Tensor gate = linear(x, mlp.gate, compute);
  const Tensor up = linear(x, mlp.up, compute);
  if (mlp.activation == Activation::silu) return linear(silu_mul(gate, up), mlp.down, compute);
  activate(mlp.activation, gate);
  multiply_in_place(gate, up);
  return linear(gate, mlp.down, compute);
}

}  // namespace nibble
