// THE TABLE of model families.
#include "models/registry.h"

#include "core/error.h"
#include "models/bert.h"
#include "models/gemma.h"
#include "models/gpt2.h"
#include "models/llama.h"
#include "models/olmo2.h"
#include "models/opt.h"
#include "models/phi3.h"

namespace nibble {
namespace {

constexpr Architecture kArchitectures[] = {
    {"llama", build_llama},   {"mistral", build_llama},   {"qwen2", build_llama},  {"qwen3", build_llama},
    {"smollm3", build_llama}, {"gemma2", build_gemma},    {"gemma3", build_gemma}, {"gemma3_text", build_gemma},
    {"phi3", build_phi3},     {"olmo2", build_olmo2},     {"gpt2", build_gpt2},    {"opt", build_opt},
    {"bert", build_bert},     {"distilbert", build_bert}, {"roberta", build_bert},
};

}  // namespace

std::span<const Architecture> all_architectures() { return kArchitectures; }

const Architecture* find_architecture_or_null(const Json& config) {
  const Json* type = config.find_value("model_type");
  for (const Architecture& row : kArchitectures) {
    if (type && type->is_string() && row.model_type == type->as_string("model_type")) return &row;
  }
  return nullptr;
}

const Architecture& find_architecture(const Json& config, const std::string& where) {
  if (const Architecture* row = find_architecture_or_null(config)) return *row;
  const Json* type = config.find_value("model_type");
  if (type == nullptr) fail(ErrorCode::format, where + ": model_type: is missing");
  const std::string& name = type->as_string(where + ": model_type");
  std::string known;
  for (const Architecture& row : kArchitectures) {
    known += (known.empty() ? "" : ", ") + std::string(row.model_type);
  }
  fail(ErrorCode::unsupported, where + ": model_type: '" + name + "' is not supported (known: " + known + ")");
}

std::unique_ptr<Model> build_model(const Json& config, const std::string& where, Loader& loader) {
  std::unique_ptr<Model> model = find_architecture(config, where).build(config, where, loader);
  loader.finish();
  return model;
}

ModelOutline outline_model(const Json& config, const std::string& where, const WeightSource* names) {
  Loader describing(names);
  const std::unique_ptr<Model> model = build_model(config, where, describing);
  return {.info = model->info(), .parameters = describing.parameters(), .tied_head = describing.tied_head_module()};
}

std::vector<Parameter> list_parameters(const Json& config, const std::string& where, const WeightSource* names) {
  return outline_model(config, where, names).parameters;
}

}  // namespace nibble
