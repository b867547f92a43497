#include "models/blocks.h"

#include <cmath>
#include <memory>
#include <numeric>

#include "core/error.h"
#include "ops/norm.h"

namespace nibble {
namespace {

Loader::Bias bias_if(bool wanted) { return wanted ? Loader::Bias::yes : Loader::Bias::no; }

std::vector<int32_t> positions_of(const PassState& state, int64_t tokens) {
  std::vector<int32_t> positions(static_cast<size_t>(tokens));
  if (state.cache) {
    std::iota(positions.begin(), positions.end(), static_cast<int32_t>(state.cache->length()));
    return positions;
  }
  auto at = positions.begin();
  for (const int64_t length : state.lengths) {
    std::iota(at, at + length, 0);
    at += length;
  }
  return positions;
}

}  // namespace

Norm load_rms_norm(Loader& loader, const std::string& module, int64_t count, float eps) {
  return {.name = module, .weight = loader.vector(module + ".weight", count), .bias = {}, .eps = eps};
}

Norm load_layer_norm(Loader& loader, const std::string& module, int64_t count, float eps) {
  return {.name = module,
          .weight = loader.vector(module + ".weight", count),
          .bias = loader.vector(module + ".bias", count),
          .eps = eps};
}

Tensor normalize(const Tensor& x, const Norm& norm, Tape* tape) {
  return norm.bias.empty() ? rms_norm(x, norm.weight, norm.eps, tape)
                           : layer_norm(x, norm.weight, norm.bias, norm.eps, tape);
}

void visit(ParameterVisitor& visitor, Norm& norm) {
  if (norm.name.empty()) return;
  visitor.vector(norm.name + ".weight", norm.weight);
  if (!norm.bias.empty()) visitor.vector(norm.name + ".bias", norm.bias);
}

Tensor Decoder::hidden(const Batch& batch, KvCache* cache, Tape* tape) const {
  // Layers that are computed again in the backward pass need it longer than this call lasts.
  const auto state = std::make_shared<PassState>(pass_state(batch, cache));
  const std::vector<int32_t> positions = positions_of(*state, static_cast<int64_t>(batch.ids.size()));
  Tensor h = embed({.ids = batch.ids, .positions = positions, .state = *state, .tape = tape});
  for (int64_t i = 0; i < info().layers; ++i) {
    if (tape) tape->keep("hidden." + std::to_string(i), h);
    h = checkpoint(h, tape, [this, state, i](const Tensor& x, Tape* layer_tape) {
      return run_layer(x, {.layer = i, .state = *state, .tape = layer_tape});
    });
  }
  if (cache) cache->advance(h.rows());
  h = finish(h, *state, tape);
  if (tape) tape->keep("hidden." + std::to_string(info().layers), h);
  return h;
}

PassState Decoder::pass_state(const Batch& batch, KvCache* cache) const {
  PassState state = {.ropes = {}, .cache = cache, .lengths = sequence_lengths(batch), .compute = compute_};
  state.compute.tokens_apart = cache && cache->length() > 0;
  if (cache && state.lengths.size() != 1) fail(ErrorCode::internal, "a cache holds one sequence");
  const auto tokens = static_cast<int64_t>(batch.ids.size());
  if (cache && cache->length() + tokens > cache->capacity()) {
    fail(ErrorCode::invalid_argument, "context: " + std::to_string(cache->length() + tokens) +
                                          " positions, the cache has room for " + std::to_string(cache->capacity()));
  }
  for (const RopeConfig& rope : ropes_) {
    state.ropes.push_back(cache ? rope_table(rope, cache->length(), tokens, cache->capacity())
                                : rope_table(rope, state.lengths));
  }
  return state;
}

Tensor Decoder::logits(const Tensor& hidden, Tape* tape) const { return linear(hidden, head_, head_compute_, tape); }

void Decoder::visit(ParameterVisitor& visitor) {
  visitor.embedding(embedding_);
  visit_layers(visitor);
  nibble::visit(visitor, norm_);
  visitor.linear(head_);
}

void Decoder::load_embedding(Loader& loader, const std::string& module, const DecoderShape& shape) {
  embedding_ = loader.embedding(module, shape.vocab_size, shape.hidden_size);
}

void Decoder::load_head(Loader& loader, const DecoderShape& shape) {
  if (!info().labels.empty()) {
    head_ = loader.head("score", static_cast<int64_t>(info().labels.size()), shape.hidden_size);
    return;
  }
  // As transformers from version 5 on, and llama.cpp: what is stored counts.
  if (shape.tie_word_embeddings && !loader.has_own_head("lm_head", embedding_.name)) {
    head_ = loader.tied_head("lm_head", embedding_.weight);
  } else {
    head_ = loader.head("lm_head", shape.vocab_size, shape.hidden_size);
  }
}

Tensor Decoder::learned_positions(const EmbedCall& call, const Embedding& table, int64_t offset) const {
  std::vector<int32_t> rows(call.positions.begin(), call.positions.end());
  for (int32_t& row : rows) {
    if (row >= info().context_length) {
      fail(ErrorCode::invalid_argument, "context: " + std::to_string(call.positions.back() + 1) +
                                            " positions, the model has " + std::to_string(info().context_length));
    }
    row += static_cast<int32_t>(offset);
  }
  return embedding(rows, table, call.tape);
}

Tensor Decoder::embed(const EmbedCall& call) const { return embedding(call.ids, embedding_, call.tape); }

Tensor Decoder::finish(const Tensor& h, const PassState&, Tape* tape) const { return normalize(h, norm_, tape); }

Tensor attend(Tensor&& q, Tensor&& k, const Tensor& v, const RopeTable* rope, const AttentionOptions& options,
              const LayerCall& call) {
  const int64_t head_dim = q.cols() / options.heads;
  const Tensor queries = rope ? apply_rope(std::move(q), head_dim, *rope, call.tape) : q;
  const Tensor keys = rope ? apply_rope(std::move(k), head_dim, *rope, call.tape) : k;
  KvCache* cache = call.state.cache;
  if (cache == nullptr) return causal_attention(queries, keys, v, call.state.lengths, options, call.tape);
  cache->write(call.layer, keys, v);
  return attention(queries, *cache, call.layer, options);
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
  Tape* tape = call.tape;
  std::vector<Tensor> qkv = linear_all(x, {&layer.q, &layer.k, &layer.v}, call.state.compute, tape);
  Tensor &q = qkv[0], &k = qkv[1], &v = qkv[2];
  if (!layer.q_norm.weight.empty()) {
    q = normalize(q, layer.q_norm, tape);
    k = normalize(k, layer.k_norm, tape);
  }
  const RopeTable* rope = layer.rope == kNoRope ? nullptr : &call.state.ropes[static_cast<size_t>(layer.rope)];
  return linear(attend(std::move(q), std::move(k), v, rope, layer.options, call), layer.o, call.state.compute, tape);
}

void visit(ParameterVisitor& visitor, SelfAttention& layer) {
  for (Linear* part : {&layer.q, &layer.k, &layer.v, &layer.o}) visitor.linear(*part);
  if (layer.q_norm.weight.empty()) return;
  visit(visitor, layer.q_norm);
  visit(visitor, layer.k_norm);
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

Tensor gated_mlp(const Tensor& x, const GatedMlp& mlp, const LayerCall& call) {
  Tape* tape = call.tape;
  std::vector<Tensor> both = linear_all(x, {&mlp.gate, &mlp.up}, call.state.compute, tape);
  const Tensor inner = mlp.activation == Activation::silu
                           ? silu_mul(both[0], both[1], tape)
                           : multiply(activate(mlp.activation, std::move(both[0]), tape), both[1], tape);
  return linear(inner, mlp.down, call.state.compute, tape);
}

void visit(ParameterVisitor& visitor, GatedMlp& mlp) {
  for (Linear* part : {&mlp.gate, &mlp.up, &mlp.down}) visitor.linear(*part);
}

}  // namespace nibble
