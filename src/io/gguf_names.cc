#include "io/gguf_names.h"

#include <algorithm>
#include <array>

#include "core/error.h"

namespace nibble {
namespace {

constexpr std::array<GgufNameRow, 14> kLlamaNames = {{
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.attn_q", "model.layers.{}.self_attn.q_proj"},
    {"blk.{}.attn_k", "model.layers.{}.self_attn.k_proj"},
    {"blk.{}.attn_v", "model.layers.{}.self_attn.v_proj"},
    {"blk.{}.attn_output", "model.layers.{}.self_attn.o_proj"},
    {"blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm"},
    {"blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm"},
    {"blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm"},
    {"blk.{}.ffn_gate", "model.layers.{}.mlp.gate_proj"},
    {"blk.{}.ffn_up", "model.layers.{}.mlp.up_proj"},
    {"blk.{}.ffn_down", "model.layers.{}.mlp.down_proj"},
}};

constexpr std::array<GgufNameRow, 3> kGemmaNames = {{
    {"blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm"},
    {"blk.{}.ffn_norm", "model.layers.{}.pre_feedforward_layernorm"},
    {"blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm"},
}};

constexpr std::array<GgufNameRow, 2> kOlmo2Names = {{
    {"blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm"},
    {"blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm"},
}};

constexpr std::array<GgufNameRow, 2> kPhi3Names = {{
    {"blk.{}.attn_qkv", "model.layers.{}.self_attn.qkv_proj"},
    {"blk.{}.ffn_up", "model.layers.{}.mlp.gate_up_proj"},
}};

constexpr std::array<GgufNameRow, 10> kGpt2Names = {{
    {"token_embd", "transformer.wte"},
    {"position_embd", "transformer.wpe"},
    {"output_norm", "transformer.ln_f"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "transformer.h.{}.ln_1"},
    {"blk.{}.attn_qkv", "transformer.h.{}.attn.c_attn"},
    {"blk.{}.attn_output", "transformer.h.{}.attn.c_proj"},
    {"blk.{}.ffn_norm", "transformer.h.{}.ln_2"},
    {"blk.{}.ffn_up", "transformer.h.{}.mlp.c_fc"},
    {"blk.{}.ffn_down", "transformer.h.{}.mlp.c_proj"},
}};

// The converter drops the pooler, so a GGUF file holds the encoder alone.
constexpr std::array<GgufNameRow, 12> kBertNames = {{
    {"token_embd", "embeddings.word_embeddings"},
    {"position_embd", "embeddings.position_embeddings"},
    {"token_types", "embeddings.token_type_embeddings"},
    {"token_embd_norm", "embeddings.LayerNorm"},
    {"blk.{}.attn_q", "encoder.layer.{}.attention.self.query"},
    {"blk.{}.attn_k", "encoder.layer.{}.attention.self.key"},
    {"blk.{}.attn_v", "encoder.layer.{}.attention.self.value"},
    {"blk.{}.attn_output", "encoder.layer.{}.attention.output.dense"},
    {"blk.{}.attn_output_norm", "encoder.layer.{}.attention.output.LayerNorm"},
    {"blk.{}.ffn_up", "encoder.layer.{}.intermediate.dense"},
    {"blk.{}.ffn_down", "encoder.layer.{}.output.dense"},
    {"blk.{}.layer_output_norm", "encoder.layer.{}.output.LayerNorm"},
}};

constexpr std::array<GgufKeyRow, 12> kLlamaKeys = {{
    {"embedding_length", "hidden_size", true},
    {"block_count", "num_hidden_layers", true},
    {"feed_forward_length", "intermediate_size", true},
    {"context_length", "max_position_embeddings", true},
    {"attention.head_count", "num_attention_heads", true},
    {"attention.head_count_kv", "num_key_value_heads"},
    {"attention.key_length", "head_dim"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true},
    {"attention.sliding_window", "sliding_window"},
    {"rope.freq_base", "rope_theta"},
    {"attn_logit_softcapping", "attn_logit_softcapping"},
    {"final_logit_softcapping", "final_logit_softcapping"},
}};

constexpr std::array<GgufKeyRow, 6> kGpt2Keys = {{
    {"embedding_length", "n_embd", true},
    {"block_count", "n_layer", true},
    {"feed_forward_length", "n_inner", true},
    {"context_length", "n_positions", true},
    {"attention.head_count", "n_head", true},
    {"attention.layer_norm_epsilon", "layer_norm_epsilon", true},
}};

constexpr std::array<GgufKeyRow, 6> kBertKeys = {{
    {"embedding_length", "hidden_size", true},
    {"block_count", "num_hidden_layers", true},
    {"feed_forward_length", "intermediate_size", true},
    {"context_length", "max_position_embeddings", true},
    {"attention.head_count", "num_attention_heads", true},
    {"attention.layer_norm_epsilon", "layer_norm_eps", true},
}};

constexpr std::string_view kSilu = R"({"hidden_act": "silu"})";
constexpr std::string_view kGeluTanh = R"({"hidden_activation": "gelu_pytorch_tanh"})";
// The sliding layers of Gemma 3 have a rope of their own.
constexpr std::string_view kGemma3 = R"({"hidden_activation": "gelu_pytorch_tanh", "rope_local_base_freq": 10000.0})";

constexpr std::array<GgufArchitecture, 10> kArchitectures = {{
    {.name = "llama",
     .model_type = "llama",
     .class_name = "LlamaForCausalLM",
     .fixed = kSilu,
     .keys = kLlamaKeys,
     .names = {},
     .other_names = kLlamaNames,
     .permuted_heads = true},
    {.name = "qwen2",
     .model_type = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .fixed = kSilu,
     .keys = kLlamaKeys,
     .names = {},
     .other_names = kLlamaNames},
    {.name = "qwen3",
     .model_type = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .fixed = kSilu,
     .keys = kLlamaKeys,
     .names = {},
     .other_names = kLlamaNames},
    {.name = "gemma2",
     .model_type = "gemma2",
     .class_name = "Gemma2ForCausalLM",
     .fixed = kGeluTanh,
     .keys = kLlamaKeys,
     .names = kGemmaNames,
     .other_names = kLlamaNames,
     .global_every = 2,
     .shifted_norms = true},
    {.name = "gemma3",
     .model_type = "gemma3_text",
     .class_name = "Gemma3ForCausalLM",
     .fixed = kGemma3,
     .keys = kLlamaKeys,
     .names = kGemmaNames,
     .other_names = kLlamaNames,
     .global_every = 6,
     .shifted_norms = true},
    {.name = "phi3",
     .model_type = "phi3",
     .class_name = "Phi3ForCausalLM",
     .fixed = kSilu,
     .keys = kLlamaKeys,
     .names = kPhi3Names,
     .other_names = kLlamaNames},
    {.name = "olmo2",
     .model_type = "olmo2",
     .class_name = "Olmo2ForCausalLM",
     .fixed = kSilu,
     .keys = kLlamaKeys,
     .names = kOlmo2Names,
     .other_names = kLlamaNames},
    {.name = "smollm3",
     .model_type = "smollm3",
     .class_name = "SmolLM3ForCausalLM",
     .fixed = R"({"hidden_act": "silu", "no_rope_layer_interval": 4})",
     .keys = kLlamaKeys,
     .names = {},
     .other_names = kLlamaNames,
     .permuted_heads = true},
    {.name = "gpt2",
     .model_type = "gpt2",
     .class_name = "GPT2LMHeadModel",
     .fixed = R"({"activation_function": "gelu_new"})",
     .keys = kGpt2Keys,
     .names = kGpt2Names,
     .other_names = {},
     .transposed = true},
    {.name = "bert",
     .model_type = "bert",
     .class_name = "BertModel",
     .fixed = R"({"hidden_act": "gelu"})",
     .keys = kBertKeys,
     .names = kBertNames,
     .other_names = {}},
}};

/// A name taken apart: "blk.3.attn_q.weight" -> "blk.{}.attn_q", "3", ".weight".
struct Pattern {
  std::string text;
  std::string layer;
  std::string suffix;
};

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

Pattern pattern_of(std::string_view name) {
  Pattern pattern;
  for (const std::string_view suffix : {".weight", ".bias"}) {
    if (name.ends_with(suffix)) {
      pattern.suffix = suffix;
      name.remove_suffix(suffix.size());
      break;
    }
  }
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    const bool is_layer = pattern.layer.empty() && is_number(part);
    if (is_layer) pattern.layer = part;
    pattern.text += (begin > 0 ? "." : "") + (is_layer ? std::string("{}") : std::string(part));
    begin = end + 1;
  }
  return pattern;
}

std::optional<std::string> translate(const GgufArchitecture& architecture, std::string_view name,
                                     std::string_view GgufNameRow::*from, std::string_view GgufNameRow::*to) {
  const Pattern pattern = pattern_of(name);
  if (pattern.suffix.empty()) return std::nullopt;
  for (const auto rows : {architecture.names, architecture.other_names}) {
    for (const GgufNameRow& row : rows) {
      if (row.*from != pattern.text) continue;
      std::string result(row.*to);
      if (const size_t hole = result.find("{}"); hole != std::string::npos) result.replace(hole, 2, pattern.layer);
      return result + pattern.suffix;
    }
  }
  return std::nullopt;
}

}  // namespace

const GgufArchitecture& find_gguf_architecture(std::string_view name, const std::string& where) {
  std::string known;
  for (const GgufArchitecture& architecture : kArchitectures) {
    if (architecture.name == name) return architecture;
    known += (known.empty() ? "" : ", ") + std::string(architecture.name);
  }
  fail(ErrorCode::unsupported,
       where + ": architecture '" + printable(name, 100) + "' is not supported; " + known + " are");
}

std::optional<std::string> hf_tensor_name(const GgufArchitecture& architecture, std::string_view gguf_name) {
  return translate(architecture, gguf_name, &GgufNameRow::gguf, &GgufNameRow::hf);
}

std::optional<std::string> gguf_tensor_name(const GgufArchitecture& architecture, std::string_view hf_name) {
  return translate(architecture, hf_name, &GgufNameRow::hf, &GgufNameRow::gguf);
}

}  // namespace nibble
