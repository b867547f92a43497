#include "tasks/side_files.h"

#include "core/error.h"
#include "text/gguf_vocab.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// What transformers and sentence-transformers keep beside the weights.
constexpr const char* kCarriedFiles[] = {"generation_config.json",
                                         "tokenizer.json",
                                         "tokenizer_config.json",
                                         "special_tokens_map.json",
                                         "added_tokens.json",
                                         "vocab.json",
                                         "merges.txt",
                                         "vocab.txt",
                                         "tokenizer.model",
                                         "chat_template.jinja",
                                         "chat_template.json",
                                         "preprocessor_config.json",
                                         "modules.json",
                                         "sentence_bert_config.json",
                                         "config_sentence_transformers.json",
                                         "LICENSE",
                                         "LICENSE.txt",
                                         "NOTICE"};

void write_json(OutputFolder& folder, const std::string& name, const Json& value) {
  folder.write_text(name, value.dump(2) + "\n");
}

/// What generation needs to know where to stop, from the configuration made of a GGUF file.
Json token_ids_of(const Json& config) {
  Json out = Json::object();
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if (const Json* id = config.find_value(key)) out.set(key, *id);
  }
  return out;
}

const char* dtype_key(const Json& config) { return config.find("torch_dtype") ? "torch_dtype" : "dtype"; }

}  // namespace

void write_side_files(OutputFolder& folder, const ModelFiles& source, const Json& config) {
  write_json(folder, "config.json", config);
  if (source.is_gguf()) {
    const std::string where = source.path.string();
    write_json(folder, "tokenizer.json", tokenizer_json_from_gguf(*source.gguf_metadata, where));
    write_json(folder, "tokenizer_config.json", tokenizer_config_from_gguf(*source.gguf_metadata, where));
    write_json(folder, "generation_config.json", token_ids_of(config));
    return;
  }
  for (const char* name : kCarriedFiles) {
    if (fs::is_regular_file(source.path / name)) folder.copy(source.path / name, name);
  }
  for (const SentenceModule& module : source.modules) {
    for (const std::string& name : module.files) folder.copy(source.path / name, name);
  }
}

std::optional<DType> config_dtype(const Json& config, const std::string& where) {
  const Json* value = config.find_value(dtype_key(config));
  if (value == nullptr) return std::nullopt;
  return parse_dtype(value->as_string(where + ": " + dtype_key(config)));
}

void set_config_dtype(Json& config, DType dtype) {
  config.set(dtype_key(config), std::string(torch_dtype_name(dtype)));
}

std::optional<DType> dense_dtype_for(const ModelFiles& files, const Format& format) {
  if (format.dense) return format.dense;
  if (!files.is_gguf()) return std::nullopt;
  return config_dtype(files.config, files.path.string()).value_or(DType::f16);
}

}  // namespace nibble
