#pragma once
// Encoder folders with weights from a formula, made on the fly: what they compute means nothing, but it is the same
// everywhere.
#include <string>

#include "io/safetensors.h"
#include "models/registry.h"
#include "support/files.h"

namespace nibble::test {

inline constexpr const char* kTinyBert = R"({"model_type": "bert", "architectures": ["BertForSequenceClassification"],
  "vocab_size": 16, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
  "max_position_embeddings": 12, "type_vocab_size": 2, "id2label": {"0": "bad", "1": "fair", "2": "good"}})";

// Words by id; the tokenizer is made from it.
inline constexpr const char* kTinyVocabulary =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\nfilm\nis\nwas\ngood\nbad\nnot\nso\nvery\n.\n,\n";

/// Values between -0.5 and 0.5 that differ from tensor to tensor; scales of norms are near 1.
inline Tensor formula_values(const std::string& name, const Shape& shape) {
  uint32_t state = 2166136261u;
  for (const char c : name) state = (state ^ static_cast<uint8_t>(c)) * 16777619u;
  Tensor t(DType::f32, shape);
  const bool scale = shape.size() == 1 && name.ends_with("weight");
  for (int64_t i = 0; i < t.count(); ++i) {
    state = state * 1664525u + 1013904223u;
    const float value = static_cast<float>(state >> 8) * 0x1p-24f - 0.5f;
    t.f32()[i] = scale ? 1.0f + 0.2f * value : value;
  }
  return t;
}

struct EncoderFiles {
  std::string config = kTinyBert;
  std::string drop_prefix = {};  // "bert.": weights are stored without it
  std::string without = {};      // this tensor is left out
  bool old_norms = false;        // "LayerNorm.gamma" and "LayerNorm.beta", as TensorFlow has them
};

/// `text` with the first `from` replaced.
inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  if (at == std::string::npos) throw std::runtime_error("nothing to replace: " + from);
  return text.replace(at, from.size(), to);
}

/// Where the file of an encoder has a tensor.
inline std::string stored_name(const std::string& name, const EncoderFiles& files) {
  const bool drop = !files.drop_prefix.empty() && name.starts_with(files.drop_prefix);
  const std::string stored = drop ? name.substr(files.drop_prefix.size()) : name;
  if (!files.old_norms || stored.find("LayerNorm") == std::string::npos) return stored;
  return stored.ends_with("weight") ? replaced(stored, "Norm.weight", "Norm.gamma")
                                    : replaced(stored, "Norm.bias", "Norm.beta");
}

inline std::string write_encoder(const TempFolder& folder, const std::string& name, const EncoderFiles& files = {}) {
  folder.write(name + "/config.json", files.config);
  folder.write(name + "/vocab.txt", kTinyVocabulary);
  folder.write(name + "/tokenizer_config.json", R"({"tokenizer_class": "BertTokenizer", "do_lower_case": true})");
  std::vector<TensorDeclaration> declared;
  std::vector<Tensor> values;
  for (const Parameter& p : list_parameters(Json::parse(files.config, "config.json"), "config.json")) {
    if (p.name == files.without) continue;
    declared.push_back({stored_name(p.name, files), DType::f32, p.shape});
    values.push_back(formula_values(p.name, p.shape));
  }
  SafetensorsWriter out((folder / name) / "model.safetensors", declared);
  for (size_t i = 0; i < declared.size(); ++i) out.write(declared[i].name, values[i]);
  out.finish();
  return (folder / name).string();
}

}  // namespace nibble::test
