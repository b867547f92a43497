#pragma once
// A small configuration of every model family, for tests that loop over them. A new family is one row.
#include <string>
#include <string_view>
#include <vector>

namespace nibble::test {

/// $H, $I: the hidden and the inner width.
inline constexpr std::string_view kDecoderShape =
    R"("vocab_size": 40, "hidden_size": $H, "intermediate_size": $I, "num_hidden_layers": 2, "num_attention_heads": 4,
       "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64, "rope_theta": 100.0)";
inline constexpr std::string_view kEncoderShape =
    R"("vocab_size": 40, "hidden_size": $H, "intermediate_size": $I, "num_hidden_layers": 2, "num_attention_heads": 4,
       "max_position_embeddings": 32, "pad_token_id": 1, "num_labels": 3)";

struct Family {
  std::string model_type;
  std::string more;  // members of config.json besides the shape
  std::string_view shape = kDecoderShape;
  std::string gguf = {};  // its architecture in GGUF files, when that has another name; "-" = has none
};

// The windows are shorter than the texts of the tests, so that a family that forgets its own is found.
inline const std::vector<Family>& decoders() {
  static const std::vector<Family> rows = {
      {"llama", R"("attention_bias": true, "mlp_bias": true)"},
      {"mistral", R"("sliding_window": 4)", kDecoderShape, "llama"},
      {"qwen2", R"("tie_word_embeddings": true)"},
      {"qwen3", R"("use_sliding_window": true, "sliding_window": 4, "max_window_layers": 1)"},
      {"smollm3", R"("no_rope_layers": [1, 0])"},
      {"gemma2", R"("sliding_window": 4, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 5.0,
         "final_logit_softcapping": 8.0)"},
      {"gemma3_text", R"("sliding_window": 4, "sliding_window_pattern": 2)", kDecoderShape, "gemma3"},
      {"gemma3", "", kDecoderShape, "-"},
      {"phi3", R"("partial_rotary_factor": 0.5, "original_max_position_embeddings": 32, "rope_scaling": {
         "type": "longrope", "short_factor": [1, 1, 1.5, 2], "long_factor": [1, 2, 3, 4]})"},
      {"olmo2", ""},
      {"opt", R"("vocab_size": 40, "hidden_size": $H, "ffn_dim": $I, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 32, "word_embed_proj_dim": 16)",
       "", "-"},
      {"gpt2", R"("vocab_size": 40, "n_embd": 48, "n_head": 3, "n_layer": 2, "n_positions": 32)", ""},
  };
  return rows;
}

inline const std::vector<Family>& encoders() {
  static const std::vector<Family> rows = {
      {"bert", R"("architectures": ["BertForSequenceClassification"])", kEncoderShape},
      {"roberta", R"("architectures": ["RobertaForSequenceClassification"])", kEncoderShape},
      {"distilbert", R"("architectures": ["DistilBertForSequenceClassification"], "vocab_size": 40, "dim": $H,
         "hidden_dim": $I, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 32, "num_labels": 3)",
       ""},
  };
  return rows;
}

/// Decoders with a head of three labels.
inline std::vector<Family> decoder_classifiers() {
  std::vector<Family> rows = decoders();
  std::erase_if(rows, [](const Family& f) { return f.model_type == "gemma3"; });
  for (Family& f : rows) {
    // The kinks of ReLU, over two rows only, would show where slopes are measured.
    if (f.model_type == "opt") f.more = R"("activation_function": "gelu", )" + f.more;
    f.more +=
        std::string(f.more.empty() ? "" : ", ") + R"("architectures": ["XForSequenceClassification"], "num_labels": 3)";
  }
  return rows;
}

inline std::vector<Family> every_family() {
  std::vector<Family> rows = decoders();
  rows.insert(rows.end(), encoders().begin(), encoders().end());
  return rows;
}

/// config.json of a family. hidden: a multiple of 16; the inner width is half as much again. dtype: as torch calls it.
inline std::string config_text(const Family& f, int hidden = 64, const std::string& dtype = "float32") {
  const std::string comma = f.shape.empty() || f.more.empty() ? "" : ", ";
  std::string inside = std::string(f.shape) + comma + f.more + R"(, "dtype": ")" + dtype + "\"";
  if (f.model_type == "gemma3") {
    inside = R"("text_config": {"model_type": "gemma3_text", "sliding_window": 4, )" + inside + R"(}, "dtype": ")" +
             dtype + "\"";
  }
  std::string text = R"({"model_type": ")" + f.model_type + R"(", )" + inside + "}";
  for (const auto& [mark, value] : {std::pair("$H", hidden), std::pair("$I", hidden * 3 / 2)}) {
    for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark)) {
      text.replace(at, 2, std::to_string(value));
    }
  }
  return text;
}

}  // namespace nibble::test
