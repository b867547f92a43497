// Shapes as the models' publishers state them. Parameter counts are tested against the published ones.
#include "tasks/known_configs.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace nibble {
namespace {

constexpr std::array<KnownConfig, 33> kConfigs = {{
    {"llama-2-7b", R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float16",
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096, "tie_word_embeddings": false})"},
    {"llama-2-13b", R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float16",
        "vocab_size": 32000, "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
        "num_attention_heads": 40, "num_key_value_heads": 40, "max_position_embeddings": 4096, "tie_word_embeddings": false})"},
    {"llama-2-70b", R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float16",
        "vocab_size": 32000, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 4096, "tie_word_embeddings": false})"},
    {"llama-3-8b", R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192, "tie_word_embeddings": false})"},
    {"llama-3-70b", R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 128256, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 8192, "tie_word_embeddings": false})"},
    {"llama-3.1-8b", R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "tie_word_embeddings": false})"},
    {"llama-3.2-1b", R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072, "tie_word_embeddings": true})"},
    {"llama-3.2-3b", R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 128256, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
        "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072, "tie_word_embeddings": true})"},
    {"tinyllama-1.1b", R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
        "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 2048, "tie_word_embeddings": false})"},
    {"smollm2-135m", R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "tie_word_embeddings": true})"},
    {"smollm2-360m", R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 49152, "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32,
        "num_attention_heads": 15, "num_key_value_heads": 5, "max_position_embeddings": 8192, "tie_word_embeddings": true})"},
    {"smollm2-1.7b", R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 49152, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 8192, "tie_word_embeddings": true})"},
    {"mistral-7b", R"({"model_type": "mistral", "architectures": ["MistralForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768, "tie_word_embeddings": false,
        "sliding_window": 4096})"},
    {"qwen2.5-0.5b", R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768, "tie_word_embeddings": true})"},
    {"qwen2.5-1.5b", R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 131072, "tie_word_embeddings": true})"},
    {"qwen2.5-3b", R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 32768, "tie_word_embeddings": true})"},
    {"qwen2.5-7b", R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 131072, "tie_word_embeddings": false})"},
    {"qwen3-0.6b", R"({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960, "tie_word_embeddings": true})"},
    {"qwen3-8b", R"({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960, "tie_word_embeddings": false})"},
    {"gemma-2-2b", R"({"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 8192, "tie_word_embeddings": true,
        "sliding_window": 4096})"},
    {"gemma-3-1b", R"({"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 262144, "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "max_position_embeddings": 32768, "tie_word_embeddings": true,
        "sliding_window": 512})"},
    {"phi-3-mini", R"({"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "dtype": "bfloat16",
        "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096, "tie_word_embeddings": false,
        "sliding_window": 2047})"},
    {"gpt2", R"({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "dtype": "float32",
        "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024})"},
    {"gpt2-xl", R"({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "dtype": "float32",
        "vocab_size": 50257, "n_embd": 1600, "n_layer": 48, "n_head": 25, "n_positions": 1024})"},
    {"opt-125m", R"({"model_type": "opt", "architectures": ["OPTForCausalLM"], "dtype": "float16",
        "vocab_size": 50272, "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 2048})"},
    {"opt-350m", R"({"model_type": "opt", "architectures": ["OPTForCausalLM"], "dtype": "float16",
        "vocab_size": 50272, "hidden_size": 1024, "ffn_dim": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "max_position_embeddings": 2048, "word_embed_proj_dim": 512,
        "do_layer_norm_before": false})"},
    {"opt-1.3b", R"({"model_type": "opt", "architectures": ["OPTForCausalLM"], "dtype": "float16",
        "vocab_size": 50272, "hidden_size": 2048, "ffn_dim": 8192, "num_hidden_layers": 24,
        "num_attention_heads": 32, "max_position_embeddings": 2048})"},
    {"opt-6.7b", R"({"model_type": "opt", "architectures": ["OPTForCausalLM"], "dtype": "float16",
        "vocab_size": 50272, "hidden_size": 4096, "ffn_dim": 16384, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048})"},
    {"bert-base", R"({"model_type": "bert", "architectures": ["BertModel"], "dtype": "float32",
        "vocab_size": 30522, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 512})"},
    {"bert-large", R"({"model_type": "bert", "architectures": ["BertModel"], "dtype": "float32",
        "vocab_size": 30522, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "max_position_embeddings": 512})"},
    {"roberta-base", R"({"model_type": "roberta", "architectures": ["RobertaModel"], "dtype": "float32",
        "vocab_size": 50265, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1})"},
    {"distilbert-base", R"({"model_type": "distilbert", "architectures": ["DistilBertModel"], "dtype": "float32",
        "vocab_size": 30522, "dim": 768, "hidden_dim": 3072, "n_layers": 6, "n_heads": 12,
        "max_position_embeddings": 512})"},
    {"minilm-l6", R"({"model_type": "bert", "architectures": ["BertModel"], "dtype": "float32",
        "vocab_size": 30522, "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6,
        "num_attention_heads": 12, "max_position_embeddings": 512})"},
}};

bool same_letters(char a, char b) {
  return std::tolower(static_cast<unsigned char>(a)) == std::tolower(static_cast<unsigned char>(b));
}

}  // namespace

std::span<const KnownConfig> known_configs() { return kConfigs; }

const KnownConfig* find_known_config(std::string_view name) {
  const auto row = std::find_if(kConfigs.begin(), kConfigs.end(), [&](const KnownConfig& config) {
    return std::equal(name.begin(), name.end(), config.name.begin(), config.name.end(), same_letters);
  });
  return row == kConfigs.end() ? nullptr : &*row;
}

}  // namespace nibble
